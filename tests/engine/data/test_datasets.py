"""Datasets put together and cut into parts."""

from __future__ import annotations

from typing import Any

import pytest

import chainrule.engine as cr
from chainrule.engine.data import ConcatDataset, Dataset, Subset, TensorDataset, random_split


class Numbers(Dataset[int]):
    def __init__(self, start: int, stop: int) -> None:
        self.numbers = range(start, stop)

    def __getitem__(self, index: int) -> int:
        return self.numbers[index]

    def __len__(self) -> int:
        return len(self.numbers)


def test_tensors_of_one_length_are_a_dataset() -> None:
    dataset = TensorDataset(cr.arange(6).reshape(3, 2), cr.arange(3))
    assert len(dataset) == 3
    x, y = dataset[1]
    assert (x.tolist(), y.item()) == ([2, 3], 1)
    with pytest.raises(cr.ConfigError, match=r"tensors=\[3, 2\]: Size mismatch between tensors"):
        TensorDataset(cr.zeros(3), cr.zeros(2))


def test_datasets_follow_each_other() -> None:
    joined = Numbers(0, 3) + Numbers(10, 10) + Numbers(20, 22)
    assert isinstance(joined, ConcatDataset)
    assert [joined[i] for i in range(len(joined))] == [0, 1, 2, 20, 21]
    assert (joined[-1], joined[-5]) == (21, 0)
    for index in (5, -6):
        with pytest.raises(IndexError, match="there are 5 examples"):
            joined[index]
    assert list(joined) == [0, 1, 2, 20, 21]  # type: ignore[call-overload]  # by __getitem__, until IndexError
    with pytest.raises(cr.ConfigError, match="should not be an empty iterable"):
        ConcatDataset([])


def test_a_subset_has_its_examples() -> None:
    subset = Subset(Numbers(0, 10), [7, 1])
    assert [subset[i] for i in range(len(subset))] == [7, 1]


def test_a_split_shares_nothing_and_leaves_nothing_out() -> None:
    parts = random_split(Numbers(0, 10), [6, 3, 1], generator=cr.Generator(0))
    assert [len(part) for part in parts] == [6, 3, 1]
    assert sorted(part[i] for part in parts for i in range(len(part))) == list(range(10))
    again = random_split(Numbers(0, 10), [6, 3, 1], generator=cr.Generator(0))
    assert [part.indices for part in parts] == [part.indices for part in again] == GOLDEN_SPLIT
    other = random_split(Numbers(0, 10), [6, 3, 1], generator=cr.Generator(1))
    assert [part.indices for part in parts] != [part.indices for part in other]


GOLDEN_SPLIT = [[0, 8, 9, 3, 7, 5], [1, 2, 6], [4]]


@pytest.mark.torch
@pytest.mark.parametrize("fractions", [[0.5, 0.5], [0.6, 0.3, 0.1], [1 / 3] * 3, [0.55, 0.45], [0.01, 0.99], [1.0]])
@pytest.mark.parametrize("size", [10, 11, 97, 1])
@pytest.mark.filterwarnings("ignore:Length of split")
def test_fractions_are_cut_as_by_pytorch(torch: Any, fractions: list[float], size: int) -> None:
    mine = random_split(Numbers(0, size), fractions)
    theirs = torch.utils.data.random_split(range(size), fractions)
    assert [len(part) for part in mine] == [len(part) for part in theirs]


def test_impossible_splits_are_refused_and_empty_parts_told() -> None:
    with pytest.raises(cr.ConfigError, match="Sum of input lengths does not equal the length of the input dataset"):
        random_split(Numbers(0, 10), [5, 4])
    with pytest.raises(cr.ConfigError, match="Sum of input lengths"):
        random_split(Numbers(0, 10), [0.5, 0.4])
    with pytest.raises(cr.ConfigError, match="Fraction at index 0 is not between 0 and 1"):
        random_split(Numbers(0, 10), [1.2, -0.2])
    with pytest.warns(UserWarning, match="Length of split at index 1 is 0"):
        random_split(Numbers(0, 1), [0.5, 0.5])


def test_a_dataset_that_defines_nothing_says_so() -> None:
    with pytest.raises(NotImplementedError, match="should implement __getitem__"):
        Dataset[int]()[0]
    with pytest.raises(cr.ConfigError, match="has no __len__; define it, or give a sampler"):
        ConcatDataset([Dataset[int]()])
