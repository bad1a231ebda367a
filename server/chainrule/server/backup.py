"""A data folder as one file and back: the store as of one moment, the blobs that it refers to, and a list of both.

The file is a tar. Its first member is `manifest.json`, then come `chainrule.db` and `blobs/{digest}`. Rows that are in
PostgreSQL are not in it: pg_dump has them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Protocol

from chainrule.engine.io.files import write_private, write_whole
from chainrule.server.blobs import MAX_BLOB_BYTES, BlobStore
from chainrule.server.blobs.files import fsync_folder, publish
from chainrule.server.data_folder import BLOBS_FOLDER, OWNER_FILE, STORE_FILE, open_blobs, open_store
from chainrule.server.errors import BackupError, DamagedBlobError, NotFoundError
from chainrule.server.store import Store

FORMAT = 1
"""Of the file; one of a higher number is refused."""
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 256 * 1024**2
MAX_STORE_BYTES = 1024**4

_COPY_BYTES = 1024**2
_DIGEST = re.compile(r"[0-9a-f]{64}")
_IDENTITY = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Content:
    """A file, by its SHA-256 and its size."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a backup has."""

    identity: str
    """Of the store that the blobs belong to."""
    time: str
    """When it was made: ISO 8601, UTC."""
    chainrule: str
    """Version that made it."""
    store: Content | None
    """The SQLite file; None: the store is elsewhere."""
    blobs: Mapping[str, int]
    """Sizes in bytes, by digest."""
    left_out: tuple[str, ...] = ()
    """Digests of blobs that were damaged or missing, where that was allowed."""

    @property
    def size_bytes(self) -> int:
        """All that is in it."""
        return sum(self.blobs.values()) + (self.store.size_bytes if self.store is not None else 0)

    def to_json(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Raises BackupError if it is none, or of a later version."""
        try:
            values: dict[str, Any] = json.loads(content)
            if values["format"] != FORMAT:
                raise BackupError(f"the backup has format {values['format']!r}; this version reads {FORMAT}")
            store = values["store"]
            manifest = cls(
                identity=_matching(_IDENTITY, values["identity"]),
                time=str(values["time"]),
                chainrule=str(values["chainrule"]),
                store=None
                if store is None
                else Content(_matching(_DIGEST, store["sha256"]), _size(store["size_bytes"], MAX_STORE_BYTES)),
                blobs={_matching(_DIGEST, name): _size(size, MAX_BLOB_BYTES) for name, size in values["blobs"].items()},
                left_out=tuple(_matching(_DIGEST, name) for name in values["left_out"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BackupError(f"the backup's {MANIFEST} is not one of chainrule: {error!r}") from error
        return manifest


# --- writing ---------------------------------------------------------------------------------------------------


def write_backup(
    target: Path, store: Store, blobs: BlobStore, *, has_store: bool, skip_damaged: bool = False
) -> Manifest:
    """Write a backup of a folder that is owned by this process. There is a file at `target` once it is whole, and on
    disk; before, and after an error, there is none.

    Args:
        has_store: whether the store is the folder's SQLite file.
        skip_damaged: leave out blobs that are damaged or missing, instead of raising.

    Raises BackupError if the target is there already, or a blob is damaged or missing; OSError.
    """
    if target.exists():
        raise BackupError(f"{target} is there already; choose another name")
    with _temporary_beside(target) as temporary, _temporary_beside(target) as copy:
        stored = None
        if has_store:
            write_private(copy, b"")  # what is in the store is not for everybody
            store.copy_to(copy)
            stored = _content_of(copy)
        good, bad = _sorted_out(store, blobs)
        if bad and not skip_damaged:
            raise BackupError(
                f"{len(bad)} blobs are damaged or missing, of {', '.join(sorted(set(bad.values()))[:5])}; chainrule "
                "admin check names all; --skip-damaged leaves them out"
            )
        manifest = Manifest(
            identity=store.identity(),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            chainrule=version("chainrule"),
            store=stored,
            blobs=good,
            left_out=tuple(sorted(bad)),
        )
        write_private(temporary, b"")
        with temporary.open("r+b") as file:
            with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                content = manifest.to_json()
                _add(tar, MANIFEST, io.BytesIO(content), len(content))
                if stored is not None:
                    with copy.open("rb") as source:
                        _add(tar, STORE_FILE, source, stored.size_bytes)
                for digest, size in good.items():
                    _add_blob(tar, digest, size, blobs)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, target)
    return manifest


def _sorted_out(store: Store, blobs: BlobStore) -> tuple[dict[str, int], dict[str, str]]:
    """Sizes of the blobs that are whole, and of the others the first thing that needs them."""
    good, bad = {}, {}
    for digest, names in sorted(store.references().items()):
        try:
            good[digest] = blobs.check(digest)
        except (DamagedBlobError, NotFoundError):
            bad[digest] = names[0]
    return good, bad


def _add_blob(tar: tarfile.TarFile, digest: str, size_bytes: int, blobs: BlobStore) -> None:
    found = hashlib.sha256()
    with blobs.path(digest).open("rb") as file:
        _add(tar, f"{BLOBS_FOLDER}/{digest}", _Hashed(file, found), size_bytes)
    if found.hexdigest() != digest:
        raise BackupError(f'blob "{digest}" changed while it was copied; run the backup again')


def _add(tar: tarfile.TarFile, name: str, source: _Source, size_bytes: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size_bytes, 0o600
    tar.addfile(member, source)


class _Source(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Hashed:
    """A file whose content is hashed as it is read."""

    def __init__(self, file: IO[bytes], found: Any) -> None:
        self._file = file
        self._found = found

    def read(self, size: int = -1, /) -> bytes:
        content = self._file.read(size)
        self._found.update(content)
        return content


# --- reading ---------------------------------------------------------------------------------------------------


def restore_backup(source: Path, folder: Path) -> Manifest:
    """Make a data folder of a backup. It is there once all of it is whole and could be opened, and otherwise not.

    Raises BackupError if the folder is there already, or the file is no backup, or not whole; StartupError if this
    version cannot open the store; OSError.
    """
    if folder.exists() or folder.is_symlink():
        raise BackupError(f"{folder} is there already; name a folder that is not there yet")
    temporary = folder.with_name(f".{folder.name}.restoring-{secrets.token_hex(4)}")
    temporary.mkdir(mode=0o700, parents=True)
    try:
        try:
            with source.open("rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
                manifest = _unpack(tar, temporary)
        except (tarfile.TarError, EOFError) as error:
            raise BackupError(f"{source} is no backup, or not whole: {error}") from error
        write_whole(temporary / OWNER_FILE, [manifest.identity.encode()])
        if manifest.store is not None:
            store = open_store(temporary)
            try:
                open_blobs(temporary, store)
            finally:
                store.close()
        fsync_folder(temporary)
        os.rename(temporary, folder)
        fsync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return manifest


def _unpack(tar: tarfile.TarFile, folder: Path) -> Manifest:
    """Write what the manifest lists, and nothing else, below a folder."""
    members = iter(tar)
    manifest = _manifest_of(tar, next(members, None))
    free = shutil.disk_usage(folder).free
    if manifest.size_bytes > free:
        raise BackupError(f"the backup has {manifest.size_bytes:,} bytes, and {free:,} are free at {folder.parent}")
    wanted = {f"{BLOBS_FOLDER}/{digest}": Content(digest, size) for digest, size in manifest.blobs.items()}
    if manifest.store is not None:
        wanted[STORE_FILE] = manifest.store
    (folder / BLOBS_FOLDER).mkdir()
    for member in members:
        content = wanted.pop(member.name, None)
        if content is None or not member.isreg() or member.size != content.size_bytes:
            raise BackupError(f"the backup holds {member.name!r}, which its {MANIFEST} does not have like that")
        digest = content.sha256
        target = folder / (STORE_FILE if member.name == STORE_FILE else f"{BLOBS_FOLDER}/{digest[:2]}/{digest}")
        target.parent.mkdir(exist_ok=True)
        _extract(tar, member, target, digest)
    if wanted:
        raise BackupError(f"the backup is not whole: {len(wanted)} files are missing, {next(iter(wanted))} for one")
    for path in (folder / BLOBS_FOLDER, *(folder / BLOBS_FOLDER).iterdir()):
        fsync_folder(path)
    return manifest


def _manifest_of(tar: tarfile.TarFile, first: tarfile.TarInfo | None) -> Manifest:
    if first is None or first.name != MANIFEST or not first.isreg():
        raise BackupError(f"this is no backup: it does not begin with {MANIFEST}")
    if first.size > MAX_MANIFEST_BYTES:
        raise BackupError(f"the backup's {MANIFEST} has {first.size:,} bytes; at most {MAX_MANIFEST_BYTES:,} are read")
    file = tar.extractfile(first)
    assert file is not None  # of a regular file
    return Manifest.from_json(file.read())


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, digest: str) -> None:
    file = tar.extractfile(member)
    assert file is not None  # of a regular file
    found = hashlib.sha256()
    with target.open("xb") as out:
        os.fchmod(out.fileno(), 0o600)
        while content := file.read(_COPY_BYTES):
            found.update(content)
            out.write(content)
        out.flush()
        os.fsync(out.fileno())
    if found.hexdigest() != digest:
        raise BackupError(f"{member.name} is damaged in the backup: its SHA-256 is {found.hexdigest()}, not {digest}")


# --- private ---------------------------------------------------------------------------------------------------


@contextmanager
def _temporary_beside(target: Path) -> Iterator[Path]:
    """A name for a file in the same folder, which is removed in the end if it is still there."""
    path = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        yield path
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


def _content_of(path: Path) -> Content:
    with path.open("rb") as file:
        return Content(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _matching(pattern: re.Pattern[str], text: object) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError(f"{text!r} is not of the form {pattern.pattern}")
    return text


def _size(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{value!r} is no size")
    return value
