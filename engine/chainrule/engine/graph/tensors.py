"""ONNX's tensors as arrays: sizes are compared with what is there before anything is made of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import TensorProto

from chainrule.engine.dtypes import (
    Array,
    DType,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
)
from chainrule.engine.graph.errors import GraphError

DTYPES: dict[int, DType] = {
    TensorProto.FLOAT: float32,
    TensorProto.DOUBLE: float64,
    TensorProto.FLOAT16: float16,
    TensorProto.BFLOAT16: bfloat16,
    TensorProto.INT8: int8,
    TensorProto.INT16: int16,
    TensorProto.INT32: int32,
    TensorProto.INT64: int64,
    TensorProto.UINT8: uint8,
    TensorProto.BOOL: bool_,
}
CODES: dict[DType, int] = {dtype: code for code, dtype in DTYPES.items()}
_typed = {
    float32: "float_data",
    float64: "double_data",
    int64: "int64_data",
    float16: "int32_data",
    bfloat16: "int32_data",
}
_bits: dict[DType, str] = {float16: "<u2", bfloat16: "<u2"}  # what int32_data holds of them


def dtype_of(code: int, title: str) -> DType:
    """The dtype that ONNX has a number for.

    Raises:
        GraphError: there is none, or none that tensors here can have.
    """
    dtype = DTYPES.get(code)
    if dtype is None:
        known = TensorProto.DataType.Name(code) if code in TensorProto.DataType.values() else f"number {code}"
        raise GraphError(f"{title}: data type {known} is not supported; known: {', '.join(map(str, CODES))}")
    return dtype


def shape_of(tensor: Any, title: str) -> tuple[int, ...]:
    """The dimensions of a TensorProto.

    Raises:
        GraphError: one is negative.
    """
    shape = tuple(tensor.dims)
    if any(n < 0 for n in shape):
        raise GraphError(f"{title}: dimensions {list(shape)} are negative")
    if len(shape) > 32:
        raise GraphError(f"{title}: {len(shape)} dimensions; there may be 32")
    return shape


def to_array(tensor: Any, title: str) -> Array:
    """The elements of a TensorProto, which may be the memory of its bytes: not to be written to.

    Args:
        tensor: the message.
        title: how errors call it.

    Raises:
        GraphError: the data is in another file, is of an unknown kind, or does not fit the dimensions.
    """
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise GraphError(
            f"{title}: its data is in another file, which is not read; save the model as one file "
            "(onnx.save(model, path, save_as_external_data=False), or external_data=False in torch.onnx.export)"
        )
    if tensor.HasField("segment"):
        raise GraphError(f"{title}: it is a segment of a tensor, which is not supported")
    dtype, shape = dtype_of(tensor.data_type, title), shape_of(tensor, title)
    size = math.prod(shape)
    if tensor.HasField("raw_data"):
        raw = tensor.raw_data
        if len(raw) != size * dtype.itemsize:
            raise GraphError(
                f"{title}: dimensions {list(shape)} of {dtype} are {size * dtype.itemsize} bytes, "
                f"its data is {len(raw)} bytes"
            )
        return np.frombuffer(raw, dtype).reshape(shape)
    values = getattr(tensor, _typed.get(dtype, "int32_data"))
    if len(values) != size:
        raise GraphError(f"{title}: dimensions {list(shape)} are {size} elements, its data has {len(values)}")
    if dtype in _bits:
        return _narrowed(values, np.dtype("<u2"), title).view(dtype).reshape(shape)
    return _narrowed(values, dtype, title).reshape(shape)


def _narrowed(values: Any, dtype: DType, title: str) -> Array:
    wide = np.fromiter(values, np.int64 if dtype.kind in "iub" else dtype, len(values))  # without a list of Python's
    narrow = wide.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(narrow, wide):
        raise GraphError(f"{title}: elements that {dtype} does not hold")
    return narrow
