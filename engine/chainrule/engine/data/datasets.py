"""Datasets: examples by number, put together from others or cut into parts."""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from chainrule.engine.errors import ConfigError
from chainrule.engine.functions.drawing import randperm
from chainrule.engine.random import Generator
from chainrule.engine.tensor import Tensor

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """Examples by number; a kind of dataset defines `__getitem__` and `__len__`."""

    def __getitem__(self, index: int) -> T_co:
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: Dataset[T_co]) -> ConcatDataset[T_co]:
        return ConcatDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Example i is the tuple of the tensors' i-th entries.

    Raises:
        ConfigError: the tensors have different lengths.
    """

    def __init__(self, *tensors: Tensor) -> None:
        lengths = [len(tensor) for tensor in tensors]
        if len(set(lengths)) != 1:
            raise ConfigError("tensors", lengths, "Size mismatch between tensors: they need one length")
        self.tensors = tensors

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class Subset(Dataset[T_co]):
    """The examples of `dataset` at `indices`."""

    def __init__(self, dataset: Dataset[T_co], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: int) -> T_co:
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[T_co]):
    """The examples of one dataset after those of another.

    Raises:
        ConfigError: there are no datasets.
    """

    def __init__(self, datasets: Sequence[Dataset[T_co]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ConfigError("datasets", [], "datasets should not be an empty iterable")
        self.cumulative_sizes = list(itertools.accumulate(size(dataset) for dataset in self.datasets))

    def __getitem__(self, index: int) -> T_co:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"index {index} is out of range: there are {len(self)} examples")
        which = bisect.bisect_right(self.cumulative_sizes, position)
        return self.datasets[which][position - (self.cumulative_sizes[which - 1] if which else 0)]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


def size(dataset: object) -> int:
    """How many examples a dataset has.

    Raises:
        ConfigError: it does not say.
    """
    if not hasattr(dataset, "__len__"):
        raise ConfigError("dataset", type(dataset).__name__, "has no __len__; define it, or give a sampler")
    return len(dataset)


def random_split(
    dataset: Dataset[T_co], lengths: Sequence[int | float], generator: Generator | None = None
) -> list[Subset[T_co]]:
    """Cuts a dataset into parts that share no example, in an order drawn from `generator`.

    Args:
        lengths: of the parts; or, if they add up to at most 1, fractions: each part then has the whole number below
            its share, and what is left over goes to the first parts, one example each.

    Raises:
        ConfigError: the lengths do not add up to the dataset's, or a fraction is not between 0 and 1.
    """
    total = size(dataset)
    parts = _from_fractions(lengths, total) if math.isclose(sum(lengths), 1) and sum(lengths) <= 1 else list(lengths)
    if sum(parts) != total or not all(isinstance(part, int) for part in parts):
        raise ConfigError(
            "lengths", list(lengths), "Sum of input lengths does not equal the length of the input dataset!"
        )
    order: list[int] = randperm(total, generator=generator).tolist()
    stops = list(itertools.accumulate(int(part) for part in parts))
    return [Subset(dataset, order[start:stop]) for start, stop in zip([0, *stops], stops, strict=False)]


def _from_fractions(fractions: Sequence[float], total: int) -> list[int]:
    for number, fraction in enumerate(fractions):
        if not 0 <= fraction <= 1:
            raise ConfigError("lengths", list(fractions), f"Fraction at index {number} is not between 0 and 1")
    parts = [math.floor(total * fraction) for fraction in fractions]
    for number in range(total - sum(parts)):
        parts[number % len(parts)] += 1
    for number, part in enumerate(parts):
        if part == 0:
            warnings.warn(
                f"Length of split at index {number} is 0. This might result in an empty dataset.", stacklevel=3
            )
    return parts


def fetch(dataset: Any, indices: Sequence[Any]) -> list[Any]:
    """The examples at `indices`; an error on the way says at which it happened."""
    if hasattr(dataset, "__getitems__"):
        examples: list[Any] = dataset.__getitems__(indices)
        return examples
    return [fetch_one(dataset, index) for index in indices]


def fetch_one(dataset: Any, index: Any) -> Any:
    """The example at `index`; an error on the way says that it happened there."""
    try:
        return dataset[index]
    except Exception as error:
        error.add_note(f"while fetching example {index!r} of {type(dataset).__name__}")
        raise
