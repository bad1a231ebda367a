"""Databases of earlier versions become those of this one, those of others are left alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from chainrule.server.errors import StartupError, StoreUnavailableError
from chainrule.server.store import Store, database, migrations, schema
from tests.server.postgresql import emptied

FIRST = migrations.FIRST


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    found = sa.create_engine(url)
    yield found
    found.dispose()


def alembic(**attributes: Any) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes.update(attributes)
    return config


def make(engine: sa.Engine, revision: str) -> None:
    """The tables of a revision."""
    with engine.begin() as db:
        command.upgrade(alembic(connection=db), revision)


def differences(engine: sa.Engine) -> list[Any]:
    """How the tables differ from those of this version."""
    with engine.connect() as db:
        context = MigrationContext.configure(db, opts={"compare_type": True})
        return list(compare_metadata(context, schema.metadata))


def revision(engine: sa.Engine) -> str | None:
    with engine.connect() as db:
        return MigrationContext.configure(db).get_current_revision()


def test_the_last_revision_is_the_present_one() -> None:
    assert ScriptDirectory.from_config(alembic()).get_heads() == [migrations.HEAD]


def test_new_tables_are_those_that_all_revisions_lead_to(url: str, engine: sa.Engine) -> None:
    Store(url).close()
    assert (revision(engine), differences(engine)) == (migrations.HEAD, [])
    with engine.begin() as db:
        schema.metadata.drop_all(db)
        db.execute(sa.text("DROP TABLE alembic_version"))
    make(engine, migrations.HEAD)
    assert (revision(engine), differences(engine)) == (migrations.HEAD, [])


def test_tables_of_an_earlier_revision_are_converted_with_what_is_in_them(url: str, engine: sa.Engine) -> None:
    make(engine, FIRST)
    assert differences(engine) != []
    with engine.begin() as db:
        db.execute(
            schema.models.insert().values(
                name="models/m", family="f", family_config={}, weights_digest="a" * 64, init_seed="1",
                num_parameters=2, create_time_us=3,
            )
        )  # fmt: skip
    for _ in range(2):
        store = Store(url)
        assert store.get_model("models/m", tenant="default").num_parameters == 2
        store.close()
    assert (revision(engine), differences(engine)) == (migrations.HEAD, [])


def test_a_conversion_that_fails_changes_nothing(url: str, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    make(engine, FIRST)
    before = differences(engine)
    upgrade = command.upgrade

    def broken(*arguments: Any) -> None:
        upgrade(*arguments)
        raise RuntimeError("on purpose")

    monkeypatch.setattr(command, "upgrade", broken)
    with pytest.raises(RuntimeError, match="on purpose"):
        Store(url)
    assert revision(engine) == FIRST
    assert len(differences(engine)) == len(before)


def test_files_from_before_there_were_revisions_are_converted(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    make(engine, FIRST)
    with engine.begin() as db:
        db.execute(sa.text("DROP TABLE alembic_version"))
        db.execute(sa.text("PRAGMA user_version=2"))
    Store(f"sqlite:///{path}").close()
    assert (revision(engine), differences(engine)) == (migrations.HEAD, [])
    engine.dispose()


def test_tables_of_a_later_version_are_left_alone(url: str, engine: sa.Engine) -> None:
    Store(url).close()
    with engine.begin() as db:
        db.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(
        StartupError, match=r"was made by a newer chainrule, or by something else \(revision 9999; this version knows"
    ):
        Store(url)
    assert revision(engine) == "9999"


def test_tables_of_others_are_left_alone(url: str, engine: sa.Engine) -> None:
    with engine.begin() as db:
        db.execute(sa.text("CREATE TABLE jobs (id INTEGER)"))
    with pytest.raises(StartupError, match="are not those of a chainrule that this version can convert"):
        Store(url)
    assert sa.inspect(engine).get_table_names() == ["jobs"]


@pytest.mark.parametrize("layout", [1, 3])
def test_a_file_of_another_layout_is_left_alone(tmp_path: Path, layout: int) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE jobs (id INTEGER)")
        db.execute(f"PRAGMA user_version={layout}")
    with pytest.raises(StartupError, match=f"the database {path} are not those of a chainrule"):
        Store(f"sqlite:///{path}")
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("jobs",)]


# --- databases that cannot be used -----------------------------------------------------------------------------


def test_a_database_has_one_server(postgresql_url: str) -> None:
    url = emptied(postgresql_url)
    store = Store(url)
    with pytest.raises(StartupError, match="is in use by another server"):
        Store(url)
    store.close()
    Store(url).close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "--store-url cannot be used: .*postgresql\\+psycopg://USER@HOST/DATABASE"),
        ("oracle+nothing://h/d", "--store-url cannot be used"),
        ("mysql+pymysql://h/d", "--store-url"),
        ("postgresql+psycopg://u@h:port/d", "--store-url cannot be used"),
        ("sqlite:////none/at/all/store.db", "cannot open sqlite:////none/at/all/store.db: .*unable to open"),
        ("postgresql+psycopg://u:secret@127.0.0.1:1/d", "cannot open postgresql\\+psycopg://u:\\*\\*\\*@127.0.0.1:1/d"),
    ],
)
def test_what_is_no_database_of_ours_is_said_so(url: str, message: str) -> None:
    with pytest.raises(StartupError, match=message) as caught:
        Store(url)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_text("something else, and long enough to be looked at " * 10)
    with pytest.raises(StartupError, match=r"cannot open sqlite:.*file is not a database"):
        Store(f"sqlite:///{tmp_path / 'store.db'}")


def test_a_database_that_was_lost_for_a_moment_is_still_this_servers(postgresql_url: str) -> None:
    url = emptied(postgresql_url)
    store = Store(url)
    engine = sa.create_engine(url)
    others = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'postgres'"
    )
    with engine.begin() as db:
        db.execute(sa.text(others))
    store.drop_receipts("jobs/none", after_step=0)
    with pytest.raises(StartupError, match="is in use by another server"):
        Store(url)
    with engine.begin() as db:
        db.execute(sa.text(others))
    second = Store(url)  # was quicker
    with pytest.raises(StoreUnavailableError, match="is in use by another server"):
        store.drop_receipts("jobs/none", after_step=0)
    second.close()
    store.drop_receipts("jobs/none", after_step=0)
    store.close()
    engine.dispose()


def test_who_writes_does_not_wait_for_ever(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    store = Store(emptied(postgresql_url))
    with store._write(), pytest.raises(StoreUnavailableError, match="lock timeout"):
        store.drop_receipts("jobs/none", after_step=0)
    store.close()
