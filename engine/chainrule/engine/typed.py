"""Constructors by the name of a dtype, which older programs call: FloatTensor([1, 2]), LongTensor(3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.engine.creation import tensor
from chainrule.engine.dtypes import DType, bool_, float16, float32, float64, int8, int16, int32, int64, uint8
from chainrule.engine.errors import DTypeError
from chainrule.engine.tensor import Tensor

__all__ = [
    "BoolTensor",
    "ByteTensor",
    "CharTensor",
    "DoubleTensor",
    "FloatTensor",
    "HalfTensor",
    "IntTensor",
    "LongTensor",
    "ShortTensor",
]


def _constructor(name: str, dtype: DType) -> Callable[..., Tensor]:
    def constructor(*data: Any) -> Tensor:
        if all(type(length) is int for length in data):
            return Tensor(np.empty(data or 0, dtype))
        if len(data) != 1:
            raise DTypeError(f"{name}() takes one sequence of numbers, or integers that are its lengths")
        return tensor(data[0], dtype=dtype)

    constructor.__name__ = constructor.__qualname__ = name
    constructor.__doc__ = f"A tensor of {dtype}: of a sequence, or of a shape with elements that are not set."
    return constructor


BoolTensor = _constructor("BoolTensor", bool_)
ByteTensor = _constructor("ByteTensor", uint8)
CharTensor = _constructor("CharTensor", int8)
DoubleTensor = _constructor("DoubleTensor", float64)
FloatTensor = _constructor("FloatTensor", float32)
HalfTensor = _constructor("HalfTensor", float16)
IntTensor = _constructor("IntTensor", int32)
LongTensor = _constructor("LongTensor", int64)
ShortTensor = _constructor("ShortTensor", int16)
