"""Named arrays as bytes, in the safetensors format, and the digest of bytes.

The bytes are a function of names, shapes, dtypes and values alone, so equal weights have equal digests.
Source of the format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from chainrule.engine.dtypes import Array
from chainrule.engine.errors import DTypeError, FormatError
from chainrule.engine.tensor import Tensor

_dtype_names = {
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}

Tensors = Mapping[str, Array | Tensor]


def save(tensors: Tensors) -> bytes:
    """The arrays as safetensors, largest element type first and then by name.

    Raises:
        DTypeError: a dtype that safetensors does not have.
    """
    return b"".join(_chunks(tensors))


def save_file(tensors: Tensors, path: str | Path) -> None:
    """Writes `save(tensors)` to a file, array by array."""
    with Path(path).open("wb") as file:
        file.writelines(_chunks(tensors))


def load(data: bytes) -> dict[str, Array]:
    """The arrays in safetensors bytes.

    Raises:
        FormatError: the bytes are malformed; the message says how.
    """
    try:
        arrays: dict[str, Array] = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise FormatError(f"not safetensors: {error} ({len(data)} bytes)") from error
    return arrays


def load_file(path: str | Path) -> dict[str, Array]:
    """The arrays in a safetensors file.

    Raises:
        FormatError: the file is malformed; the message says how.
    """
    try:
        return load(Path(path).read_bytes())
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error.__cause__


def digest(data: bytes) -> str:
    """The SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _chunks(tensors: Tensors) -> Iterator[bytes]:
    """The header with its length, then the elements of each array."""
    arrays = {name: x.data if isinstance(x, Tensor) else np.asarray(x) for name, x in tensors.items()}
    for name, array in arrays.items():
        if array.dtype.name not in _dtype_names:
            raise DTypeError(f"{name!r} has dtype {array.dtype}, which safetensors does not have; convert it first")
    names = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))  # so that each is aligned
    header = {}
    offset = 0
    for name in names:
        array = arrays[name]
        header[name] = {
            "dtype": _dtype_names[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for name in names:
        array = arrays[name]
        yield array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="C")
