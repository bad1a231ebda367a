"""Named arrays as bytes, in the safetensors format.

The bytes are a function of names, shapes, dtypes and values alone, so equal weights have equal digests.
Source of the format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

from chainrule.engine.dtypes import Array, DType
from chainrule.engine.errors import DTypeError, FormatError
from chainrule.engine.io.files import write_whole
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
    "bfloat16": "BF16",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}
_dtypes: dict[str, DType] = {
    theirs: np.dtype(ml_dtypes.bfloat16 if ours == "bfloat16" else ours) for ours, theirs in _dtype_names.items()
}

Tensors = Mapping[str, Array | Tensor]


def save(tensors: Tensors) -> bytes:
    """The arrays as safetensors, largest element type first and then by name.

    Raises:
        DTypeError: a dtype that the format, as chainrule writes it, does not have.
        FormatError: a name that the format keeps for itself.
    """
    return b"".join(_chunks(tensors))


def saved_bytes(tensors: Tensors) -> int:
    """Length of `save(tensors)` in bytes.

    Raises:
        DTypeError, FormatError: as `save`.
    """
    header, arrays = _laid_out(tensors)
    return len(header) + sum(array.nbytes for array in arrays.values())


def save_into(tensors: Tensors, memory: memoryview) -> dict[str, Array]:
    """Writes `save(tensors)` to the beginning of memory, copying each array once; the arrays as they lie there.

    Raises:
        DTypeError, FormatError: as `save`.
        ValueError: the memory has fewer than `saved_bytes(tensors)` bytes.
    """
    header, arrays = _laid_out(tensors)
    size = len(header) + sum(array.nbytes for array in arrays.values())
    if len(memory) < size:
        raise ValueError(f"{len(memory)} bytes of memory are too few for {size}")
    memory[: len(header)] = header
    offset = len(header)
    found = {}
    for name, array in arrays.items():
        there = np.frombuffer(memory, array.dtype.newbyteorder("<"), array.size, offset).reshape(array.shape)
        there[...] = array
        found[name] = there
        offset += array.nbytes
    return found


def save_file(tensors: Tensors, path: str | Path) -> None:
    """Writes `save(tensors)` to a file, array by array; the file is there whole or not at all.

    Raises:
        DTypeError, FormatError: as `save`.
        OSError: the file could not be written; what `path` held is still there.
    """
    write_whole(path, _chunks(tensors))


def load(data: bytes) -> dict[str, Array]:
    """The arrays in safetensors bytes; metadata is passed over.

    Raises:
        FormatError: the bytes are malformed, or hold a dtype that numpy does not have; the message says how.
    """
    try:
        entries = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except (safetensors.SafetensorError, ValueError) as error:
        raise FormatError(f"not safetensors: {error} ({len(data)} bytes)") from error
    return {name: _array(name, entry["dtype"], entry["shape"], entry["data"]) for name, entry in entries}


def load_file(path: str | Path) -> dict[str, Array]:
    """The arrays in a safetensors file.

    Raises:
        FormatError: the file is malformed; the message says how.
    """
    try:
        return load(Path(path).read_bytes())
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error.__cause__


def _chunks(tensors: Tensors) -> Iterator[bytes]:
    """The header, then the elements of each array."""
    header, arrays = _laid_out(tensors)
    yield header
    for array in arrays.values():
        yield array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="C")


def _laid_out(tensors: Tensors) -> tuple[bytes, dict[str, Array]]:
    """The header with its length, and the arrays in the order in which they follow it."""
    arrays = {name: x.data if isinstance(x, Tensor) else np.asarray(x) for name, x in tensors.items()}
    for name, array in arrays.items():
        if array.dtype.name not in _dtype_names:
            raise DTypeError(f"{name!r} has dtype {array.dtype}, which safetensors does not have; convert it first")
    if "__metadata__" in arrays:
        raise FormatError("'__metadata__' is no name for an array: safetensors keeps it for itself; rename the array")
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
    return len(text).to_bytes(8, "little") + text, {name: arrays[name] for name in names}


def _array(name: str, dtype_name: str, shape: list[int], content: bytearray) -> Array:
    dtype = _dtypes.get(dtype_name)
    if dtype is None:
        known = ", ".join(_dtypes)
        raise FormatError(f"not safetensors for numpy: {name!r} is {dtype_name}; convert it to one of {known} first")
    try:
        if dtype.kind == "b":
            array: Array = np.frombuffer(content, np.uint8) != 0  # numpy's bool has only the values 0 and 1
        else:
            array = np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype, copy=False)
        return array.reshape(shape)
    except (ValueError, OverflowError) as error:  # an empty array of a shape beyond numpy's
        raise FormatError(f"not safetensors for numpy: {name!r} has shape {shape}: {error}") from error
