"""What is done to a data folder while no server uses it."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import pytest
import typer
from typer.testing import CliRunner, Result

from chainrule.server import admin
from chainrule.server.architecture import Builtin
from chainrule.server.blobs import BlobStore
from chainrule.server.data_folder import note_owner, open_blobs, open_store, own, removed_on_failure
from chainrule.server.errors import StartupError
from chainrule.server.records import Model
from chainrule.server.store import Store
from chainrule.server.store.schema import DEFAULT_TENANT
from tests.server.jobs.service_parts import FakeLauncher, Parts

app = typer.Typer()
app.command()(admin.gc)
app.command()(admin.check)
app.command()(admin.backup)
app.command()(admin.restore)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with a model whose weights are there, and a blob that nothing refers to."""
    store = open_store(tmp_path)
    blobs = open_blobs(tmp_path, store)
    for content in (b"weights", b"leftover"):
        path = blobs.path(blobs.put(content))
        os.utime(path, (time.time() - 5 * 3600, time.time() - 5 * 3600))
    store.create_model(
        Model("models/m", Builtin("small_cnn"), digest_of(b"weights"), 0, 1, datetime.now(UTC)), tenant="default"
    )
    store.close()
    return tmp_path


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_what_nothing_refers_to_is_removed_after_its_grace(folder: Path) -> None:
    assert (
        run("gc", "--data-dir", str(folder)).stdout == "removed 0 blobs, 0 bytes; what is younger than 24 h was kept\n"
    )
    found = run("gc", "--data-dir", str(folder), "--grace-hours", "4", "--format", "json")
    assert json.loads(found.stdout) == {"blobs": 1, "bytes": 8}
    assert BlobStore(folder / "blobs").contains(digest_of(b"weights"))
    assert not BlobStore(folder / "blobs").contains(digest_of(b"leftover"))


def test_a_folder_without_damage_is_found_so(folder: Path) -> None:
    found = run("check", "--data-dir", str(folder))
    assert (found.exit_code, found.stdout) == (0, "read 1 blobs; 0 are damaged or missing\n")


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_damaged_and_missing_blobs_are_named_with_what_needs_them(folder: Path, damage: str) -> None:
    path = BlobStore(folder / "blobs").path(digest_of(b"weights"))
    if damage == "flip":
        path.write_bytes(b"weightz")
    else:
        path.unlink()
    found = run("check", "--data-dir", str(folder))
    assert found.exit_code == 1
    assert found.stdout.startswith("models/m/versions/1: ")
    assert digest_of(b"weights") in found.stdout
    [wrong] = json.loads(run("check", "--data-dir", str(folder), "--format", "json").stdout)["wrong"]
    assert wrong["of"] == ["models/m/versions/1"]


