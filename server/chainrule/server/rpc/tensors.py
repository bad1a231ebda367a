"""Arrays to messages and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from chainrule.server.errors import InvalidRequestError, echo
from chainrule.server.predictions.network import Array, Named
from chainrule.v1 import predict_pb2

MAX_INPUTS = 64
"""Most inputs of a request."""
MAX_DIMENSIONS = 16
DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64")
}
"""What elements may be, by name, as they are sent."""


def named_arrays(tensors: Sequence[predict_pb2.Tensor], *, field: str) -> Named:
    """The arrays of the inputs of a request: all with the same number of examples, at least 1. They lie in the
    memory of the messages and cannot be written to. Raises InvalidRequestError naming the place in the field."""
    if not 1 <= len(tensors) <= MAX_INPUTS:
        raise InvalidRequestError.of(field, f"are {len(tensors)}; send one tensor for each input of the network")
    named = tuple((tensor.name, _array(tensor, f"{field}[{i}]")) for i, tensor in enumerate(tensors))
    rows = len(named[0][1])
    for i, (_, array) in enumerate(named):
        if len(array) != rows:
            raise InvalidRequestError.of(
                f"{field}[{i}].shape",
                f"is {array.shape}, of {len(array)} examples, but that of {field}[0] has {rows}; the first dimension "
                "is that of the examples, the same for all inputs",
            )
    return named


def tensor(name: str, array: Array) -> predict_pb2.Tensor:
    """An array as a message."""
    data = np.ascontiguousarray(array, dtype=DTYPES[array.dtype.name])
    return predict_pb2.Tensor(name=name, dtype=array.dtype.name, shape=array.shape, data=data.tobytes())


def _array(message: predict_pb2.Tensor, field: str) -> Array:
    dtype = DTYPES.get(message.dtype)
    if dtype is None:
        raise InvalidRequestError.of(f"{field}.dtype", f"is {echo(message.dtype)}; use one of {', '.join(DTYPES)}")
    shape = tuple(message.shape)
    if not 1 <= len(shape) <= MAX_DIMENSIONS or min(shape) < 0 or shape[0] < 1:
        raise InvalidRequestError.of(
            f"{field}.shape",
            f"is {echo(shape)}; give 1 to {MAX_DIMENSIONS} dimensions from 0, the first, of the examples, from 1",
        )
    wanted = math.prod(shape) * dtype.itemsize
    if len(message.data) != wanted:
        raise InvalidRequestError.of(
            f"{field}.data",
            f"has {len(message.data)} bytes; {message.dtype} of shape {shape} takes {wanted}",
        )
    array = np.frombuffer(message.data, dtype).reshape(shape)
    if dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise InvalidRequestError.of(f"{field}.data", "has bytes other than 0 and 1, which are no bool")
    return array.astype(dtype.newbyteorder("="), copy=False)
