"""Datasets that lie in chunks: rows are read from files when they are needed, and not kept in memory."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from chainrule.engine import FormatError
from chainrule.engine.io.chunked import Chunk, Column, Manifest, Place, header_bytes, places
from chainrule.server.training.errors import DatasetError
from chainrule.server.training.examples import Fetch, as_features, chosen
from chainrule.server.training.state import Array, Arrays
from chainrule.server.training.uris import local_path, read_uri

CACHE = "CHAINRULE_CACHE"
"""Environment variable: the folder in which a machine that is not the service's keeps chunks."""
CHUNKS = "CHAINRULE_CHUNKS"
"""Environment variable: "fetch" has workers on the service's machine get chunks as if they were on another."""
CACHE_LIMIT = "CHAINRULE_CACHE_BYTES"
"""Environment variable: how much may lie there; those that have not been opened for longest go first."""
DEFAULT_CACHE_BYTES = 64 * 1024**3
MAX_OPEN_FILES = 128
MAX_CHUNK_BYTES = 256 * 1024**2
"""Largest chunk of a dataset: as much is in memory while a dataset is checked, or a chunk fetched."""
_HASHED_BYTES = 1024**2


@dataclass(frozen=True)
class ChunkedExamples:
    """A dataset in chunks."""

    manifest: Manifest
    folder: str
    """The service's folder of blobs: `{folder}/{first two digits}/{digest}`. What can be read there is read there."""
    fetch: Fetch | None = None
    """Where other chunks come from."""
    uri: str = ""
    """Where the chunks lie, `{uri}/{digest}`, if they are no blobs; then there is no `folder`."""

    def __len__(self) -> int:
        return self.manifest.num_rows

    def read(self, indices: NDArray[np.int64], columns: Collection[str] | None = None) -> Arrays:
        """See ExampleSource. Raises DatasetError naming the chunk that cannot be read."""
        return {name: as_features(array) for name, array in self._files.read(indices, columns).items()}

    @property
    def in_memory(self) -> bool:
        """See ExampleSource."""
        return False

    @property
    def num_bytes(self) -> int:
        """See ExampleSource."""
        return 0

    def fetched_with(self, fetch: Fetch) -> ChunkedExamples:
        """See ExampleSource."""
        return replace(self, fetch=fetch)

    @cached_property
    def _files(self) -> ChunkFiles:
        finder = UriFinder(self.uri) if self.uri else ChunkFinder(Path(self.folder), self.fetch)
        return ChunkFiles(self.manifest, finder)

    def __getstate__(self) -> dict[str, object]:
        return {"manifest": self.manifest, "folder": self.folder, "fetch": self.fetch, "uri": self.uri}


class Finder(Protocol):
    """Finds the files of chunks."""

    def open(self, digest: str) -> int:
        """A descriptor of the chunk's file. Raises DatasetError if there is none to be had, LinkError if it cannot be
        reached."""


