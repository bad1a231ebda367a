"""A SQL database: transactions, what is common to all tables, and which layout of them a file has."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from chainrule.server.errors import NotFoundError, StaleEtagError, StartupError, StoreUnavailableError, echo
from chainrule.server.store import migrations, schema

BUSY_TIMEOUT_S = 30.0
"""How long a transaction waits for another one's lock."""


class Database:
    """The tables at a SQLAlchemy URL, of SQLite or PostgreSQL: made if they are not there, converted if an earlier
    version has made them. Close it when done.

    Raises StartupError if it cannot be used: no such database, tables that are not ours, or of a later version; or, on
    PostgreSQL, another server that uses it. A SQLite file is one server's by the lock of the folder that it lies in.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._closed = False
        self._revisions = itertools.count(1)
        self._revision = 0
        self._engine = _engine(url)
        self._ownership = _Ownership(self._engine) if self._engine.dialect.name == "postgresql" else None
        try:
            with self._write(rebuilding=True) as db:
                migrations.bring_up_to_date(db)
        except (StoreUnavailableError, sa.exc.DBAPIError) as error:
            self.close()
            raise StartupError(f"cannot open {shown(self._engine.url)}: {_first_line(error)}") from error
        except BaseException:
            self.close()
            raise

    def identity(self) -> str:
        """What tells this store from others."""
        with self._read() as db:
            return str(db.execute(sa.select(schema.identity.c.id)).scalar_one())

    @property
    def revision(self) -> int:
        """Changes whenever something may have been written. What was read at a revision, which was looked at before, is
        so as long as the revision is that; asking for it does not block."""
        return self._revision

    def close(self) -> None:
        """What is asked of it from now on is refused: another server may have the tables."""
        self._closed = True
        if self._ownership is not None:
            self._ownership.close()
        self._engine.dispose()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        self._check_open()
        with _available(), self._engine.connect().execution_options(**_READING[self._engine.dialect.name]) as db:
            yield db

    @contextmanager
    def _write(self, *, rebuilding: bool = False) -> Iterator[Connection]:
        self._check_open()
        with _available():
            if self._ownership is not None:
                self._ownership.keep()
            try:
                with self._engine.connect().execution_options(rebuilding=rebuilding) as db, db.begin():
                    yield db
            finally:  # also if it is not known what came of it
                self._revision = next(self._revisions)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("the store is closed: the service has ended; try again, it may be back soon")

    def _now_us(self) -> int:
        return round(self._clock() * 1e6)


@contextmanager
def _available() -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.TimeoutError) as error:  # locked, full, gone
        raise StoreUnavailableError(f"the store does not answer: {_first_line(error)}") from error


def shown(url: sa.URL) -> str:
    """A database's URL as it may be told."""
    return url.render_as_string(hide_password=True)


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]


# --- queries ---------------------------------------------------------------------------------------------------


def find(db: Connection, table: sa.Table, name: str, *, tenant: str | None = None) -> RowMapping | None:
    """The row of a resource of a tenant, if there is one; None: of any, where no two have the same names."""
    query = sa.select(table).where(table.c.name == name)
    if tenant is not None:
        query = query.where(table.c.tenant == tenant)
    return db.execute(query).mappings().first()


def get(db: Connection, table: sa.Table, name: str, *, tenant: str | None = None) -> RowMapping:
    """As `find`; raises NotFoundError, in the same words whether nobody has it or somebody else."""
    row = find(db, table, name, tenant=tenant)
    if row is None:
        kind = table.name.removesuffix("s")
        raise NotFoundError(
            f'there is no {kind} "{name}"; list what there is with: chainrule {table.name} ls', name=name
        )
    return row


def check_etag(name: str, known: str, etag: str) -> None:
    """Raises StaleEtagError if a change was meant for a resource with another etag than it has; "" is any."""
    if etag not in ("", known):
        raise StaleEtagError(
            f'"{name}" has changed: its etag is "{known}", no longer {echo(etag)}; read it again, and decide anew',
            name=name,
            etag=known,
        )


# --- engines ---------------------------------------------------------------------------------------------------

_READING: dict[str, dict[str, Any]] = {
    "sqlite": {"read": True},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
"""Options of a connection that reads: it sees one state of the database."""
_PATIENCE = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""Of connections to PostgreSQL, in seconds: one whose other side is gone is noticed after a minute."""
_WRITERS_LOCK, _SERVERS_LOCK = 0x636861696E0001, 0x636861696E0002
"""Names of advisory locks in PostgreSQL: of the transaction that writes, and of the server."""


def _engine(url: str) -> sa.Engine:
    """Raises StartupError if the URL is none that can be used."""
    is_local = url.startswith("sqlite")
    try:
        engine = sa.create_engine(url, pool_pre_ping=not is_local, connect_args={} if is_local else _PATIENCE)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError, ValueError) as error:
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


class _Ownership:
    """That a PostgreSQL database is this server's alone: a lock of a connection that is there for nothing else.

    Raises StartupError if the database cannot be opened, or another server has it.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._guard = threading.Lock()
        self._over = False
        try:
            self._connection = self._taken()
        except sa.exc.OperationalError as error:
            raise StartupError(f"cannot open {shown(engine.url)}: {_first_line(error)}") from error
        except StoreUnavailableError as error:
            raise StartupError(f"{error}; stop that one, or choose another --store-url") from error

    def keep(self) -> None:
        """Make sure of it, before something is written. A connection that was lost is made again. Raises
        StoreUnavailableError if another server has taken the database meanwhile, or this one has given it up, or
        OperationalError."""
        with self._guard:
            if self._over:
                raise StoreUnavailableError("the store was closed a moment ago")
            try:
                self._connection.execute(sa.select(1))
            except sa.exc.SQLAlchemyError:  # it is gone, or was when this was last tried
                self._connection.close()
                self._connection = self._taken()

    def close(self) -> None:
        with self._guard:
            self._over = True
            self._connection.close()

    def _taken(self) -> Connection:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if not connection.execute(sa.select(sa.func.pg_try_advisory_lock(_SERVERS_LOCK))).scalar():
            connection.close()
            raise StoreUnavailableError(f"{shown(self._engine.url)} is in use by another server")
        return connection


def _begin_postgresql(connection: Connection) -> None:
    """Transactions that write come one after the other, as in SQLite: what one has looked at stays so until its end."""
    options = connection.get_execution_options()
    if "postgresql_readonly" not in options and options.get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_TIMEOUT_S:g}s'")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITERS_LOCK)))


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # what was acknowledged survives a power cut
    cursor.execute(f"PRAGMA busy_timeout={round(BUSY_TIMEOUT_S * 1000)}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """A write takes its lock at once: one that began as a read could find that it must start again. One that rebuilds
    tables drops what others refer to for a moment; the setting has no effect within a transaction."""
    options = connection.get_execution_options()
    driver = connection.connection.driver_connection
    assert driver is not None  # of a connection in use
    driver.execute(f"PRAGMA foreign_keys={'OFF' if options.get('rebuilding') else 'ON'}")
    connection.exec_driver_sql("BEGIN" if options.get("read") else "BEGIN IMMEDIATE")
