"""Samplers: which examples come in which order, one by one or in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np

from chainrule.engine.data.order import epoch_order, num_batches
from chainrule.engine.dtypes import float64
from chainrule.engine.errors import ConfigError
from chainrule.engine.random import Generator, current_generator, raw_stream

T_co = TypeVar("T_co", covariant=True)


class Sampler(Generic[T_co]):
    """An order of examples; a kind of sampler defines `__iter__`, and `__len__` if it knows."""

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} should implement __iter__")


class SequentialSampler(Sampler[int]):
    """The examples in their own order."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """The examples in an order drawn anew for each epoch, or `num_samples` of them, `replacement`: drawn one by one.

    An epoch takes one draw of the generator. The order of a generator's draw number e, which is epoch e if nothing
    else draws from it, is `epoch_order(n, seed=its seed, epoch=e)`, the same on every machine; to go on where another
    process stopped, give it a generator set to the state (seed, epoch).

    Args:
        generator: None: the current one.

    Raises:
        ConfigError: `num_samples` is no positive integer.
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        if not isinstance(replacement, bool):
            raise ConfigError("replacement", replacement, "should be a boolean value")
        if num_samples is not None and (not isinstance(num_samples, int) or num_samples <= 0):
            raise ConfigError("num_samples", num_samples, "should be a positive integer value")
        self.data_source = data_source
        self.replacement = replacement
        self.generator = generator
        self._num_samples = num_samples

    @property
    def num_samples(self) -> int:
        """How many examples an epoch has."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        seed, number = take_draw(self.generator or current_generator())
        n, wanted = len(self.data_source), self.num_samples
        if n == 0:
            order: Any = np.empty(0, np.int64)
        elif self.replacement:
            order = raw_stream(seed, number, size=wanted) % np.uint64(n)
        else:
            # more than there are: the whole epoch first, then orders of their own
            rounds = [epoch_order(n, seed=seed, epoch=number)]
            rounds += [
                np.argsort(raw_stream(seed, number, k, size=n), kind="stable") for k in range(1, -(-wanted // n))
            ]
            order = np.concatenate(rounds)[:wanted]
        return iter(order.tolist())

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The examples at `indices` in an order drawn anew for each epoch."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        seed, number = take_draw(self.generator or current_generator())
        order = epoch_order(len(self.indices), seed=seed, epoch=number)
        return iter([self.indices[position] for position in order.tolist()])

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """`num_samples` examples, each drawn with a probability proportional to its weight.

    With replacement example i is the first whose weights add up to a share u of all, u from U[0, 1). Without, they are
    those with the smallest −ln(u) / weight, which is the same as drawing one after the other.
    Source: Efraimidis and Spirakis, Weighted random sampling with a reservoir, 2006

    Raises:
        ConfigError: weights that are negative, not finite or not in one row; `num_samples` that is no positive integer,
            or without replacement more than the weights that are not 0.
    """

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: Generator | None = None,
    ) -> None:
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
            raise ConfigError("num_samples", num_samples, "num_samples should be a positive integer value")
        if not isinstance(replacement, bool):
            raise ConfigError("replacement", replacement, "replacement should be a boolean value")
        self.weights = np.array(weights, np.float64)
        if self.weights.ndim != 1:
            raise ConfigError("weights", self.weights.shape, "weights should be a 1d sequence")
        if not np.isfinite(self.weights).all() or (self.weights < 0).any() or not self.weights.any():
            raise ConfigError("weights", weights, "must be finite and not negative, one of them more than 0")
        if not replacement and num_samples > np.count_nonzero(self.weights):
            raise ConfigError("num_samples", num_samples, "there are fewer weights that are not 0; allow replacement")
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        generator = self.generator or current_generator()
        if self.replacement:
            sums = np.cumsum(self.weights)
            shares = generator.uniform((self.num_samples,), float64) * sums[-1]
            last = int(np.flatnonzero(self.weights)[-1])  # a share may be rounded up to the whole
            return iter(np.minimum(np.searchsorted(sums, shares, side="right"), last).tolist())
        u = 1.0 - generator.uniform(self.weights.shape, float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            keys = np.where(self.weights > 0, -np.log(u) / self.weights, np.inf)
        return iter(np.argsort(keys, kind="stable")[: self.num_samples].tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """What a sampler gives, in lists of `batch_size`; `drop_last`: without a last one that is shorter.

    Raises:
        ConfigError: `batch_size` is no positive integer, or `drop_last` no bool.
    """

    def __init__(self, sampler: Sampler[int] | Iterable[int], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ConfigError("batch_size", batch_size, "batch_size should be a positive integer value")
        if not isinstance(drop_last, bool):
            raise ConfigError("drop_last", drop_last, "drop_last should be a boolean value")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        return self._batches(iter(self.sampler))  # the sampler draws now, not at the first batch

    def _batches(self, indices: Iterator[int]) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in indices:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        count = len(self.sampler)  # type: ignore[arg-type]  # TypeError if the sampler does not know
        return count // self.batch_size if self.drop_last else num_batches(count, self.batch_size)


def take_draw(generator: Generator) -> tuple[int, int]:
    """Uses up one draw: the generator's seed and the number of the draw, which key what is made of it."""
    state = generator.get_state()
    generator.words(0)
    return state
