"""A SQL database: transactions, what is common to all tables, and which layout of them a file has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from chainrule.server.errors import InvalidRequestError, NotFoundError, StartupError, StoreUnavailableError
from chainrule.server.store import schema

BUSY_TIMEOUT_S = 30.0
"""How long a transaction waits for another one's lock."""


class Database:
    """The tables at a SQLAlchemy URL, made if they are not there. Close it when done.

    Raises StartupError if they were made by a chainrule whose tables are others.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        with self._write() as db:
            if self._engine.dialect.name == "sqlite":
                _check_layout(db, url)
            schema.metadata.create_all(db)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with _available(), self._engine.connect().execution_options(read=True) as db:
            yield db

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with _available(), self._engine.begin() as db:
            yield db

    def _now_us(self) -> int:
        return round(self._clock() * 1e6)


@contextmanager
def _available() -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.TimeoutError) as error:  # locked, full, gone
        raise StoreUnavailableError(f"the store does not answer: {error.args[0]}") from error


# --- queries ---------------------------------------------------------------------------------------------------


def find(db: Connection, table: sa.Table, name: str) -> RowMapping | None:
    """The row of a resource, if there is one."""
    return db.execute(sa.select(table).where(table.c.name == name)).mappings().first()


def get(db: Connection, table: sa.Table, name: str) -> RowMapping:
    """The row of a resource. Raises NotFoundError."""
    row = find(db, table, name)
    if row is None:
        kind = table.name.removesuffix("s")
        raise NotFoundError(
            f'there is no {kind} "{name}"; list what there is with: chainrule {table.name} ls', name=name
        )
    return row


def page(
    db: Connection, query: sa.Select[Any], column: sa.Column[Any], page_size: int, page_token: str
) -> tuple[Sequence[RowMapping], str]:
    """A page of rows by a falling column, and the token of the next: the last value of that column."""
    query = query.order_by(column.desc()).limit(page_size + 1)
    if page_token:
        if not page_token.isascii() or not page_token.isdigit():
            raise InvalidRequestError.of("page_token", f"{page_token!r} is not a token from a page before")
        query = query.where(column < int(page_token))
    rows = db.execute(query).mappings().all()
    more = len(rows) > page_size
    rows = rows[:page_size]
    return rows, str(rows[-1][column.name]) if more else ""


# --- SQLite ----------------------------------------------------------------------------------------------------


def _check_layout(db: Connection, url: str) -> None:
    """Tell a new file from one with these tables, and refuse any other: it would fail later, in the midst of a job."""
    found = int(db.exec_driver_sql("PRAGMA user_version").scalar_one())
    if found == 0 and not sa.inspect(db).get_table_names():
        db.exec_driver_sql(f"PRAGMA user_version={schema.LAYOUT}")
    elif found != schema.LAYOUT:
        age = "an older" if found < schema.LAYOUT else "a newer"
        raise StartupError(
            f"the database {url.removeprefix('sqlite:///')} was made by {age} chainrule (its tables have layout "
            f"{found}, those of this version {schema.LAYOUT}) and cannot be converted; "
            "serve from another --data-dir, or with the version that made it"
        )


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # what was acknowledged survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={round(BUSY_TIMEOUT_S * 1000)}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """A write takes its lock at once: one that began as a read could find that it must start again."""
    reading = connection.get_execution_options().get("read", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
