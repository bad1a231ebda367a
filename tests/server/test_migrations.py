"""Databases of earlier versions become those of this one, those of others are left alone."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from chainrule.server.architecture import Builtin
from chainrule.server.errors import IllegalStateError, StartupError, StoreUnavailableError
from chainrule.server.store import PageRequest, Store, configs, database, migrations, schema
from chainrule.server.store.requests import payload_digest
from chainrule.server.training.augmentation import Augmentation, Normalize, RandomFlip, Resize
from chainrule.server.training.config import TrainingConfig, Validation
from tests.server.postgresql import emptied

FIRST = migrations.FIRST

Rows = dict[str, list[dict[str, Any]]]
"""Of each table."""


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


# --- what the first tables hold, and what becomes of it ----------------------------------------------------------

CONFIG = TrainingConfig(epochs=2, batch_size=10, validation=Validation(dataset="datasets/v"))
JOBS = {
    # name: model, state, weights, request id
    "jobs/one": ("models/m", "SUCCEEDED", "1", "request-1"),
    "jobs/failed": ("models/m", "FAILED", "", None),
    "jobs/other": ("models/n", "SUCCEEDED", "2", None),
    "jobs/two": ("models/m", "SUCCEEDED", "3", "request-2"),
    "jobs/queued": ("models/m", "QUEUED", "", "request-3"),
}


def fill(engine: sa.Engine) -> None:
    """Rows in all of the first tables."""
    known = sa.MetaData()
    known.reflect(engine)
    with engine.begin() as db:

        def add(table: str, **values: Any) -> None:
            db.execute(known.tables[table].insert().values(**values))

        for number, name in enumerate(("models/m", "models/n", "models/unused")):
            add("models", name=name, family="mlp", family_config={"hidden": [4]}, weights_digest=str(number) * 64,
                init_seed=str(2**64 - 1), num_parameters=12, create_time_us=100 + number)  # fmt: skip
        for number, name in enumerate(("datasets/d", "datasets/v")):
            add("datasets", name=name, digest="de"[number] * 64, num_examples=10, input_shape=[8], num_classes=2,
                size_bytes=99, target_shape=[], num_tokens=0, create_time_us=200 + number)  # fmt: skip
        for number, (name, (model, state, weights, request_id)) in enumerate(JOBS.items()):
            add("jobs", name=name, request_id=request_id, payload_digest=f"{number:064d}", model=model,
                dataset="datasets/d", config=configs.to_values(CONFIG), total_steps=20, state=state, attempt=number,
                running_workers=0, fingerprint="f", weights_digest=weights * 64, weights_step=20 if weights else 0,
                failure={"reason": "R", "message": "m", "traceback": ""} if state == "FAILED" else None,
                create_time_us=300 + number, start_time_us=400 + number,
                end_time_us=None if state == "QUEUED" else 500 + number)  # fmt: skip
            add("job_history", job=name, state="QUEUED", reason="submitted", time_us=300 + number)
        job = "jobs/one"
        add("job_history", job=job, state="SUCCEEDED", reason="", time_us=500)
        add("job_events", job=job, kind="recovery", message="w", step=3, seconds_lost=1.5, time_us=450)
        add("metrics", job=job, step=1, epoch=1, loss=None, accuracy=0.5, num_examples=10, time_us=440)
        add("evaluations", job=job, epoch=1, step=10, loss=0.5, accuracy=0.5, num_examples=10, time_us=460)
        add("receipts", job=job, step=10, state_digest="6" * 64, chain_digest="7" * 64)
        add("checkpoints", job=job, step=10, epoch=1, manifest_digest="8" * 64, state_digest="9" * 64, size_bytes=7,
            create_time_us=470)  # fmt: skip


def content(engine: sa.Engine) -> Rows:
    """All rows of all tables."""
    known = sa.MetaData()
    known.reflect(engine)
    with engine.connect() as db:
        return {
            table.name: [dict(row) for row in db.execute(sa.select(table).order_by(*table.primary_key)).mappings()]
            for table in known.sorted_tables
        }


@pytest.fixture
def converted(url: str, engine: sa.Engine) -> Iterator[tuple[Store, Rows]]:
    """The store at a database with rows of the first tables, and these."""
    make(engine, FIRST)
    fill(engine)
    before = content(engine)
    store = Store(url)
    yield store, before
    store.close()


def test_no_row_and_no_value_is_lost_in_a_conversion(converted: tuple[Store, Rows], engine: sa.Engine) -> None:
    _, before = converted
    after = content(engine)
    del before["alembic_version"]
    moved = {"request_id", "payload_digest"}  # to `requests`
    for table, rows in before.items():
        kept = [{key: value for key, value in row.items() if key not in moved} for row in rows]
        assert [{key: row[key] for key in kept[0]} for row in after[table]] == kept, table
    assert [(row["tenant"], row["request_id"], row["payload_digest"], row["resource"], row["time_us"])
            for row in after["requests"]] == [
        ("default", "request-1", f"{0:064d}", "jobs/one", 300),
        ("default", "request-2", f"{3:064d}", "jobs/two", 303),
        ("default", "request-3", f"{4:064d}", "jobs/queued", 304),
    ]  # fmt: skip
    assert {table for table in after if not after[table]} == {
        "job_logs", "tokens", "audit", "blob_grants", "dataset_chunks"
    }  # fmt: skip


def test_models_and_the_jobs_that_have_succeeded_become_versions(
    converted: tuple[Store, Rows],
) -> None:
    store, _ = converted

    def versions(model: str) -> list[tuple[object, ...]]:
        found, _ = store.list_versions(model, PageRequest(), tenant="default")
        return [
            (v.number, v.weights_digest[0], v.job, v.parent, v.dataset, v.dataset_digest[:1], v.step, v.create_time)
            for v in reversed(found)
        ]

    def at(time_us: int) -> datetime:
        return datetime.fromtimestamp(time_us / 1e6, UTC)

    assert versions("models/m") == [
        (1, "0", "", 0, "", "", 0, at(100)),
        (2, "1", "jobs/one", 1, "datasets/d", "d", 20, at(500)),
        (3, "3", "jobs/two", 1, "datasets/d", "d", 20, at(503)),
    ]
    assert versions("models/n") == [
        (1, "1", "", 0, "", "", 0, at(101)),
        (2, "2", "jobs/other", 1, "datasets/d", "d", 20, at(502)),
    ]
    assert versions("models/unused") == [(1, "2", "", 0, "", "", 0, at(102))]
    latest = {model.name: model.latest_version for model in store.list_models(PageRequest(), tenant="default")[0]}
    assert latest == {"models/m": 3, "models/n": 2, "models/unused": 1}


def test_jobs_know_the_versions_they_began_with_and_made(converted: tuple[Store, Rows], engine: sa.Engine) -> None:
    rows = {row["name"]: row for row in content(engine)["jobs"]}
    assert {name: row["result_version"] for name, row in rows.items()} == {
        "jobs/one": 2, "jobs/failed": 0, "jobs/other": 2, "jobs/two": 3, "jobs/queued": 0
    }  # fmt: skip
    for row in rows.values():
        assert (row["tenant"], row["source_version"], row["dataset_digest"]) == ("default", 1, "d" * 64)
        assert (row["labels"], row["description"], row["revision"], row["priority"]) == ({}, "", 1, 0)


def test_versions_know_how_the_jobs_of_before_prepared_their_images(url: str, engine: sa.Engine) -> None:
    make(engine, "chainrule_0007")
    augmentation = Augmentation((Resize(4, 6), RandomFlip(), Normalize((0.5,), (2.0,))))
    with engine.begin() as db:
        tables = sa.MetaData()
        tables.reflect(db)
        jobs, versions, models = (tables.tables[name] for name in ("jobs", "model_versions", "models"))
        present = {
            "create_time_us": 1,
            "tenant": "default",
            "weights_digest": "w",
            "dataset": "d",
            "dataset_digest": "",
        }
        of_model: dict[str, object] = {key: {} for key in ("family_config", "labels")}
        of_model |= {key: [] for key in ("class_labels", "inputs", "outputs", "warnings")}
        db.execute(models.insert().values(_filled(models, present, name="models/m", last_version=2, **of_model)))
        config = configs.to_values(replace(CONFIG, augmentation=augmentation))
        db.execute(jobs.insert().values(_filled(jobs, present, name="jobs/j", config=config, labels={})))
        for number, job, data in ((1, "", ""), (2, "jobs/j", "datasets/float32"), (3, "jobs/k", "datasets/uint8")):
            row = _filled(versions, {**present, "dataset": data}, model="models/m", number=number, job=job)
            db.execute(versions.insert().values(row))
        of_data: dict[str, object] = {
            key: [] for key in ("input_shape", "target_shape", "statistics", "class_labels", "labels")
        }
        for dtype in ("float32", "uint8"):
            columns: list[object] = [{"name": "inputs", "dtype": dtype, "shape": []}]
            row = _filled(tables.tables["datasets"], present, of_data, name=f"datasets/{dtype}", columns=columns)
            db.execute(tables.tables["datasets"].insert().values(row))
    with closing(Store(url)) as store:
        pictures, newest, first = store.list_versions("models/m", PageRequest(), tenant="default")[0]
        assert (first.raw_bytes, newest.raw_bytes, pictures.raw_bytes) == (False, True, False)
        assert newest.preparation == (Resize(4, 6), Normalize((0.5,), (2.0,)))
        assert (first.preparation, first.class_labels, newest.class_labels) == ((), (), ())


def _filled(table: sa.Table, *known: dict[str, object], **values: object) -> dict[str, object]:
    """A row with these values, and nothing in all other columns that must have something."""
    given: dict[str, object] = {key: value for some in (*known, values) for key, value in some.items()}
    row = {}
    for column in table.columns:
        if column.name in given:
            row[column.name] = given[column.name]
        elif not column.nullable and column.name != "id":
            row[column.name] = "" if isinstance(column.type, sa.String) else 0
    return row


def test_what_was_converted_is_used_as_what_is_new(converted: tuple[Store, Rows]) -> None:
    store, _ = converted
    job = store.get_job("jobs/one")
    assert (job.config, job.state.value, job.history[-1].state.value) == (CONFIG, "SUCCEEDED", "SUCCEEDED")
    assert [known.step for known in store.checkpoints("jobs/one")] == [10]
    assert [(c.name, c.dtype, c.shape) for c in store.get_dataset("datasets/d", tenant="default").columns] == [
        ("inputs", "float32", (8,)),
        ("targets", "int64", ()),
    ]
    with pytest.raises(IllegalStateError, match='"datasets/v" is in use by "jobs/queued"'):
        store.delete_dataset("datasets/v", tenant="default")
    with pytest.raises(IllegalStateError, match='"models/m" is in use by "jobs/queued"'):
        store.delete_model("models/m", tenant="default")
    store.delete_model("models/n", tenant="default")
    known = store.get_model("models/unused", tenant="default")
    assert (known.init_seed, dict(known.labels), known.revision) == (2**64 - 1, {}, 1)
    assert known.architecture == Builtin("mlp", {"hidden": [4]})
    assert (known.class_labels, known.inputs, known.outputs, known.warnings) == ((), (), (), ())
    assert store.create_model(replace(known, name="models/n"), tenant="default").num_parameters == 12
    assert store.create_model(known, tenant="other").name == "models/unused"
    assert [m.name for m in store.list_models(PageRequest(filter="NOT labels:*"), tenant="other")[0]] == [
        "models/unused"
    ]


def test_references_between_tables_hold_after_a_conversion(converted: tuple[Store, Rows], engine: sa.Engine) -> None:
    """PostgreSQL checks them by itself."""
    found = {
        (table, key["constrained_columns"][-1], key["referred_table"], key["referred_columns"][-1])
        for table in sa.inspect(engine).get_table_names()
        for key in sa.inspect(engine).get_foreign_keys(table)
    }
    of_jobs = ("job_history", "job_events", "metrics", "evaluations", "receipts", "checkpoints", "job_logs")
    assert found == {(table, "job", "jobs", "name") for table in of_jobs} | {
        ("model_versions", "model", "models", "name"),
        ("dataset_chunks", "dataset", "datasets", "id"),
    }
    with engine.connect() as db:
        if engine.dialect.name == "sqlite":
            assert db.execute(sa.text("PRAGMA foreign_key_check")).all() == []
            assert db.execute(sa.text("PRAGMA integrity_check")).all() == [("ok",)]
    store, _ = converted
    for table in (schema.jobs, schema.models):
        with pytest.raises(sa.exc.IntegrityError), store._write() as db:
            db.execute(table.delete())


def test_a_request_of_before_is_answered_by_its_digest_of_now() -> None:
    """As the first tables had it of jobs."""
    payload = {"model": "models/m", "dataset": "datasets/d", "config": asdict(CONFIG)}
    before = hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
    assert payload_digest({**payload, "labels": {}, "description": "", "priority": 0}) == before


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
