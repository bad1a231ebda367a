"""Files that are on disk when a call returns, and what it means if the disk is full."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chainrule.server.errors import StorageFullError


def publish(temporary: Path, target: Path) -> None:
    """Give a file, whose content is on disk, its final name, in a folder that is made if need be; have that on disk."""
    folder = target.parent
    folder.mkdir(exist_ok=True)
    os.replace(temporary, target)
    fsync_folder(folder)
    fsync_folder(folder.parent)  # the folder may be new; if another upload made it, that may not be on disk yet


def fsync_folder(folder: Path) -> None:
    """Have the names in a folder on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def room_on_disk(size_bytes: int, folder: Path) -> Iterator[None]:
    """What writes so many bytes below a folder. Raises StorageFullError if they do not fit."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFullError(
            f"there is no room for {size_bytes:,} bytes on the disk of {folder}; remove what is not needed there"
        ) from error
