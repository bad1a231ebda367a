"""Makes files of torch.save, honest and hostile ones, byte by byte and without PyTorch."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
PROTOCOL = b"\x80\x02M\xe9\x03."
REBUILD = "torch._utils _rebuild_tensor_v2"


@dataclass(frozen=True)
class Global:
    """`Global("os system")` names os.system."""

    name: str


@dataclass(frozen=True)
class Call:
    function: Any
    arguments: Any
    state: Any = field(default=None)
    """Given by BUILD afterwards."""


@dataclass(frozen=True)
class Persistent:
    identity: Any


@dataclass(frozen=True)
class Raw:
    """Opcodes as they are."""

    code: bytes


def encode(value: Any) -> bytes:
    """The opcodes that make a value."""
    match value:
        case Raw():
            return value.code
        case Global():
            return b"c" + value.name.replace(" ", "\n").encode() + b"\n"
        case Call():
            called = encode(value.function) + encode(value.arguments) + b"R"
            return called if value.state is None else called + encode(value.state) + b"b"
        case Persistent():
            return encode(value.identity) + b"Q"
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(raw)]) + raw
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(encode, value)) + b"t"
        case list():
            return b"](" + b"".join(map(encode, value)) + b"e"
        case dict():
            return b"}(" + b"".join(encode(key) + encode(x) for key, x in value.items()) + b"u"
    raise TypeError(type(value))


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + encode(value) + b"."


def storage(key: Any = "0", kind: str = "torch FloatStorage", count: Any = 6, location: str = "cpu") -> Persistent:
    return Persistent(("storage", Global(kind), key, location, count))


def tensor(
    size: Any, stride: Any, offset: Any = 0, *, of: Any = None, hooks: Any = None, metadata: Sequence[Any] = ()
) -> Call:
    """A tensor in a storage of 6 float32, unless another is given."""
    hooks = Call(Global("collections OrderedDict"), ()) if hooks is None else hooks
    arguments = (storage() if of is None else of, offset, size, stride, False, hooks, *metadata)
    return Call(Global(REBUILD), arguments)


def zipped(
    pickle: bytes,
    storages: Mapping[str, bytes],
    *,
    records: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """An archive as torch.save makes it; `records` are added, or replace its own."""
    entries = {
        "data.pkl": pickle,
        "byteorder": b"little",
        **{f"data/{key}": content for key, content in storages.items()},
        "version": b"3\n",
        **(records or {}),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def legacy(
    pickle: bytes, storages: Mapping[str, tuple[int, bytes]], *, keys: Any = None, little_endian: Any = True
) -> bytes:
    """What torch.save wrote before the zip format; a storage is its number of elements and its bytes."""
    machine = pickled({"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"short": 2}})
    names = pickled(list(storages) if keys is None else keys)
    contents = b"".join(struct.pack("<q", count) + content for count, content in storages.values())
    return MAGIC + PROTOCOL + machine + pickle + names + contents
