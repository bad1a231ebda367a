"""The works that both sides train, and where they start."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.distributed import data
from benchmarks.distributed.variants import ALL, QUICK, Variant
from benchmarks.distributed.works import WORKS, Work, mlp_parameters
from chainrule.engine import models

SMALL = Work(name="m", title="m", network="mlp", batch=4, shape=(5, 7, 3), warmup_steps=1, steps=2)


def test_names_are_unique() -> None:
    assert len({work.name for work in WORKS}) == len(WORKS)


def test_works_and_variants_survive_json() -> None:
    assert [Work.from_json(work.to_json()) for work in WORKS] == list(WORKS)
    variant = Variant(channels_last=True, fused=True)
    assert Variant.from_json(variant.to_json()) == variant


def test_the_quick_variants_are_among_all() -> None:
    assert all(set(QUICK[network]) <= set(ALL[network]) for network in ALL)


def test_titles_state_the_parameters_that_our_families_have() -> None:
    assert mlp_parameters((300, 300, 10)) == 93_310
    for work in WORKS:
        model = models.build(work.network, work.family_config)
        count = sum(parameter.numel() for parameter in model.parameters())
        assert (f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k") in work.title


def test_every_process_of_ddp_takes_the_examples_of_one_of_our_shards() -> None:
    plan = data.plan(SMALL, workers=2, shards=2)
    shards = data.shards(SMALL)
    assert shards.shape == (3, 2, 2)
    assert sorted(shards.reshape(-1)) == list(range(12))
    assert all(
        (mine == its).all() for step in range(3) for mine, its in zip(plan.shards(step), shards[step], strict=True)
    )


def test_the_examples_last_for_all_steps() -> None:
    inputs, targets = data.examples(SMALL)
    assert inputs.shape == (12, 5)
    assert targets.shape == (12,)
    assert set(targets) <= {0, 1, 2}


def test_parameters_start_by_their_place_and_kind() -> None:
    ours = data.initial([("fc.weight", (3, 4)), ("bn.weight", (3,)), ("bn.bias", (3,))])
    theirs = data.initial([("0.weight", (3, 4)), ("1.weight", (3,)), ("1.bias", (3,))])
    weight, scale, bias = ours
    for mine, its in zip((weight, scale, bias), theirs, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert weight.dtype == np.float32
    assert scale.tolist() == [1, 1, 1]
    assert bias.tolist() == [0, 0, 0]


def test_weights_have_the_variance_of_their_inputs() -> None:
    [weight] = data.initial([("weight", (400, 50))])
    assert float(weight.var()) == pytest.approx(2 / 50, rel=0.05)
