"""A reader of zip archives whose entries are stored as they are, which is how PyTorch writes them.

Nothing is unpacked, so nothing can be larger than the archive: an entry is a slice of it, and one that is compressed
cannot be read. What only a hostile archive holds is refused before anything is read: encrypted entries, names told
twice, entries that overlap or leave the archive, a directory that contradicts the entries.

Source of the format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from chainrule.engine.errors import FormatError

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_DIRECTORY_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 0xFFFF
_IN_ZIP64 = 0xFFFFFFFF
_ENCRYPTED = 1


class Archive:
    """The entries of a zip archive by name.

    Raises:
        FormatError: the archive is malformed, or has what this reader refuses; the message says what.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        start, size, count = self._directory()
        self._entries: dict[str, _Entry] = {}
        at = start
        for _ in range(count):
            entry, at = self._entry(at, start + size)
            if entry.name in self._entries:
                raise FormatError(f"the archive has two entries {entry.name!r}")
            self._entries[entry.name] = entry
        if at != start + size:
            raise FormatError(f"the archive's directory has {start + size - at} bytes more than its {count} entries")
        self._check_extents(start)

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    def read(self, name: str) -> memoryview:
        """The content of an entry, compared with its checksum.

        Raises:
            FormatError: there is no such entry, it is compressed, or its content is damaged.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise FormatError(f"the archive has no entry {name!r}")
        if entry.method != 0 or entry.stop - entry.start != entry.size:
            raise FormatError(
                f"entry {name!r} is compressed, {entry.stop - entry.start} bytes for {entry.size}; "
                "unpack the archive and zip it again with compression off, as PyTorch writes it"
            )
        content = memoryview(self._data)[entry.start : entry.stop]
        if entry.crc not in (0, zlib.crc32(content)):  # PyTorch writes 0 where it was told not to compute it
            raise FormatError(f"entry {name!r} is damaged: its checksum is not {entry.crc:#010x}; fetch the file again")
        return content

    def _directory(self) -> tuple[int, int, int]:
        """Where the directory of entries starts, its size in bytes, and how many entries it tells."""
        data = self._data
        at = data.rfind(b"PK\5\6", max(0, len(data) - _END.size - _MAX_COMMENT))
        if at < 0 or at + _END.size > len(data):
            raise FormatError("a zip archive without its end; the file is cut short, fetch it again")
        _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(data, at)
        stop = at
        if at + _END.size + comment != len(data):
            raise FormatError("the archive's end is not at the end of the file; fetch the file again")
        if at >= _END64_LOCATOR.size and data.startswith(b"PK\6\7", at - _END64_LOCATOR.size):
            _, _, end64, _ = _END64_LOCATOR.unpack_from(data, at - _END64_LOCATOR.size)
            if end64 + _END64.size > at - _END64_LOCATOR.size or not data.startswith(b"PK\6\6", end64):
                raise FormatError(f"the archive's end is not at byte {end64}, where it is said to be")
            _, _, _, _, disk, first_disk, here, count, size, start = _END64.unpack_from(data, end64)
            stop = end64
        if disk or first_disk or here != count:
            raise FormatError("the archive is in several parts; join them")
        if start + size > stop or count * _DIRECTORY_ENTRY.size > size:
            raise FormatError(f"the archive says that {count} entries in {size} bytes start at byte {start} of {stop}")
        return start, size, count

    def _entry(self, at: int, stop: int) -> tuple[_Entry, int]:
        """The entry that the directory tells at `at`, and where its next one is."""
        if at + _DIRECTORY_ENTRY.size > stop or not self._data.startswith(b"PK\1\2", at):
            raise FormatError(f"the archive's directory is damaged at byte {at}")
        fields = _DIRECTORY_ENTRY.unpack_from(self._data, at)
        _, _, _, flags, method, _, _, crc, packed, size, name_size, extra_size, comment_size, _, _, _, header = fields
        at += _DIRECTORY_ENTRY.size
        after = at + name_size + extra_size + comment_size
        if after > stop:
            raise FormatError(f"the archive's directory is damaged at byte {at}")
        name = _decode(self._data[at : at + name_size])
        if flags & _ENCRYPTED:
            raise FormatError(f"entry {name!r} is encrypted; decrypt the archive first")
        extra = self._data[at + name_size : at + name_size + extra_size]
        size, packed, header = _with_zip64(name, [size, packed, header], extra)
        start = self._content_start(name, method, header, self._data[at : at + name_size])
        return _Entry(name, header, start, start + packed, size, method, crc), after

    def _content_start(self, name: str, method: int, header: int, raw_name: bytes) -> int:
        """Where the content starts, by the header before it, which has to agree with the directory."""
        if header + _LOCAL_HEADER.size > len(self._data) or not self._data.startswith(b"PK\3\4", header):
            raise FormatError(f"entry {name!r} is not at byte {header}, where it is said to be")
        _, _, flags, local_method, _, _, _, _, _, name_size, extra_size = _LOCAL_HEADER.unpack_from(self._data, header)
        at = header + _LOCAL_HEADER.size
        if self._data[at : at + name_size] != raw_name or local_method != method or flags & _ENCRYPTED:
            raise FormatError(f"entry {name!r} is told differently by the archive's directory and at byte {header}")
        return int(at + name_size + extra_size)

    def _check_extents(self, directory: int) -> None:
        """Entries lie one after the other, before the directory."""
        previous = None
        for entry in sorted(self._entries.values(), key=lambda entry: entry.header):
            if previous is not None and entry.header < previous.stop:
                raise FormatError(f"entries {previous.name!r} and {entry.name!r} of the archive overlap")
            if entry.stop > directory:
                raise FormatError(
                    f"entry {entry.name!r} ends at byte {entry.stop}, the archive's content at {directory}"
                )
            previous = entry


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    header: int
    """Where the header before the content starts."""
    start: int
    stop: int
    size: int
    """Of the content when it is unpacked."""
    method: int
    """0: stored as it is."""
    crc: int


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"the archive has an entry whose name {raw[:40]!r} is not UTF-8") from error


def _with_zip64(name: str, fields: list[int], extra: bytes) -> list[int]:
    """The fields, where they are too large for 32 bits taken from the extra field 1, in this order."""
    if _IN_ZIP64 not in fields:
        return fields
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        content = extra[at + 4 : at + 4 + size]
        if kind == 1 and len(content) >= 8 * fields.count(_IN_ZIP64):
            values = iter(struct.unpack(f"<{len(content) // 8}Q", content[: len(content) // 8 * 8]))
            return [next(values) if field == _IN_ZIP64 else field for field in fields]
        at += 4 + size
    raise FormatError(f"entry {name!r} lacks its 64-bit sizes")
