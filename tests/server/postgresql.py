"""A PostgreSQL server of the tests' own, where the system has one installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

LIMIT_S = 60.0
USER = "postgres"


def programs() -> Path | None:
    """The folder of its programs; None if it is not installed."""
    if (found := shutil.which("postgres")) is not None:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return versions[-1].parent if versions else None


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Run a server that listens on a socket in a new temporary folder; gives the URL of its database."""
    found = programs()
    assert found is not None
    owner = USER if os.geteuid() == 0 else None  # it does not run as root
    if owner is not None:
        shutil.chown(folder, owner)
    initdb: list[str | Path] = [found / "initdb", "-D", folder / "data", "-U", USER, "-A", "trust", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, timeout=LIMIT_S, cwd="/", user=owner)
    options = ["-c", "fsync=off", "-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [found / "postgres", "-D", folder / "data", *options],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            user=owner,
        )
    try:
        url = f"postgresql+psycopg://{USER}@/postgres?host={folder}"
        _wait_for(url, process, folder / "log")
        yield url
    finally:
        process.send_signal(signal.SIGINT)  # end now, without waiting for clients
        process.wait(LIMIT_S)


def emptied(url: str) -> str:
    """The database again, without any table."""
    engine = sa.create_engine(url)
    with engine.begin() as db:
        db.execute(sa.text("DROP SCHEMA public CASCADE"))
        db.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return url


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder whose path is short enough for a socket in it."""
    return tempfile.TemporaryDirectory(prefix="cr-pg-")


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    engine = sa.create_engine(url)
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            engine.connect().close()
            break
        except sa.exc.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
    engine.dispose()
