"""Folders of clusters: private to their user, short enough for Ray's sockets, and swept once nobody needs them."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from chainrule.server.cluster.processes import kill_folder
from chainrule.server.errors import StartupError

PREFIX = "cr-ray-"
"""What the names of folders begin with that end with the process that made them. Short: Ray's sockets lie far below."""
LOCK = "lock"
"""File in such a folder that its process holds locked."""
MAX_TEMPORARY_PATH = 20
"""Longest path of a temporary folder that Ray's sockets fit under: a socket's whole path has 104 bytes at most."""
MAX_PATH = 38
"""Longest path of a cluster's folder, for the same reason."""
NAME = re.compile(r"[a-z][a-z0-9-]*")
"""What a cluster that lasts may be called."""

logger = logging.getLogger(__name__)


def temporary() -> Path:
    """Where the folders are: the system's temporary folder if its path is short enough."""
    folder = Path(tempfile.gettempdir())
    return Path("/tmp") if len(str(folder)) > MAX_TEMPORARY_PATH else folder  # long as on macOS


def passing() -> tuple[Path, IO[str]]:
    """A new folder for as long as this process runs, and the lock that says it is in use. What a killed process has
    left of such folders is removed, and what runs for them is ended."""
    for leftover in temporary().glob(f"{PREFIX}*/{LOCK}"):
        if leftover.stat().st_uid == os.getuid() and (lock := try_lock(leftover)) is not None:
            logger.info("removing %s, which a process that was killed has left", leftover.parent)
            remove(leftover.parent)
            lock.close()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=temporary()))
    made = folder / f"{LOCK}.new"
    lock = try_lock(made)
    assert lock is not None  # nobody else looks at a file of this name
    made.rename(folder / LOCK)  # it appears locked: another process that starts now does not take it for left behind
    return folder, lock


def lasting(name: str) -> Path:
    """Where the folder of the cluster with a name is, or would be. Raises StartupError if the name is not possible."""
    folder = temporary() / f"cr-{os.getuid()}-{name}"
    if NAME.fullmatch(name) is None:
        raise StartupError(f"a cluster cannot be called {name!r}: use lower case letters, digits and -, a letter first")
    if len(str(folder)) > MAX_PATH:
        raise StartupError(
            f"a cluster cannot be called {name!r}: the sockets below {folder} would have too long a path; "
            f"use {len(str(folder)) - MAX_PATH} characters less"
        )
    return folder


def make_lasting(name: str) -> Path:
    """The folder of the cluster with a name, made if missing. Raises StartupError if it is not this user's alone."""
    folder = lasting(name)
    folder.mkdir(mode=0o700, exist_ok=True)
    if not is_private(folder):
        raise StartupError(f"{folder} belongs to somebody else or can be read by others; choose another name")
    return folder


def present() -> Iterator[Path]:
    """The folders of this user's clusters, of both kinds."""
    for pattern in (f"{PREFIX}*", f"cr-{os.getuid()}-*"):
        yield from (folder for folder in sorted(temporary().glob(pattern)) if is_private(folder))


def is_private(folder: Path) -> bool:
    """Whether a folder is this user's and closed to others, so that what is written in it can be believed."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o077


def remove(folder: Path) -> None:
    """End what runs for a folder and remove it."""
    kill_folder(folder)
    shutil.rmtree(folder, ignore_errors=True)


def try_lock(path: Path) -> IO[str] | None:
    """Hold a file's lock until it is closed or this process ends; None if another process holds it."""
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
