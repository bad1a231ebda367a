"""The folder of a service: its store, its blobs, and the lock that gives them to one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from chainrule.engine.io.files import write_whole
from chainrule.server.blobs import BlobStore
from chainrule.server.errors import StartupError
from chainrule.server.store import Store

STORE_FILE = "chainrule.db"
BLOBS_FOLDER = "blobs"
OWNER_FILE = "blobs.owner"
"""Which store the blobs belong to."""


def own(folder: Path) -> IO[str]:
    """Take the folder for this process alone; it is made if missing, and then private to the user. The lock ends with
    the process, however it ends, or by closing what is returned. Raises StartupError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise StartupError(
            f"--data-dir {folder} cannot be used: {reason}; choose a folder that you can write to"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise StartupError(
            f"--data-dir {folder} is in use by another server; stop that one, or choose another folder"
        ) from error
    return lock


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
