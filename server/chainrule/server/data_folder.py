"""The folder of a service: its store, its blobs, and the lock that gives them to one process at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from chainrule.engine.io.files import write_whole
from chainrule.server.blobs import BlobStore
from chainrule.server.errors import StartupError, StoreUnavailableError
from chainrule.server.store import Store

logger = logging.getLogger(__name__)

STORE_FILE = "chainrule.db"
BLOBS_FOLDER = "blobs"
LOCK_FILE = "lock"
MAX_OWNER_BYTES = 200
OWNER_FILE = "blobs.owner"
"""Which store the blobs belong to."""


def own(folder: Path) -> IO[str]:
    """Take the folder for this process alone; it is made if missing, and then private to the user. The lock ends with
    the process, however it ends, or by closing what is returned. Raises StartupError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / LOCK_FILE).open("a+")
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise StartupError(
            f"--data-dir {folder} cannot be used: {reason}; choose a folder that you can write to"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        who = lock.read(MAX_OWNER_BYTES).strip()
        lock.close()
        raise StartupError(
            f"--data-dir {folder} is in use by another server{f' ({who})' if who else ''}; stop that one, or choose "
            "another folder"
        ) from error
    note_owner(lock)
    return lock


def note_owner(lock: IO[str], address: str = "") -> None:
    """Write into the lock which process has the folder and, once it is known, the address that it serves on: for
    whoever finds the folder in use."""
    lock.seek(0)
    lock.truncate()
    lock.write(f"process {os.getpid()}{f', at {address}' if address else ''}\n")
    lock.flush()


@contextmanager
def removed_on_failure(folder: Path) -> Iterator[None]:
    """What may make a folder and then not serve from it: if it raises, the folder is as missing as it was before. One
    that was there before stays, and so does one that something is in, or that another server has taken."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        if missing and folder.is_dir() and _remove_unused(folder):
            for parent in missing[1:]:
                with suppress(OSError):  # something else is in it by now
                    parent.rmdir()
        raise


def _remove_unused(folder: Path) -> bool:
    """Remove a folder in which nothing has been stored. False if it is not such a one."""
    known = {LOCK_FILE, OWNER_FILE, BLOBS_FOLDER, *(f"{STORE_FILE}{end}" for end in ("", "-wal", "-shm"))}
    try:
        with own(folder):
            if not {path.name for path in folder.iterdir()} <= known:
                return False
            if any(path.is_file() for path in (folder / BLOBS_FOLDER).rglob("*")):
                return False
            if (folder / STORE_FILE).exists():
                store = open_store(folder)
                try:
                    if not store.is_empty():
                        return False
                finally:
                    store.close()
            shutil.rmtree(folder)
            return True
    except (StartupError, StoreUnavailableError, OSError) as error:
        logger.warning("%s was made and is not used, and cannot be removed: %s", folder, error)
        return False


def open_store(folder: Path, url: str | None = None) -> Store:
    """The store in a folder, or at a URL of PostgreSQL. Raises StartupError if it cannot be used."""
    if url is not None and url.startswith("sqlite"):  # it would have no lock
        raise StartupError(f"--store-url {url} is a SQLite file; that one lies in --data-dir, as {STORE_FILE}")
    return Store(url or f"sqlite:///{folder / STORE_FILE}")


def open_blobs(folder: Path, store: Store, *, limit_bytes: int | None = None) -> BlobStore:
    """The blobs in a folder, which are those of a store: another would take them for what nothing refers to.

    Raises StartupError if they belong to another store.
    """
    blobs = BlobStore(folder / BLOBS_FOLDER, limit_bytes=limit_bytes)
    owner = folder / OWNER_FILE
    are_unclaimed = not owner.exists()  # both are new, or from before this file
    if are_unclaimed and (store.references() or not blobs.stored_bytes()):
        write_whole(owner, [store.identity().encode()])
    if not owner.exists() or owner.read_text() != store.identity():
        raise StartupError(
            f"the blobs in --data-dir {folder} belong to another store than the one that was opened; "
            "name that one with --store-url, or choose another folder"
        )
    return blobs
