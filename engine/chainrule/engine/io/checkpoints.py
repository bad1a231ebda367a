"""Checkpoints: nested values with tensors in them, in the format of `torch.save`.

The zip archive that `pth` describes, which PyTorch's `torch.load(path, weights_only=True)` reads, too.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from chainrule.engine.dtypes import Array, as_dtype, type_name
from chainrule.engine.errors import FormatError, UnsupportedError
from chainrule.engine.io.files import write_whole
from chainrule.engine.io.pth import load_pth
from chainrule.engine.io.safetensors import load as load_safetensors
from chainrule.engine.io.safetensors import save_file
from chainrule.engine.io.torch_values import MAX_DEPTH
from chainrule.engine.layout import check_device, device
from chainrule.engine.nn.parameter import Parameter
from chainrule.engine.tensor import Tensor

File = str | os.PathLike[str] | IO[bytes]


def save(obj: object, f: File) -> None:
    """Writes a value in the format of `torch.save`, to a path or to a file open for writing bytes.

    It may be a Tensor, a state dict, or dicts, lists and tuples of those and of numbers, strings and dtypes. Arrays are
    written as tensors, and equal views of one memory once. To a path that ends in ".safetensors" it is written as
    safetensors, for which it has to be a dict from names to tensors.

    Raises:
        UnsupportedError: it holds something else, such as a whole module.
        OSError: the file cannot be written; what a path held is still there.
    """
    if isinstance(f, str | os.PathLike) and Path(f).suffix == ".safetensors":
        save_file(obj, f)  # type: ignore[arg-type]
        return
    content = _archive(obj)
    if isinstance(f, str | os.PathLike):
        write_whole(Path(f), [content])
    else:
        f.write(content)


def load(f: File, map_location: Any = None, *, weights_only: bool | None = True, mmap: bool | None = None) -> Any:  # noqa: ARG001 - PyTorch's arguments
    """The value in a file of `save` or of `torch.save`, or the tensors by name in a safetensors file.

    The content decides which it is. Nothing in a file is run, whatever `weights_only` says; tensors are leaves that
    require no gradient.

    Args:
        f: a path, or a file open for reading bytes.
        map_location: "cpu", wherever the tensors were; also a function or a dict, as PyTorch takes them.
        weights_only: has no effect: only weights and plain values are ever read.
        mmap: has no effect.

    Raises:
        FormatError: the file is malformed, or has other things than tensors and plain values in it; it says which.
        UnsupportedError: a device that is not the CPU.
        OSError: the file cannot be read.
    """
    for place in map_location.values() if isinstance(map_location, dict) else [map_location]:
        if isinstance(place, str | device):
            check_device(place)
    named = isinstance(f, str | os.PathLike)
    data = Path(f).read_bytes() if isinstance(f, str | os.PathLike) else f.read()
    try:
        value = load_safetensors(data) if data[8:9] == b"{" else load_pth(data)
    except FormatError as error:
        if not named:
            raise
        raise FormatError(f"{f}: {error}") from error
    return _with_tensors(value, {})


def _with_tensors(value: Any, made: dict[int, Tensor]) -> Any:
    """The value with tensors in place of its arrays; an array that is there twice is one tensor."""
    if isinstance(value, np.ndarray):
        return made.setdefault(id(value), Tensor.wrap(value))
    if isinstance(value, list | tuple):
        return type(value)(_with_tensors(part, made) for part in value)
    if isinstance(value, dict) and not isinstance(value, Counter):
        for key in value:
            value[key] = _with_tensors(value[key], made)
    return value


# ---- Writing ----


def _archive(obj: object) -> bytes:
    writer = _Pickle()
    writer.value(obj, 0)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        entries: list[tuple[str, bytes]] = [
            ("data.pkl", pickle.PROTO + b"\2" + b"".join(writer.parts) + pickle.STOP),
            ("byteorder", b"little"),
            *((f"data/{number}", _bytes(array)) for number, array in enumerate(writer.storages)),
            ("version", b"3\n"),
        ]
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)  # its date is 1980: equal values, equal bytes
    return file.getvalue()


def _bytes(array: Array) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="C")


class _Pickle:
    """A pickle of protocol 2 in the making, with the opcodes that PyTorch's own reader of weights takes.

    Attributes:
        parts: the opcodes so far.
        storages: the arrays whose elements go beside the pickle, by number.
    """

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.storages: list[Array] = []
        self._numbers: dict[object, int] = {}

    def value(self, x: object, depth: int) -> None:
        """Writes a value that lies within `depth` others."""
        if depth > MAX_DEPTH:
            raise UnsupportedError(f"values nested more than {MAX_DEPTH} deep, or within themselves, cannot be saved")
        if isinstance(x, Tensor):
            self._tensor(x)
        elif isinstance(x, np.ndarray):
            self._tensor(Tensor.wrap(x))
        elif isinstance(x, dict):
            self._dict(x, depth + 1)
        elif type(x) is list:
            self._emit(pickle.EMPTY_LIST, pickle.MARK)
            self._values(x, depth + 1)
            self._emit(pickle.APPENDS)
        elif isinstance(x, tuple):
            self._emit(pickle.MARK)
            self._values(x, depth + 1)
            self._emit(pickle.TUPLE)
        else:
            self._plain(x)

    def _emit(self, *parts: bytes) -> None:
        self.parts.extend(parts)

    def _values(self, values: Iterable[object], depth: int) -> None:
        for x in values:
            self.value(x, depth)

    def _global(self, module: str, name: str) -> None:
        self._emit(pickle.GLOBAL, f"{module}\n{name}\n".encode())

    def _plain(self, x: object) -> None:
        if x is None:
            self._emit(pickle.NONE)
        elif isinstance(x, bool):
            self._emit(pickle.NEWTRUE if x else pickle.NEWFALSE)
        elif isinstance(x, int):
            self._int(int(x))
        elif isinstance(x, float):
            self._emit(pickle.BINFLOAT, struct.pack(">d", x))
        elif isinstance(x, str):
            text = x.encode("utf-8", "surrogatepass")
            self._emit(pickle.BINUNICODE, struct.pack("<I", len(text)), text)
        elif isinstance(x, np.dtype):
            self._global("torch", as_dtype(x).name)
        else:
            raise UnsupportedError(
                f"a {type(x).__name__} cannot be saved, only tensors, numbers, strings, dtypes, and dicts, lists and "
                "tuples of them; of a module or an optimizer save its state_dict()"
            )

    def _int(self, x: int) -> None:
        if -(2**31) <= x < 2**31:
            self._emit(pickle.BININT, struct.pack("<i", x))
        else:
            content = pickle.encode_long(x)
            self._emit(pickle.LONG1, bytes([len(content)]), content)

    def _dict(self, x: dict[Any, Any], depth: int) -> None:
        if isinstance(x, Counter):
            self._global("collections", "Counter")
            self._emit(pickle.MARK)
            self._dict(dict(x), depth)
            self._emit(pickle.TUPLE, pickle.REDUCE)
            return
        if isinstance(x, OrderedDict):
            self._global("collections", "OrderedDict")
            self._emit(pickle.EMPTY_TUPLE, pickle.REDUCE)
        else:
            self._emit(pickle.EMPTY_DICT)
        self._emit(pickle.MARK)
        for key, value in x.items():
            self._plain(key)
            self.value(value, depth)
        self._emit(pickle.SETITEMS)
        metadata = getattr(x, "_metadata", None)  # of a state dict
        if metadata is not None:
            self._dict({"_metadata": metadata}, depth)
            self._emit(pickle.BUILD)

    def _tensor(self, x: Tensor) -> None:
        if isinstance(x, Parameter):
            self._global("torch._utils", "_rebuild_parameter")
            self._emit(pickle.MARK)
        array = x.data
        self._global("torch._utils", "_rebuild_tensor_v2")
        self._emit(pickle.MARK, pickle.MARK)
        self._plain("storage")
        self._global("torch", f"{type_name(array.dtype)}Storage")
        self._plain(str(self._storage(array)))
        self._plain("cpu")
        self._int(array.size)
        self._emit(pickle.TUPLE, pickle.BINPERSID)
        self._int(0)
        self.value(array.shape, 0)
        self.value(_strides(array.shape), 0)
        self._plain(x.requires_grad and not isinstance(x, Parameter))
        self._dict(OrderedDict(), 0)  # hooks, which are code
        self._emit(pickle.TUPLE, pickle.REDUCE)
        if isinstance(x, Parameter):
            self._plain(x.requires_grad)
            self._dict(OrderedDict(), 0)
            self._emit(pickle.TUPLE, pickle.REDUCE)

    def _storage(self, array: Array) -> int:
        key = array.__array_interface__["data"][0], array.dtype, array.shape, array.strides
        if key not in self._numbers:
            self._numbers[key] = len(self.storages)
            self.storages.append(array)
        return self._numbers[key]


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """In elements, row by row."""
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.insert(0, step)
        step *= max(n, 1)
    return tuple(strides)
