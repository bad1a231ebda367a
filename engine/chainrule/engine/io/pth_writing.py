"""Writing what `torch.load` reads, also with `weights_only=True`, without PyTorch.

The format is that of `pth`'s zip archives, whose pickle is written here opcode by opcode: an OrderedDict of tensors,
each of them `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`, where a storage is
the persistent id ("storage", type, key, location, count). The bytes are a function of names, order, shapes, dtypes and
values. Source: torch/serialization.py, `_save`; the opcodes are those of Python's pickletools.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.errors import DTypeError
from chainrule.engine.io.files import write_whole
from chainrule.engine.io.safetensors import Tensors
from chainrule.engine.tensor import Tensor

_FOLDER = "archive"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip archive can tell
_storage_types = {
    "bool": "BoolStorage",
    "int8": "CharStorage",
    "int16": "ShortStorage",
    "int32": "IntStorage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
    "bfloat16": "BFloat16Storage",
    "float16": "HalfStorage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
}


def save_pth(tensors: Tensors) -> bytes:
    """The arrays as a `.pth` file: a state dict of tensors, in the order given, each with a storage of its own.

    Raises:
        DTypeError: a dtype that PyTorch has no storage for.
    """
    arrays = {name: _little_endian(name, value) for name, value in tensors.items()}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        _write(archive, "data.pkl", _pickle(arrays))
        _write(archive, "byteorder", b"little")
        for key, array in enumerate(arrays.values()):
            _write(archive, f"data/{key}", array.tobytes())
        _write(archive, "version", b"3\n")
    return target.getvalue()


def save_pth_file(tensors: Tensors, path: str | Path) -> None:
    """Writes `save_pth(tensors)` to a file, which is there whole or not at all.

    Raises:
        DTypeError: as `save_pth`.
        OSError: the file could not be written; what `path` held is still there.
    """
    write_whole(path, [save_pth(tensors)])


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(f"{_FOLDER}/{name}", _EPOCH), content)


def _little_endian(name: str, value: Array | Tensor) -> Array:
    array = value.data if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.name not in _storage_types:
        raise DTypeError(
            f"tensor {name!r} has dtype {array.dtype}, which a .pth file cannot hold; convert it to one of: "
            f"{', '.join(_storage_types)}"
        )
    return array if array.dtype.name == "bfloat16" else array.astype(array.dtype.newbyteorder("<"), copy=False)


# -- the pickle, in protocol 2 -----------------------------------------------------------------------------------------


def _pickle(arrays: dict[str, Array]) -> bytes:
    entries = (_text(name) + _tensor(key, array) for key, (name, array) in enumerate(arrays.items()))
    return b"\x80\x02" + _ORDERED_DICT + b"(" + b"".join(entries) + b"u."


def _tensor(key: int, array: Array) -> bytes:
    storage = _global("torch", _storage_types[array.dtype.name])
    identity = _tuple([_text("storage"), storage, _text(str(key)), _text("cpu"), _number(array.size)])
    strides = [int(np.prod(array.shape[i + 1 :], dtype=np.int64)) for i in range(array.ndim)]
    arguments = [
        identity + b"Q",
        _number(0),
        _tuple(map(_number, array.shape)),
        _tuple(map(_number, strides)),
        b"\x89",  # requires_grad: False
        _ORDERED_DICT,  # hooks: none
    ]
    return _global("torch._utils", "_rebuild_tensor_v2") + _tuple(arguments) + b"R"


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(value: str) -> bytes:
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def _number(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _tuple(items: Iterable[bytes]) -> bytes:
    return b"(" + b"".join(items) + b"t"


_ORDERED_DICT = _global("collections", "OrderedDict") + b")R"
