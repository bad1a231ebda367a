"""A zip archive gives slices of itself, and nothing else."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

import pytest

import chainrule.engine as cr
from chainrule.engine.io.zip_archive import Archive


def archive(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, content in entries.items():
            made.writestr(name, content)
        made.comment = comment
    return file.getvalue()


TWO = archive({"a": b"first", "größe/b": b"second"})
DIRECTORY = TWO.index(b"PK\1\2")
SECOND = TWO.index(b"PK\1\2", DIRECTORY + 1)
END = TWO.index(b"PK\5\6")


def patched(at: int, layout: str, value: int) -> bytes:
    data = bytearray(TWO)
    struct.pack_into(layout, data, at, value)
    return bytes(data)


@pytest.mark.parametrize("comment", [b"", b"a comment", b"x" * 0xFFFF])
def test_entries_are_read_by_name(comment: bytes) -> None:
    read = Archive(archive({"a": b"first", "größe/b": b"second", "none": b""}, comment=comment))
    assert read.names == ["a", "größe/b", "none"]
    assert [bytes(read.read(name)) for name in read.names] == [b"first", b"second", b""]


def test_an_archive_may_be_empty() -> None:
    assert Archive(archive({})).names == []


def test_nothing_is_copied() -> None:
    assert Archive(TWO).read("a").obj is TWO


def test_64_bit_archives_are_read() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made, made.open("a", "w", force_zip64=True) as entry:
        entry.write(b"first")
    data = file.getvalue()
    at = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    extra = struct.pack("<2H3Q", 1, 24, 5, 5, 0)
    entry_64 = bytearray(data[at:end] + extra)
    struct.pack_into("<2L", entry_64, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", entry_64, 30, len(extra))
    struct.pack_into("<L", entry_64, 42, 0xFFFFFFFF)
    end_64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(entry_64), at)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at + len(entry_64), 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    made_64 = data[:at] + bytes(entry_64) + end_64 + locator + last
    assert zipfile.ZipFile(io.BytesIO(made_64)).read("a") == b"first"
    assert bytes(Archive(made_64).read("a")) == b"first"
    far = made_64.replace(extra, struct.pack("<2H3Q", 1, 24, 2**63, 2**63, 0))
    with pytest.raises(cr.FormatError, match=f"entry 'a' ends at byte {2**63 + at - 5}"):
        Archive(far)
    with pytest.raises(cr.FormatError, match="lacks its 64-bit sizes"):
        Archive(made_64.replace(extra, struct.pack("<2H3Q", 2, 24, 5, 5, 0)))


def test_an_entry_that_is_not_there_is_said() -> None:
    with pytest.raises(cr.FormatError, match="no entry 'c'"):
        Archive(TWO).read("c")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_entries_are_not_unpacked(compression: int) -> None:
    bomb = Archive(archive({"zeros": bytes(10_000_000)}, compression))
    with pytest.raises(cr.FormatError, match=r"'zeros' is compressed, .* bytes for 10000000; unpack the archive"):
        bomb.read("zeros")


@pytest.mark.parametrize("at", [TWO.index(b"first"), TWO.index(b"second") + 3, DIRECTORY + 16])
def test_damage_is_found_by_the_checksum(at: int) -> None:
    read = Archive(patched(at, "<B", 1))
    with pytest.raises(cr.FormatError, match="is damaged: its checksum"):
        [read.read(name) for name in read.names]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "without its end"),
        (TWO[:-1], "without its end"),
        (TWO + b"x", "not at the end of the file"),
        (patched(DIRECTORY + 8, "<H", 1), "'a' is encrypted"),
        (patched(6, "<H", 1), "'a' is told differently"),
        (patched(8, "<H", 8), "'a' is told differently"),
        (patched(30, "<B", ord("z")), "'a' is told differently"),
        (patched(DIRECTORY + 20, "<L", 10), "'a' and 'größe/b' of the archive overlap"),
        (patched(SECOND + 20, "<L", 60), "'größe/b' ends at byte .*, the archive's content at"),
        (patched(SECOND + 20, "<L", 0xFFFFFFFF), "lacks its 64-bit sizes"),
        (patched(SECOND + 42, "<L", 0), "'größe/b' is told differently"),
        (patched(SECOND + 42, "<L", 0xFFFFFF), "'größe/b' is not at byte 16777215"),
        (patched(SECOND + 28, "<H", 0xFFFF), "directory is damaged"),
        (patched(SECOND, "<L", 0), "directory is damaged"),
        (patched(SECOND + 46, "<B", 0xFF), "is not UTF-8"),
        (patched(END + 4, "<H", 1), "in several parts"),
        (patched(END + 10, "<H", 3), "in several parts"),
        (patched(END + 12, "<L", 0xFFFFFF), "says that 2 entries"),
        (patched(END + 16, "<L", 0xFFFFFF), "says that 2 entries"),
        (patched(END + 16, "<L", DIRECTORY - 1), "directory is damaged"),
        (patched(END + 20, "<H", 1), "not at the end of the file"),
    ],
)
def test_archives_that_contradict_themselves_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(cr.FormatError, match=message):
        Archive(data)


def same_entry_twice(data: bytes) -> bytes:
    return data[:SECOND] + data[DIRECTORY:SECOND] + data[END : END + 12] + sizes(2 * (SECOND - DIRECTORY))


def one_entry_fewer(data: bytes) -> bytes:
    return data[: END + 8] + struct.pack("<2H", 1, 1) + data[END + 12 :]


def sizes(directory: int) -> bytes:
    return struct.pack("<2LH", directory, DIRECTORY, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [(same_entry_twice, "two entries 'a'"), (one_entry_fewer, "bytes more than its 1 entries")],
)
def test_the_directory_tells_each_entry_once(make: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(cr.FormatError, match=message):
        Archive(make(TWO))


def test_every_cut_is_refused() -> None:
    for end in range(len(TWO)):
        with pytest.raises(cr.FormatError):
            Archive(TWO[:end])
