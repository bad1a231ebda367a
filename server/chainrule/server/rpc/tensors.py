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
NAMES = {order: name for name, dtype in DTYPES.items() for order in (dtype, dtype.newbyteorder(">"))}
"""The other way round. (`dtype.name` puts a name together each time, which takes longer than all else here.)"""


def named_arrays(tensors: Sequence[predict_pb2.Tensor], *, field: str) -> Named:
    """The arrays of the inputs of a request: all with the same number of examples, at least 1. They cannot be
    written to. Raises InvalidRequestError naming the place in the field."""
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
    dtype = NAMES[array.dtype]
    data = array.astype(DTYPES[dtype], copy=False).tobytes()
    return predict_pb2.Tensor(name=name, dtype=dtype, shape=array.shape, data=data)


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
    data = message.data  # a copy, each time
    if len(data) != wanted:
        raise InvalidRequestError.of(
            f"{field}.data", f"has {len(data)} bytes; {message.dtype} of shape {shape} takes {wanted}"
        )
    if math.prod(filter(None, shape)) * dtype.itemsize >= 2**63:  # numpy takes none so large, even without elements
        raise InvalidRequestError.of(
            f"{field}.shape", f"is {shape}, larger than arrays are; leave out empty dimensions"
        )
    array: Array = np.ndarray(shape, dtype, data)
    if dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise InvalidRequestError.of(f"{field}.data", "has bytes other than 0 and 1, which are no bool")
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))
