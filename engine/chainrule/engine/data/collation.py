"""How examples become a batch: numbers, arrays and tensors are stacked, wherever they are nested."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from chainrule.engine.creation import tensor
from chainrule.engine.dtypes import float64
from chainrule.engine.errors import DTypeError, ShapeError
from chainrule.engine.functions.joining import stack
from chainrule.engine.tensor import Tensor

_not_numbers = "SUOMm"  # kinds of arrays: texts, objects, dates


def default_collate(batch: Sequence[Any]) -> Any:
    """The batch of some examples of one structure.

    Tensors, and arrays as tensors, are stacked along a new first dimension; floats become a float64 tensor, ints an
    int64 one, bools a bool one; texts stay as they are. Dicts, lists, tuples and named tuples of these are collated
    entry by entry; a tuple comes back as a list, as from PyTorch.

    Raises:
        ShapeError: tensors of different shapes, or sequences of different lengths.
        DTypeError: examples that are none of these.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        _check_shapes([x.shape for x in batch])
        return stack(list(batch))
    if isinstance(first, np.ndarray | np.generic) and first.dtype.kind not in _not_numbers:
        _check_shapes([x.shape for x in batch])
        return Tensor(np.stack([np.asarray(x) for x in batch]))
    if isinstance(first, float):
        return tensor(list(batch), dtype=float64)
    if isinstance(first, int):
        return tensor(list(batch))
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, Mapping):
        return _like_mapping(first, {key: default_collate([example[key] for example in batch]) for key in first})
    if isinstance(first, Sequence):
        if any(len(example) != len(first) for example in batch):
            raise ShapeError("each element in list of batch should be of equal size")
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return columns if type(first) is tuple else _like_sequence(first, columns)
    raise DTypeError(
        f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {type(first)}"
    )


def default_convert(example: Any) -> Any:
    """Arrays of numbers as tensors, wherever they are nested; what a DataLoader does that makes no batches."""
    if isinstance(example, np.ndarray | np.generic) and example.dtype.kind not in _not_numbers:
        return Tensor(np.asarray(example))
    if isinstance(example, Mapping):
        return _like_mapping(example, {key: default_convert(value) for key, value in example.items()})
    if isinstance(example, Sequence) and not isinstance(example, str | bytes):
        converted = list(map(default_convert, example))
        return converted if type(example) is tuple else _like_sequence(example, converted)
    return example


def _check_shapes(shapes: list[tuple[int, ...]]) -> None:
    for number, shape in enumerate(shapes):
        if tuple(shape) != tuple(shapes[0]):
            raise ShapeError(
                f"stack expects each tensor to be equal size, but got {list(shapes[0])} at entry 0 and {list(shape)} "
                f"at entry {number}"
            )


def _like_mapping(example: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    if isinstance(example, MutableMapping):
        filled = copy.copy(example)  # a kind of mapping may carry more than its entries
        filled.update(values)
        return filled
    return _made(type(example), values, values)


def _like_sequence(example: Sequence[Any], values: list[Any]) -> Any:
    if isinstance(example, tuple) and hasattr(example, "_fields"):
        return type(example)(*values)
    return _made(type(example), values, values)


def _made(kind: Callable[[Any], Any], values: Any, otherwise: Any) -> Any:
    try:
        return kind(values)
    except TypeError:  # a kind, such as range, that is not made of its entries
        return otherwise
