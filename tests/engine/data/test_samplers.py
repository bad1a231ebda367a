"""The order of examples is drawn from a generator, one draw for each epoch."""

from __future__ import annotations

from typing import Any

import pytest

import chainrule.engine as cr
from chainrule.engine.data import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    epoch_order,
)


def test_a_sequential_sampler_keeps_the_order() -> None:
    sampler = SequentialSampler(range(4))
    assert [*sampler] == [*sampler] == [0, 1, 2, 3]
    assert len(sampler) == 4


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    sampler = RandomSampler(range(10), generator=cr.Generator(7))
    orders = [list(sampler) for _ in range(3)]
    assert orders == [epoch_order(10, seed=7, epoch=epoch).tolist() for epoch in range(3)]
    resumed = RandomSampler(range(10), generator=cr.Generator().set_state((7, 2)))
    assert list(resumed) == orders[2]


def test_without_a_generator_the_current_one_draws() -> None:
    sampler = RandomSampler(range(50))
    cr.manual_seed(3)
    first, second = list(sampler), list(sampler)
    assert first != second
    cr.manual_seed(3)
    assert list(sampler) == first
    with cr.random.using(cr.Generator(3)):
        assert list(sampler) == first


def test_fewer_or_more_examples_than_there_are() -> None:
    few = RandomSampler(range(10), num_samples=4, generator=cr.Generator(0))
    assert len(few) == len(set(few)) == 4
    many = list(RandomSampler(range(5), num_samples=12, generator=cr.Generator(0)))
    assert [sorted(many[:5]), sorted(many[5:10]), len(set(many[10:]))] == [list(range(5))] * 2 + [2]
    assert many[:5] != many[5:10]
    assert list(RandomSampler([])) == []


def test_with_replacement_each_example_is_drawn_alike() -> None:
    drawn = list(RandomSampler(range(4), replacement=True, num_samples=4000, generator=cr.Generator(0)))
    assert all(900 < drawn.count(index) < 1100 for index in range(4))


def test_a_subset_is_visited_in_random_order() -> None:
    sampler = SubsetRandomSampler([3, 1, 8, 9], generator=cr.Generator(0))
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == [1, 3, 8, 9]
    assert len(sampler) == 4
    assert len({tuple(sampler) for _ in range(20)}) > 5


@pytest.mark.parametrize("replacement", [True, False])
def test_weights_are_probabilities(replacement: bool) -> None:
    generator = cr.Generator(0)
    sampler = WeightedRandomSampler([1, 0, 3, 4], 1, replacement, generator)
    drawn = [next(iter(sampler)) for _ in range(5000)]
    assert generator.get_state() == (0, 5000)
    shares = [drawn.count(index) / len(drawn) for index in range(4)]
    assert shares[1] == 0
    assert shares == pytest.approx([1 / 8, 0, 3 / 8, 4 / 8], abs=0.03)


def test_without_replacement_nothing_is_drawn_twice() -> None:
    sampler = WeightedRandomSampler([0.1, 0.9, 0.0, 0.5], 3, replacement=False, generator=cr.Generator(1))
    assert {tuple(sorted(sampler)) for _ in range(20)} == {(0, 1, 3)}
    assert len({tuple(sampler) for _ in range(50)}) > 3
    many = WeightedRandomSampler([0.1, 0.9], 100, generator=cr.Generator(1))
    assert len(list(many)) == len(many) == 100


@pytest.mark.torch
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("size", "batch"), [(10, 3), (9, 3), (2, 5), (0, 1)])
def test_batches_are_pytorchs(torch: Any, size: int, batch: int, drop_last: bool) -> None:
    mine = BatchSampler(SequentialSampler(range(size)), batch, drop_last)
    theirs = torch.utils.data.BatchSampler(range(size), batch, drop_last)
    assert [*mine] == [*theirs]
    assert len(mine) == len(theirs)


def test_an_epoch_draws_when_it_starts() -> None:
    generator = cr.Generator(0)
    batches = iter(BatchSampler(RandomSampler(range(6), generator=generator), 2, drop_last=False))
    assert generator.get_state() == (0, 1)
    assert [index for batch in batches for index in batch] == epoch_order(6, seed=0, epoch=0).tolist()


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(cr.ConfigError, match="num_samples=0: should be a positive integer value"):
        RandomSampler(range(3), num_samples=0)
    with pytest.raises(cr.ConfigError, match="replacement=1"):
        RandomSampler(range(3), replacement=1)  # type: ignore[arg-type]
    for size in (0, True, 1.5):
        with pytest.raises(cr.ConfigError, match="batch_size should be a positive integer value"):
            BatchSampler(range(3), size, drop_last=False)  # type: ignore[arg-type]
    with pytest.raises(cr.ConfigError, match="drop_last should be a boolean value"):
        BatchSampler(range(3), 1, drop_last=None)  # type: ignore[arg-type]
    for settings, message in [
        (([1.0], 0), "num_samples should be a positive integer"),
        (([1.0], 1, 1), "replacement should be a boolean"),
        (([[1.0]], 1), "weights should be a 1d sequence"),
        (([-1.0, 2.0], 1), "must be finite and not negative"),
        (([0.0], 1), "one of them more than 0"),
        (([1.0, 0.0], 2, False), "there are fewer weights that are not 0"),
    ]:
        with pytest.raises(cr.ConfigError, match=message):
            WeightedRandomSampler(*settings)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="Sampler should implement __iter__"):
        iter(Sampler[int]())
