"""Draws depend on the seed and on how many came before, and on nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.random import current_generator, fork_rng, using
from tests.engine.functions.expressions import evaluate


def test_draws_are_these_forever() -> None:
    g = cr.Generator(42)
    assert cr.rand(2, generator=g, dtype=cr.float64).tolist() == pytest.approx(GOLDEN_UNIFORM, abs=0, rel=1e-15)
    assert cr.randint(100, size=(4,), generator=g).tolist() == GOLDEN_INTEGERS


GOLDEN_UNIFORM = [0.08607763073528474, 0.14155732377913233]
GOLDEN_INTEGERS = [57, 95, 84, 90]


def test_the_default_generator_continues_from_its_state() -> None:
    with fork_rng():
        cr.manual_seed(4)
        cr.rand(3)
        state = cr.get_rng_state()
        drawn = cr.rand(3)
        cr.set_rng_state(state)
        assert cr.equal(cr.rand(3), drawn)


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


ERRORS = [
    "m.randint(5, 3, (2,))",
    "m.randperm(-1)",
    "m.rand(2, dtype=m.int64)",
    "m.randn(2, dtype=m.int64)",
    "m.rand_like(v)",
    "m.normal(0.0, -1.0, (2,))",
    "m.normal(m.zeros(2), m.ones(3))",
    "m.normal(m.zeros(2), -m.ones(2))",
    "m.bernoulli(v)",
    "m.multinomial(m.zeros(2), 1)",
    "m.multinomial(m.tensor([-1.0, 1.0]), 1)",
    "m.multinomial(m.ones(2), 3)",
    "m.multinomial(v, 1)",
    "m.multinomial(b, 1)",
    "m.multinomial(m.ones(2), 0)",
    "x.uniform_(2, 1)",
    "n.uniform_()",
    "x.normal_(0, -1)",
    "n.normal_()",
    "x.bernoulli_(2)",
    "x.random_(3, 1)",
    "x.random_(0)",
    "x.exponential_(-1)",
    "n.exponential_()",
    "m.ones(2, requires_grad=True).normal_()",
]


@pytest.mark.torch
@pytest.mark.parametrize("expression", ERRORS)
def test_what_cannot_be_drawn_is_refused_in_pytorchs_words(expression: str, torch: Any) -> None:
    ours, theirs = evaluate(cr, expression), evaluate(torch, expression)
    assert isinstance(theirs, Exception)
    assert isinstance(ours, cr.ChainruleError)
    assert isinstance(ours, type(theirs))
    assert str(theirs).split("\n")[0] in str(ours)


KINDS = [
    "m.rand(2, 3, dtype=m.float16)",
    "m.rand((2, 3), dtype=m.bfloat16)",
    "m.randn(4, dtype=m.float64)",
    "m.randn(2, dtype=m.bfloat16)",
    "m.randint(3, (2,))",
    "m.randint(1, 3, (2, 2), dtype=m.uint8)",
    "m.randint(0, 3, (2,), dtype=m.float32)",
    "m.randperm(5)",
    "m.randperm(5, dtype=m.float32)",
    "m.normal(0.0, 1.0, (2, 3))",
    "m.normal(m.zeros(2, 1), m.ones(3))",
    "m.normal(m.zeros(2), 1)",
    "m.normal(0.0, m.ones(2).double())",
    "m.bernoulli(m.full((3,), 0.5))",
    "m.bernoulli(m.zeros(3), 0.5)",
    "m.multinomial(m.ones(2, 3), 2)",
    "m.multinomial(m.ones(3), 5, replacement=True)",
    "m.rand_like(x)",
    "m.randn_like(n, dtype=m.float64)",
    "m.randint_like(x, 5)",
    "x.uniform_(-1, 1)",
    "x.half().normal_(2, 3)",
    "n.bernoulli_()",
    "n.bernoulli_(x / 9)",
    "n.random_()",
    "n.to(m.int8).random_(5)",
    "x.random_(2, 5)",
    "mask.random_()",
    "x.bfloat16().exponential_()",
]


@pytest.mark.torch
@pytest.mark.parametrize("expression", KINDS)
def test_draws_have_pytorchs_shapes_and_dtypes(expression: str, torch: Any) -> None:
    ours, theirs = evaluate(cr, expression), evaluate(torch, expression)
    assert not isinstance(ours, Exception), ours
    assert (ours.shape, str(ours.dtype)) == (tuple(theirs.shape), str(theirs.dtype).removeprefix("torch."))


def test_distributions_into_tensors_have_their_moments() -> None:
    g = cr.Generator(0)
    x = cr.empty(100_000)
    assert x.uniform_(-1, 3, generator=g).mean().item() == pytest.approx(1, abs=0.02)
    assert (x.min().item() >= -1, x.max().item() < 3) == (True, True)
    assert x.normal_(2, 0.5, generator=g).data.std() == pytest.approx(0.5, abs=0.01)
    assert x.exponential_(4, generator=g).mean().item() == pytest.approx(0.25, abs=0.01)
    assert x.bernoulli_(0.3, generator=g).mean().item() == pytest.approx(0.3, abs=0.01)
    assert set(np.unique(x.random_(2, 5, generator=g).data)) == {2.0, 3.0, 4.0}
    assert cr.normal(cr.tensor([0.0, 5.0]).expand(50_000, 2), 2.0, generator=g).mean().item() == pytest.approx(
        2.5, abs=0.05
    )


def test_half_precision_is_drawn_evenly_too() -> None:
    for dtype in (cr.float16, cr.bfloat16):
        u = cr.rand(20_000, dtype=dtype, generator=cr.Generator(0)).float()
        assert (u.min().item() >= 0, u.max().item() < 1) == (True, True)
        assert u.mean().item() == pytest.approx(0.5, abs=0.01)


def test_multinomial_draws_in_proportion_and_without_replacement_each_once() -> None:
    g = cr.Generator(0)
    weights = cr.tensor([[1.0, 0.0, 3.0], [2.0, 2.0, 0.0]])
    drawn = cr.multinomial(weights, 20_000, replacement=True, generator=g)
    shares = [(row == i).float().mean().item() for row in drawn for i in range(3)]
    assert shares == pytest.approx([0.25, 0, 0.75, 0.5, 0.5, 0], abs=0.02)
    firsts = [cr.multinomial(weights[0], 2, generator=g).tolist() for _ in range(500)]
    assert {tuple(sorted(pair)) for pair in firsts} == {(0, 2)}
    assert np.mean([pair[0] == 2 for pair in firsts]) == pytest.approx(0.75, abs=0.07)


def test_what_is_drawn_into_a_tensor_has_no_gradient() -> None:
    x = cr.ones(2, requires_grad=True)
    y = x * 2
    y.uniform_()
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.0]


def test_fork_rng_leaves_the_default_generator_as_it_was() -> None:
    cr.manual_seed(3)
    with fork_rng():
        cr.rand(5)
    after = cr.rand(2)
    cr.manual_seed(3)
    assert cr.equal(cr.rand(2), after)


def test_seed_takes_one_from_the_operating_system() -> None:
    g = cr.Generator(1)
    assert g.seed() == g.initial_seed()
    assert g.get_state() == (g.initial_seed(), 0)


def test_a_generator_is_on_the_cpu() -> None:
    assert cr.Generator("cpu").initial_seed() == cr.Generator().initial_seed()
    with pytest.raises(cr.UnsupportedError, match="device 'cuda'"):
        cr.Generator(device="cuda")


def test_integers_that_the_dtype_cannot_hold_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"to - 1 is out of bounds for Byte: 299 is not in \[0, 255\]"):
        cr.randint(0, 300, (2,), dtype=cr.uint8)
    with pytest.raises(TypeError, match="argument 'size' must be tuple of ints, not int"):
        cr.randint(0, 3, 2)  # type: ignore[arg-type]


def test_a_draw_in_several_parts_is_one_draw() -> None:
    n = (1 << 20) + 3
    words = cr.Generator(1).words(2 * n).reshape(2, n)[:, -6:]
    u, v = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    drawn = cr.Generator(1).normal((n,), np.dtype("float64"))
    np.testing.assert_allclose(drawn[-6:], np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v), rtol=1e-14)
