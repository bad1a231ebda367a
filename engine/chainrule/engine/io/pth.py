"""Reading what `torch.save` has written, without PyTorch and without running anything of the file.

Two formats. Since PyTorch 1.6 a zip archive, whose entries lie under one folder:

    archive/data.pkl      the pickle, in which a tensor is (storage, offset, size, stride)
    archive/data/<key>    the bytes of a storage
    archive/byteorder     little or big; absent: little
    archive/version       of the format

Before, and with `_use_new_zipfile_serialization=False`, one after the other: the pickles of a magic number, of the
protocol's number, of a description of the machine, of the value, of the storages' keys; then of each storage its number
of elements (int64) and its bytes.

The pickle is read by `pickle_machine`, the archive by `zip_archive`; both say what they refuse.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array, DType
from chainrule.engine.errors import FormatError
from chainrule.engine.io.pickle_machine import REMEDY, describe, run
from chainrule.engine.io.torch_values import Values, check_structure
from chainrule.engine.io.zip_archive import Archive

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAX_VERSION = 10
_MAX_PICKLE_BYTES = 1 << 28
_MAX_NODES_PER_BYTE = 16  # a shared value counts as often as it is found, with two bytes of the pickle each time


def load_pth(source: str | Path | bytes) -> Any:
    """The value in a `.pth` or `.pt` file (a path, or the content): arrays where it has tensors.

    A state dict is an OrderedDict from names to arrays, with PyTorch's `_metadata`; a checkpoint has its dicts, lists,
    tuples, numbers and strings around the arrays. Tensors on any device, and Parameters, are arrays; those that share a
    storage share memory. `requires_grad` and attributes of tensors are not kept. A torch.Size is a tuple, a
    torch.device a string, a torch.dtype a numpy dtype.

    Raises:
        FormatError: the file is malformed, or has what no array or plain value stands for: other objects (a whole
            module), sparse, quantized, nested or complex tensors. Nothing has been run.
        OSError: the file cannot be read.
    """
    if isinstance(source, bytes):
        return _load(source)
    data = Path(source).read_bytes()
    try:
        return _load(data)
    except FormatError as error:
        raise FormatError(f"{source}: {error}") from error


def _load(data: bytes) -> Any:
    if data[:4] == b"PK\3\4":
        return _load_zip(data)
    if data[:1] == b"\x80":
        return _load_legacy(data)
    raise FormatError(f"not a file of torch.save: it begins with {data[:16]!r} ({len(data)} bytes)")


# -- the zip format ----------------------------------------------------------------------------------------------------


def _load_zip(data: bytes) -> Any:
    archive = Archive(data)
    folder = _folder(archive)
    version = bytes(archive.read(f"{folder}/version")[:16]) if f"{folder}/version" in archive.names else b"1"
    if not version.strip().isdigit() or int(version) > _MAX_VERSION:
        raise FormatError(f"the archive has version {version!r}; up to {_MAX_VERSION} are read")

    swapped = _byte_order(archive, folder) != sys.byteorder

    def fetch(key: str, dtype: DType, count: int) -> Array:
        content = archive.read(f"{folder}/data/{key}")
        if len(content) != count * dtype.itemsize:
            raise FormatError(
                f"storage {key!r} has {len(content)} bytes; {count} {dtype} are {count * dtype.itemsize} bytes"
            )
        raw = np.empty(len(content), np.uint8)
        _fill(raw, content, dtype, swapped)
        return raw

    pickle = archive.read(f"{folder}/data.pkl")
    if len(pickle) > _MAX_PICKLE_BYTES:
        raise FormatError(f"the pickle has {len(pickle)} bytes; up to {_MAX_PICKLE_BYTES} are read; {REMEDY}")
    values = Values(fetch, spare_bytes=len(data), byte_swapped=swapped)
    value, end = run(bytes(pickle), 0, values.names, persistent=values.storage, build=values.build)
    if end != len(pickle):
        raise FormatError(f"the pickle has {len(pickle) - end} bytes after its end")
    check_structure(value, max_nodes=_MAX_NODES_PER_BYTE * len(pickle))
    return value


def _folder(archive: Archive) -> str:
    """The folder of the archive that has the pickle."""
    names = archive.names
    folders = [name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(folders) != 1:
        raise FormatError(f"a zip archive with {len(folders)} data.pkl, not a file of torch.save; it has {names[:4]}")
    if f"{folders[0]}/constants.pkl" in names:
        raise FormatError(f"a TorchScript archive, which is a program; {REMEDY}")
    return folders[0]


def _byte_order(archive: Archive, folder: str) -> str:
    name = f"{folder}/byteorder"
    if name not in archive.names:
        return "little"
    order = bytes(archive.read(name)[:16])
    if order not in (b"little", b"big"):
        raise FormatError(f"the archive has byte order {order!r}; little or big is wanted")
    return order.decode()


# -- the legacy format -------------------------------------------------------------------------------------------------


def _load_legacy(data: bytes) -> Any:
    magic, at = run(data, 0, {})
    if magic != _MAGIC:
        raise FormatError(f"a pickle of {describe(magic)}, not a file of torch.save; {REMEDY}")
    protocol, at = run(data, at, {})
    if protocol != _PROTOCOL:
        raise FormatError(f"a file of torch.save with protocol {describe(protocol)}; {_PROTOCOL} is read")
    machine, at = run(data, at, {})
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise FormatError("a file of torch.save from a big-endian machine; load it there and save it in the zip format")

    storages: dict[str, tuple[Array, DType]] = {}  # filled when all are known, since they follow the pickle
    left = len(data)

    def fetch(key: str, dtype: DType, count: int) -> Array:
        nonlocal left
        left -= count * dtype.itemsize
        if left < 0:
            raise FormatError(f"storage {key!r} is told to be {count} {dtype}, more than is left of the file")
        storages[key] = np.zeros(count * dtype.itemsize, np.uint8), dtype
        return storages[key][0]

    values = Values(fetch, spare_bytes=len(data))
    start = at
    value, at = run(data, at, values.names, persistent=values.storage, build=values.build)
    check_structure(value, max_nodes=_MAX_NODES_PER_BYTE * (at - start))
    keys, at = run(data, at, {})
    if not isinstance(keys, list) or len(keys) != len(storages) or not all(type(key) is str for key in keys):
        raise FormatError(f"the file does not tell the order of its {len(storages)} storages; fetch it again")
    for key in keys:
        if key not in storages:
            raise FormatError(f"the file has storage {describe(key)} twice, or for no tensor; fetch it again")
        at = _read_legacy_storage(data, at, key, *storages.pop(key))
    if at != len(data):
        raise FormatError(f"the file has {len(data) - at} bytes after its last storage; fetch it again")
    return value


def _read_legacy_storage(data: bytes, at: int, key: str, raw: Array, dtype: DType) -> int:
    """Fills a storage from byte `at` on and returns where the next one is. Elements are little-endian."""
    start = at + 8
    count = int.from_bytes(data[at:start], "little", signed=True)
    if start + raw.nbytes > len(data) or count * dtype.itemsize != raw.nbytes:
        raise FormatError(
            f"storage {key!r} at byte {at} has {count} elements of the file's {len(data)} bytes; "
            f"{raw.nbytes // dtype.itemsize} {dtype} are wanted; fetch the file again"
        )
    _fill(raw, memoryview(data)[start : start + raw.nbytes], dtype, sys.byteorder != "little")
    return start + raw.nbytes


def _fill(raw: Array, content: memoryview, dtype: DType, swapped: bool) -> None:
    """The storage's bytes, in this machine's order, into `raw`."""
    given = np.frombuffer(content, np.uint8)
    if dtype.kind == "b":
        given = (given != 0).view(np.uint8)  # numpy's bool has only the values 0 and 1
    if swapped:
        given = given.reshape(-1, dtype.itemsize)[:, ::-1].reshape(-1)
    raw[:] = given