def test_the_folder_of_a_running_server_is_left_alone(folder: Path) -> None:
    with own(folder):
        found = run("gc", "--data-dir", str(folder), "--grace-hours", "0")
    assert found.exit_code == 1
    assert "is in use by another server" in found.stderr
    assert BlobStore(folder / "blobs").contains(digest_of(b"leftover"))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    found = run("gc", "--data-dir", str(tmp_path))
    assert found.exit_code == 1
    assert "is no data folder of a server" in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_blobs_of_another_store_are_left_alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As when --store-url was forgotten: to a new store, all of them are what nothing refers to."""
    (folder / "chainrule.db").rename(folder / "elsewhere.db")
    store = open_store(folder)
    with pytest.raises(StartupError, match="belong to another store than the one that was opened"):
        open_blobs(folder, store)
    store.close()
    assert "belong to another store" in run("gc", "--data-dir", str(folder), "--grace-hours", "0").stderr
    assert BlobStore(folder / "blobs").contains(digest_of(b"leftover"))


def test_a_folder_from_before_blobs_had_an_owner_is_opened_by_the_store_that_refers_to_them(folder: Path) -> None:
    (folder / "blobs.owner").unlink()
    assert run("gc", "--data-dir", str(folder)).exit_code == 0
    assert (folder / "blobs.owner").exists()


def test_a_sqlite_store_lies_in_its_folder(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="is a SQLite file; that one lies in --data-dir"):
        open_store(tmp_path, f"sqlite:///{tmp_path / 'other.db'}")


# --- what is inconsistent in the store -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("DELETE FROM model_versions", 'model "models/m" has no version'),
        ("DELETE FROM datasets", 'is QUEUED and its dataset "datasets/d" is not there'),
        ("UPDATE jobs SET state = 'SUCCEEDED'", "is SUCCEEDED and has no weights"),
        ("UPDATE jobs SET state = 'RUNNING'", "is RUNNING and its history ends with QUEUED"),
        ("DELETE FROM job_history", "is QUEUED and its history ends with nothing"),
        ("UPDATE job_history SET state = 'RUNNING'", "begins with RUNNING"),
        (
            "INSERT INTO job_history (job, state, reason, time_us, attempt, cause) "
            "SELECT name, 'FINALIZING', '', 0, 0, '' FROM jobs",
            "goes from QUEUED to FINALIZING",
        ),
        ("UPDATE job_history SET job = 'jobs/none'", 'of table "job_history" refers to what is not in "jobs"'),
    ],
)
def test_what_is_inconsistent_in_the_store_is_said(tmp_path: Path, statement: str, fault: str) -> None:
    parts = Parts(tmp_path, FakeLauncher())
    parts.submissions.submit(parts.submission(), cluster_cpus=4)
    assert parts.store.faults() == []
    parts.store.close()
    (tmp_path / "store.db").rename(tmp_path / "chainrule.db")
    with sqlite3.connect(tmp_path / "chainrule.db") as db:
        db.execute(statement)
    db.close()
    found = run("check", "--data-dir", str(tmp_path))
    assert found.exit_code == 1
    assert f"{fault}\n" in found.stdout
    assert any(
        fault in one
        for one in json.loads(run("check", "--data-dir", str(tmp_path), "--format", "json").stdout)["store"]
    )


def test_the_store_is_checked_the_same_on_each_database(url: str) -> None:
    store = Store(url)
    store.create_model(
        Model("models/m", Builtin("small_cnn"), digest_of(b"weights"), 0, 1, datetime.now(UTC)), tenant=DEFAULT_TENANT
    )
    assert store.faults() == []
    assert store.count_jobs() == {}
    assert store.size_bytes() > 4096
    assert not store.is_empty()
    store.close()


# --- folders ---------------------------------------------------------------------------------------------------


def test_who_has_a_folder_is_told(tmp_path: Path) -> None:
    with own(tmp_path) as lock:
        with pytest.raises(StartupError, match=rf"in use by another server \(process {os.getpid()}\); stop"):
            own(tmp_path)
        note_owner(lock, "127.0.0.1:7")
        with pytest.raises(StartupError, match=rf"\(process {os.getpid()}, at 127.0.0.1:7\)"):
            own(tmp_path)
    own(tmp_path).close()


def fail(folder: Path, *, before: Callable[[], object] = lambda: None) -> None:
    """A server that makes a folder and does not come to serve from it."""

    def begin() -> None:
        with removed_on_failure(folder):
            with own(folder):
                store = open_store(folder)
                open_blobs(folder, store)
                store.close()
            before()
            raise StartupError("no Ray")

    with pytest.raises(StartupError, match="no Ray"):
        begin()


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path: Path) -> None:
    fail(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    fail(tmp_path / "a")
    assert (tmp_path / "a" / "chainrule.db").exists()
    fail(tmp_path / "b" / "c", before=(tmp_path / "b" / "other").touch)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["other"]


@pytest.mark.parametrize("what", ["blob", "model", "file", "owner"])
def test_a_folder_that_something_is_in_by_now_stays(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "a"
    taken: list[IO[str]] = []

    def use() -> None:
        if what == "file":
            (folder / "mine").touch()
        elif what == "blob":
            BlobStore(folder / "blobs").put(b"x")
        elif what == "owner":
            taken.append(own(folder))
        else:
            store = open_store(folder)
            store.create_model(
                Model("models/m", Builtin("small_cnn"), digest_of(b"w"), 0, 1, datetime.now(UTC)), tenant=DEFAULT_TENANT
            )
            store.close()

    fail(folder, before=use)
    assert (folder / "chainrule.db").exists()
    for lock in taken:
        lock.close()
