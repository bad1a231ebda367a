"""Files that are there whole or not at all, and the digest of bytes."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path


def digest(data: bytes | memoryview) -> str:
    """The SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write_whole(path: str | Path, chunks: Iterable[bytes]) -> None:
    """Writes the chunks to a file of another name beside `path`, which then takes its place.

    Who reads `path`, even after a crash, finds the old content or the new, never a part. The mode of a file that was
    there stays; a link is followed; what is no regular file (`/dev/stdout`, a pipe) is written to directly.

    Raises:
        OSError: nothing could be written; what `path` held is still there.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            file.writelines(chunks)
        return
    temporary = target.with_name(f".chainrule-{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            if target.exists():
                os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync_folder(target.parent)


def write_private(path: str | Path, content: bytes) -> None:
    """Writes a new file that nobody but its owner can read, from the beginning on.

    Raises:
        FileExistsError: there is such a file already; it is left as it is.
        OSError: it cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _fsync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
