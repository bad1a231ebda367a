"""A SQL database: transactions, what is common to all tables, and which layout of them a file has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from chainrule.server.errors import InvalidRequestError, NotFoundError, StartupError, StoreUnavailableError
from chainrule.server.store import migrations

BUSY_TIMEOUT_S = 30.0
"""How long a transaction waits for another one's lock."""


class Database:
    """The tables at a SQLAlchemy URL, of SQLite or PostgreSQL: made if they are not there, converted if an earlier
    version has made them. Close it when done.

    Raises StartupError if it cannot be used: no such database, tables that are not ours, or of a later version; or, on
    PostgreSQL, another server that uses it. A SQLite file is one server's by the lock of its folder.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._engine = _engine(url)
        self._lock: Connection | None = None
        try:
            if self._engine.dialect.name == "postgresql":
                self._lock = _own(self._engine)
            with self._write() as db:
                migrations.bring_up_to_date(db)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
        self._engine.dispose()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with _available(), self._engine.connect().execution_options(**_READING[self._engine.dialect.name]) as db:
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


# --- engines ---------------------------------------------------------------------------------------------------

_READING: dict[str, dict[str, Any]] = {
    "sqlite": {"read": True},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
"""Options of a connection that reads: it sees one state of the database."""
_WRITERS_LOCK, _SERVERS_LOCK = 0x636861696E0001, 0x636861696E0002
"""Names of advisory locks in PostgreSQL: of the transaction that writes, and of the server."""


def _engine(url: str) -> sa.Engine:
    """Raises StartupError if the URL is none that can be used."""
    try:
        engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
        raise StartupError(
            f"--store-url cannot be used: {error}; it is sqlite:///FILE, or postgresql+psycopg://USER@HOST/DATABASE "
            "with the packages of chainrule[postgresql]"
        ) from error
    match engine.dialect.name:
        case "sqlite":
            sa.event.listen(engine, "connect", _set_up_sqlite)
            sa.event.listen(engine, "begin", _begin_sqlite)
        case "postgresql":
            sa.event.listen(engine, "begin", _begin_postgresql)
        case other:
            raise StartupError(f"--store-url names a database of {other}; use SQLite or PostgreSQL")
    return engine


def _own(engine: sa.Engine) -> Connection:
    """Take a PostgreSQL database for this server alone: the lock is the connection's. Raises StartupError."""
    name = engine.url.render_as_string(hide_password=True)
    try:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except sa.exc.OperationalError as error:
        raise StartupError(f"cannot open {name}: {str(error.orig).strip()}") from error
    if not connection.execute(sa.select(sa.func.pg_try_advisory_lock(_SERVERS_LOCK))).scalar():
        connection.close()
        raise StartupError(f"{name} is in use by another server; stop that one, or choose another --store-url")
    return connection


def _begin_postgresql(connection: Connection) -> None:
    """Transactions that write come one after the other, as in SQLite: what one has looked at stays so until its end."""
    options = connection.get_execution_options()
    if "postgresql_readonly" not in options and options.get("isolation_level") != "AUTOCOMMIT":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITERS_LOCK)))


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
