"""Draws depend on the seed and on how many came before, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.random import current_generator, using


def test_draws_are_these_forever() -> None:
    g = cr.Generator(42)
    assert cr.rand(2, generator=g, dtype=cr.float64).tolist() == pytest.approx(GOLDEN_UNIFORM, abs=0, rel=1e-15)
    assert cr.randint(100, size=(4,), generator=g).tolist() == GOLDEN_INTEGERS


GOLDEN_UNIFORM = [0.08607763073528474, 0.14155732377913233]
GOLDEN_INTEGERS = [57, 95, 84, 90]


def test_same_seed_same_draws() -> None:
    a, b = cr.Generator(5), cr.Generator(5)
    assert cr.equal(cr.randn(100, generator=a), cr.randn(100, generator=b))
    assert not cr.equal(cr.randn(100, generator=a), cr.randn(100, generator=cr.Generator(5)))


def test_a_draw_does_not_depend_on_the_sizes_of_those_before() -> None:
    a, b = cr.Generator(5), cr.Generator(5)
    cr.rand(1, generator=a)
    cr.rand(1000, generator=b)
    assert cr.equal(cr.rand(3, generator=a), cr.rand(3, generator=b))


def test_a_state_can_be_continued() -> None:
    g = cr.Generator(5)
    cr.rand(3, generator=g)
    state = g.get_state()
    expected = cr.rand(3, generator=g)
    assert cr.equal(cr.rand(3, generator=cr.Generator().set_state(state)), expected)


def test_manual_seed_restarts_the_default_generator() -> None:
    cr.manual_seed(3)
    first = cr.rand(4)
    assert cr.initial_seed() == 3
    cr.manual_seed(3)
    assert cr.equal(cr.rand(4), first)


def test_negative_seeds_are_seeds() -> None:
    assert cr.Generator(-1).initial_seed() == 2**64 - 1


def test_using_replaces_the_default_generator_for_a_while() -> None:
    g = cr.Generator(1)
    with using(g):
        assert current_generator() is g
        with using(None):
            assert current_generator() is g
    assert current_generator() is cr.default_generator


def test_distributions_have_their_moments() -> None:
    g = cr.Generator(0)
    u, n, i = (
        x.numpy()
        for x in (
            cr.rand(100_000, generator=g),
            cr.randn(100_000, generator=g),
            cr.randint(2, 7, (100_000,), generator=g),
        )
    )
    assert 0 <= u.min() <= u.max() < 1
    assert abs(u.mean() - 0.5) < 0.005
    assert abs(n.mean()) < 0.02
    assert abs(n.std() - 1) < 0.01
    assert set(np.unique(i)) == {2, 3, 4, 5, 6}
    assert u.dtype == n.dtype == np.float32


def test_randperm_is_a_permutation() -> None:
    assert sorted(cr.randperm(50, generator=cr.Generator(1)).tolist()) == list(range(50))


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(cr.ConfigError, match="high=3: must be above low = 3"):
        cr.randint(3, 3, (1,))
