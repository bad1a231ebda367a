"""The order of examples, as a function of seed and epoch, and how it is cut into batches and parts."""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from chainrule.engine.errors import ConfigError
from chainrule.engine.random import raw_blocks, raw_stream

_Number = TypeVar("_Number", bound=np.integer[Any])

_SORTED_AT_ONCE = 2**20
_PARTS = 16
_WIDTH = 2**64 // _PARTS


def epoch_order(num_examples: int, *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch visits the examples: a permutation of 0 … num_examples − 1.

    It sorts, stably, 64 raw bits for each example from a Philox keyed by (seed, epoch). Raw streams are the same on
    every version of numpy, so the order is too.
    """
    _check_at_least("num_examples", num_examples, 0)
    _check_at_least("seed", seed, 0)
    _check_at_least("epoch", epoch, 0)
    return np.argsort(raw_stream(seed, epoch, size=num_examples), kind="stable").astype(np.int64, copy=False)


def compact_epoch_order(num_examples: int, *, seed: int, epoch: int) -> npt.NDArray[np.uint32 | np.int64]:
    """`epoch_order` in less memory: in numbers of 4 bytes, where these suffice, and computed in little more than the
    result takes. The raw bits are drawn anew for each part of the order, so that they are never there as a whole."""
    if num_examples <= _SORTED_AT_ONCE or num_examples > 2**32:
        return epoch_order(num_examples, seed=seed, epoch=epoch)
    order = np.empty(num_examples, np.uint32)
    done = 0
    for part in range(_PARTS):  # equal keys are in one part, in the order of their examples: it stays stable
        keys, examples = _between(part * _WIDTH, part * _WIDTH + _WIDTH - 1, num_examples, seed, epoch)
        order[done : done + len(keys)] = examples[np.argsort(keys, kind="stable")]
        done += len(keys)
    return order


def _between(
    first: int, last: int, num_examples: int, seed: int, epoch: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """The raw bits that lie between two values, and the examples that have them."""
    keys, examples = [], []
    for number, block in enumerate(raw_blocks(seed, epoch, size=num_examples, block=_SORTED_AT_ONCE)):
        chosen = np.flatnonzero((block >= np.uint64(first)) & (block <= np.uint64(last)))
        keys.append(block[chosen])
        examples.append((chosen + number * _SORTED_AT_ONCE).astype(np.uint32))
    return np.concatenate(keys), np.concatenate(examples)


def num_batches(num_examples: int, batch_size: int) -> int:
    """How many batches an epoch has; the last may be smaller."""
    _check_at_least("num_examples", num_examples, 0)
    _check_at_least("batch_size", batch_size, 1)
    return -(-num_examples // batch_size)


def batch_indices(order: npt.NDArray[_Number], batch_size: int, index: int) -> npt.NDArray[_Number]:
    """The examples of batch number `index` of an epoch with this order.

    Raises:
        ConfigError: there is no such batch.
    """
    count = num_batches(len(order), batch_size)
    if not 0 <= index < count:
        raise ConfigError("index", index, f"the epoch has {count} batches, numbered from 0")
    return order[index * batch_size : (index + 1) * batch_size]


def split(num_examples: int, num_parts: int) -> list[slice]:
    """Consecutive slices that cut `num_examples` into `num_parts`; the first are one longer if it does not divide."""
    _check_at_least("num_examples", num_examples, 0)
    _check_at_least("num_parts", num_parts, 1)
    size, longer = divmod(num_examples, num_parts)
    starts = [part * size + min(part, longer) for part in range(num_parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(starts)]


def _check_at_least(field: str, value: int, minimum: int) -> None:
    if value < minimum:
        raise ConfigError(field, value, f"must be at least {minimum}")