class UriFinder:
    """Finds the files of chunks by the URI of their folder: files themselves, others in this machine's cache."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def open(self, digest: str) -> int:
        """See Finder."""
        path = local_path(self._uri)
        try:
            if path is not None:
                return os.open(f"{path}/{digest}", os.O_RDONLY | os.O_NOFOLLOW)
            return open_cached(digest, lambda _: read_uri(f"{self._uri}/{digest}", limit_bytes=MAX_CHUNK_BYTES))
        except OSError as error:
            raise DatasetError(f"chunk {digest} of the dataset cannot be read: {error}") from error


class ChunkFinder:
    """Finds the file of a chunk: the service's own, or one in this machine's cache, which takes what it lacks."""

    def __init__(self, folder: Path, fetch: Fetch | None = None) -> None:
        self._folder = folder
        self._fetch = fetch

    def open(self, digest: str) -> int:
        """See Finder."""
        try:
            if self._fetch is not None and os.environ.get(CHUNKS) == "fetch":
                return open_cached(digest, self._fetch)
            return os.open(self._folder / digest[:2] / digest, os.O_RDONLY)
        except OSError as error:
            if self._fetch is None:
                raise DatasetError(f"chunk {digest} of the dataset cannot be read: {error}") from error
        try:
            return open_cached(digest, self._fetch)
        except OSError as error:
            raise DatasetError(f"chunk {digest} of the dataset cannot be kept on this machine: {error}") from error


class ChunkFiles:
    """Rows of chunks by their number in the dataset. Threads may share it.

    It holds descriptors, and where columns begin; rows are read (`preadv`) into the arrays that are handed out, so that
    what it has read counts as the system's cache and not as memory of this process. A file is compared with its digest
    when it is opened for the first time.
    """

    def __init__(self, manifest: Manifest, finder: Finder) -> None:
        self._columns = manifest.columns
        self._chunks = manifest.chunks
        self._ends = np.cumsum([chunk.rows for chunk in manifest.chunks])
        self._finder = finder
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _File] = OrderedDict()
        self._found_right: set[int] = set()

    def read(self, indices: NDArray[np.int64], columns: Collection[str] | None = None) -> Arrays:
        """Columns of some rows, in the order asked for; None: all columns. Raises DatasetError."""
        wanted = chosen([column.name for column in self._columns], columns)
        out: dict[str, Array] = {
            column.name: np.empty((len(indices), *column.shape), np.dtype(column.dtype))
            for column in self._columns
            if column.name in wanted
        }
        if len(indices) == 0:
            return out
        chunks = np.searchsorted(self._ends, indices, side="right")
        rows = indices - (self._ends[chunks] - np.array([self._chunks[c].rows for c in chunks]))
        breaks = np.flatnonzero((np.diff(chunks) != 0) | (np.diff(rows) != 1)) + 1
        starts = np.concatenate(([0], breaks))
        stops = np.concatenate((breaks, [len(indices)]))
        with self._lock:
            for run in np.argsort(chunks[starts], kind="stable"):  # each file once
                start, stop = int(starts[run]), int(stops[run])
                file = self._file(int(chunks[start]))
                for name, array in out.items():
                    file.read_into(name, int(rows[start]), array[start:stop])
        return out

    def close(self) -> None:
        """Close all files; they are opened again when they are needed."""
        with self._lock:
            for file in self._open.values():
                file.close()
            self._open.clear()

    def _file(self, index: int) -> _File:
        if (file := self._open.get(index)) is not None:
            self._open.move_to_end(index)
            return file
        chunk = self._chunks[index]
        file = _File(chunk, self._finder.open(chunk.digest), self._columns, check=index not in self._found_right)
        self._found_right.add(index)
        self._open[index] = file
        if len(self._open) > MAX_OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return file

    def __del__(self) -> None:
        self.close()


class _File:
    """The open file of a chunk."""

    def __init__(self, chunk: Chunk, descriptor: int, columns: tuple[Column, ...], *, check: bool) -> None:
        self._chunk = chunk
        self._descriptor = descriptor
        self._row_bytes = {column.name: column.row_bytes for column in columns}
        try:
            if check and _sha256(descriptor) != chunk.digest:
                raise DatasetError(
                    f"chunk {chunk.digest} of the dataset is damaged on disk; create the dataset again: that sends it"
                )
            size = header_bytes(os.pread(descriptor, 8, 0))
            self._places = _checked(places(os.pread(descriptor, size, 0)), chunk, columns)
        except FormatError as error:
            os.close(descriptor)
            raise DatasetError(f"chunk {chunk.digest} of the dataset cannot be read: {error}") from error
        except BaseException:
            os.close(descriptor)
            raise

    def read_into(self, name: str, row: int, out: Array) -> None:
        """The rows from `row` on of a column, as many as `out` has."""
        offset = self._places[name].begin + row * self._row_bytes[name]
        left = out.reshape(-1).view(np.uint8).data
        while left:
            done = os.preadv(self._descriptor, [left], offset)
            if done == 0:
                raise DatasetError(f"chunk {self._chunk.digest} of the dataset ends too early")
            left, offset = left[done:], offset + done

    def close(self) -> None:
        os.close(self._descriptor)


def _checked(found: Mapping[str, Place], chunk: Chunk, columns: tuple[Column, ...]) -> Mapping[str, Place]:
    for column in columns:
        place = found.get(column.name)
        if place is None or (place.dtype, place.shape) != (column.dtype, (chunk.rows, *column.shape)):
            raise FormatError(f'column "{column.name}" is {place}, not {column} of {chunk.rows} rows')
    return found


def _sha256(descriptor: int) -> str:
    found, offset = hashlib.sha256(), 0
    while block := os.pread(descriptor, _HASHED_BYTES, offset):
        found.update(block)
        offset += len(block)
    return found.hexdigest()


# --- what a machine keeps -------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where this machine keeps chunks, a folder that nobody else can write to. Raises OSError if it is not."""
    named = os.environ.get(CACHE)
    folder = Path(named) if named else Path(tempfile.gettempdir()) / f"chainrule-chunks-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=bool(named), exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise PermissionError(f"{folder} is not a folder that only this user can write to; name another with {CACHE}")
    return folder


def open_cached(digest: str, fetch: Fetch) -> int:
    """A descriptor of a chunk's file in the cache. Raises OSError if it cannot be kept there, DatasetError if something
    else comes, and what `fetch` raises."""
    cache = cache_folder()
    path = cache / digest
    with _locked(cache):  # one worker of a machine fetches it, the others find it there
        with suppress(FileNotFoundError):
            os.utime(path)
            return os.open(path, os.O_RDONLY)
        content = fetch(digest)
        if hashlib.sha256(content).hexdigest() != digest:
            raise DatasetError(f"chunk {digest} of the dataset arrived damaged")
        _make_room(cache, len(content))
        temporary = cache / f".{secrets.token_hex(8)}"
        try:
            temporary.write_bytes(content)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
        return os.open(path, os.O_RDONLY)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_room(folder: Path, size_bytes: int) -> None:
    """Remove the chunks that were not opened for longest, until there is room within the limit. Who has one open reads
    it to its end."""
    limit = int(os.environ.get(CACHE_LIMIT, DEFAULT_CACHE_BYTES))
    facts = sorted(((path.stat(), path) for path in folder.glob("[0-9a-f]*")), key=lambda found: found[0].st_mtime)
    total = sum(of.st_size for of, _ in facts)
    for of, path in facts:
        if total + size_bytes <= limit:
            return
        path.unlink()
        total -= of.st_size
