"""A data folder as a file and back: whole or not at all, and nothing but what the list in it has."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from chainrule.server import admin, backup
from chainrule.server.access import NewToken, TokenCatalog, digest_of
from chainrule.server.backup import MANIFEST, restore_backup
from chainrule.server.blobs import BlobStore
from chainrule.server.data_folder import open_blobs, open_store, own
from chainrule.server.errors import BackupError, StartupError
from chainrule.server.records import JobState
from chainrule.server.store import PageRequest, Store
from chainrule.server.store.schema import DEFAULT_TENANT
from tests.server.jobs.service_parts import FakeLauncher, Parts

app = typer.Typer()
app.command()(admin.backup)
app.command()(admin.restore)
app.command()(admin.check)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A data folder with a job that has ended, one that has not, and a blob that nothing refers to."""
    path = tmp_path / "data"
    path.mkdir()
    parts = Parts(path, FakeLauncher())
    await parts.manager.start()
    job = await parts.manager.submit(parts.submission())
    assert (await parts.ended(job.name)).state is JobState.SUCCEEDED
    await parts.manager.stop()
    parts.submissions.submit(parts.submission(), cluster_cpus=4)
    parts.store.close()
    (path / "store.db").rename(path / "chainrule.db")
    store = open_store(path)
    open_blobs(path, store).put(b"leftover")
    store.close()
    return path


def content(folder: Path) -> tuple[Any, dict[str, bytes]]:
    """All jobs, models and datasets, and all blobs that something refers to."""
    store = open_store(folder)
    blobs = open_blobs(folder, store)
    found = {digest: blobs.read(digest) for digest in store.references()}
    jobs = store.list_jobs(PageRequest(100), tenant=DEFAULT_TENANT)
    rows = (jobs, [store.get_job(job.name) for job in jobs[0]], store.identity())
    store.close()
    return rows, found


def test_what_was_there_is_there_again(folder: Path, tmp_path: Path) -> None:
    file, new = tmp_path / "b.tar", tmp_path / "deep" / "new"
    before = content(folder)
    made = run("backup", "--data-dir", folder, "--to", file)
    assert made.exit_code == 0, made.stderr
    assert f"wrote the store and {len(before[1])} blobs" in made.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "data"]
    restored = run("restore", "--from", file, "--data-dir", new)
    assert restored.exit_code == 0, restored.stderr
    assert f"chainrule serve --data-dir {new}" in restored.stdout
    assert content(new) == before == content(folder)
    assert not BlobStore(new / "blobs").contains(hashlib.sha256(b"leftover").hexdigest())
    assert stat.S_IMODE(new.stat().st_mode) == 0o700
    assert run("check", "--data-dir", new).exit_code == 0
    assert sorted(path.name for path in new.parent.iterdir()) == ["new"]


def test_the_copy_of_the_store_is_its_owners_alone_while_it_is_made(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: dict[str, int] = {}
    copy_to = Store.copy_to

    def look(store: Store, path: Path) -> None:
        modes["before"] = stat.S_IMODE(path.stat().st_mode)
        copy_to(store, path)
        modes["after"] = stat.S_IMODE(path.stat().st_mode)

    monkeypatch.setattr(Store, "copy_to", look)
    before = os.umask(0o022)
    try:
        assert run("backup", "--data-dir", str(folder), "--to", str(tmp_path / "b.tar")).exit_code == 0
    finally:
        os.umask(before)
    assert modes == {"before": 0o600, "after": 0o600}
    assert stat.S_IMODE((tmp_path / "b.tar").stat().st_mode) == 0o600


def test_after_a_restore_it_is_said_which_tokens_are_good(folder: Path, tmp_path: Path) -> None:
    def change(done: Callable[[TokenCatalog], object]) -> None:
        store = open_store(folder)
        done(TokenCatalog(store))
        store.close()

    def add(tokens: TokenCatalog) -> None:
        ends = datetime.now(UTC) + timedelta(days=1)
        for name, expire_time in (("revoked-before", None), ("revoked-since", None), ("expiring", ends)):
            tokens.create(NewToken(name, "t", ("read",), digest_of(name), expire_time=expire_time), tenant="t")
        tokens.revoke("tokens/revoked-before")

    change(add)
    file = tmp_path / "b.tar"
    assert run("backup", "--data-dir", str(folder), "--to", str(file)).exit_code == 0
    change(lambda tokens: tokens.revoke("tokens/revoked-since"))
    restored = run("restore", "--from", str(file), "--data-dir", str(tmp_path / "again"))
    assert (
        "these tokens are good, also if they were revoked since: tokens/expiring, tokens/revoked-since"
        in restored.stdout
    )
    told = run("restore", "--from", str(file), "--data-dir", str(tmp_path / "json"), "--format", "json").stdout
    assert json.loads(told)["good_tokens"] == ["tokens/expiring", "tokens/revoked-since"]


def test_a_backup_says_what_it_has_as_json(folder: Path, tmp_path: Path) -> None:
    made = json.loads(run("backup", "--data-dir", folder, "--to", tmp_path / "b.tar", "--format", "json").stdout)
    back = json.loads(
        run("restore", "--from", tmp_path / "b.tar", "--data-dir", tmp_path / "n", "--format", "json").stdout
    )
    assert made.pop("file") == str(tmp_path / "b.tar")
    assert back.pop("data_dir") == str(tmp_path / "n")
    assert back.pop("good_tokens") == []
    assert made == back
    assert (made["store"], made["left_out"]) == (True, [])


def test_nothing_is_written_over(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_text("mine")
    found = run("backup", "--data-dir", folder, "--to", tmp_path / "b.tar")
    assert found.exit_code == 1
    assert "b.tar is there already; choose another name" in found.stderr
    assert (tmp_path / "b.tar").read_text() == "mine"
    assert run("backup", "--data-dir", folder, "--to", tmp_path / "c.tar").exit_code == 0
    for there in ("empty", "link"):
        (tmp_path / "empty").mkdir() if there == "empty" else (tmp_path / "link").symlink_to("nowhere")
        found = run("restore", "--from", tmp_path / "c.tar", "--data-dir", tmp_path / there)
        assert found.exit_code == 1
        assert "is there already; name a folder that is not there yet" in found.stderr
    assert list((tmp_path / "empty").iterdir()) == []


def test_the_folder_of_a_running_server_is_not_copied(folder: Path, tmp_path: Path) -> None:
    with own(folder):
        found = run("backup", "--data-dir", folder, "--to", tmp_path / "b.tar")
    assert found.exit_code == 1
    assert "is in use by another server" in found.stderr
    assert not (tmp_path / "b.tar").exists()


def test_a_backup_that_is_interrupted_leaves_no_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "_add_blob", full)
    found = run("backup", "--data-dir", folder, "--to", tmp_path / "b.tar")
    assert found.exit_code == 1
    assert "No space left" in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def damage(folder: Path) -> str:
    """Change a blob that something refers to; returns its digest."""
    store = open_store(folder)
    digest = min(store.references())
    BlobStore(folder / "blobs").path(digest).write_bytes(b"other")
    store.close()
    return digest


def test_a_damaged_blob_is_named_or_left_out_on_demand(folder: Path, tmp_path: Path) -> None:
    digest = damage(folder)
    found = run("backup", "--data-dir", folder, "--to", tmp_path / "b.tar")
    assert found.exit_code == 1
    assert "1 blobs are damaged or missing" in found.stderr
    assert not (tmp_path / "b.tar").exists()
    found = run("backup", "--data-dir", folder, "--to", tmp_path / "b.tar", "--skip-damaged")
    assert found.exit_code == 0
    assert f"left out: {digest}" in found.stdout
    assert restore_backup(tmp_path / "b.tar", tmp_path / "new").left_out == (digest,)


# --- what is no backup, or not whole any more ------------------------------------------------------------------

Member = tuple[tarfile.TarInfo, bytes]


def members(file: Path) -> list[Member]:
    with tarfile.open(file) as tar:
        return [(one, tar.extractfile(one).read()) for one in tar]  # type: ignore[union-attr]


def write(file: Path, changed: list[Member]) -> None:
    with tarfile.open(file, "w") as tar:
        for info, data in changed:
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))


def info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def listed(found: list[Member], **changes: Any) -> list[Member]:
    """The same with another manifest."""
    values = {**json.loads(found[0][1]), **changes}
    return [(info(MANIFEST), json.dumps(values).encode()), *found[1:]]


def renamed(found: list[Member], name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> list[Member]:
    return [*found[:-1], (info(name, kind, target), found[-1][1])]


def last_as(kind: bytes) -> Callable[[list[Member]], list[Member]]:
    return lambda found: renamed(found, found[-1][0].name, kind, "/etc/passwd")


WRONG: dict[str, tuple[Callable[[list[Member]], list[Member]], str]] = {
    "empty": (lambda found: [], "it does not begin with manifest.json"),
    "no manifest": (lambda found: found[1:], "it does not begin with manifest.json"),
    "a link as manifest": (
        lambda found: [(info(MANIFEST, tarfile.SYMTYPE, "/etc/passwd"), b""), *found[1:]],
        "it does not begin with manifest.json",
    ),
    "not json": (lambda found: [(info(MANIFEST), b"{"), *found[1:]], "is not one of chainrule"),
    "deep json": (lambda found: [(info(MANIFEST), b"[" * 10**6), *found[1:]], "is not one of chainrule"),
    "a list": (lambda found: [(info(MANIFEST), b"[]"), *found[1:]], "is not one of chainrule"),
    "a later format": (lambda found: listed(found, format=2), "has format 2; this version reads 1"),
    "a path as digest": (lambda found: listed(found, blobs={"../../x": 1}), "is not one of chainrule"),
    "a negative size": (lambda found: listed(found, blobs={"0" * 64: -1}), "is no size"),
    "more than there is room for": (
        lambda found: listed(found, blobs={f"{i:064x}": 2**36 for i in range(2**12)}),
        "are free at",
    ),
    "another store": (lambda found: listed(found, identity="0" * 32), "belong to another store"),
    "a file is missing": (lambda found: found[:-1], "1 files are missing"),
    "a file too many": (lambda found: [*found, (info("blobs/x"), b"")], "holds 'blobs/x', which"),
    "a file twice": (lambda found: [*found, found[-1]], "which its manifest.json does not have like that"),
    "a path upwards": (lambda found: renamed(found, "../../etc/x"), "holds '../../etc/x', which"),
    "an absolute path": (lambda found: renamed(found, "/etc/x"), "holds '/etc/x', which"),
    "a symbolic link": (last_as(tarfile.SYMTYPE), "which its manifest.json does not have like that"),
    "a hard link": (last_as(tarfile.LNKTYPE), "which its manifest.json does not have like that"),
    "a folder": (last_as(tarfile.DIRTYPE), "which its manifest.json does not have like that"),
    "a device": (last_as(tarfile.CHRTYPE), "which its manifest.json does not have like that"),
    "more than announced": (
        lambda found: [*found[:-1], (found[-1][0], found[-1][1] + b"x")],
        "which its manifest.json does not have like that",
    ),
    "a flipped bit in a blob": (
        lambda found: [*found[:-1], (found[-1][0], bytes([found[-1][1][0] ^ 1]) + found[-1][1][1:])],
        "is damaged in the backup: its SHA-256 is",
    ),
    "a flipped bit in the store": (
        lambda found: [found[0], (found[1][0], found[1][1][:-1] + bytes([found[1][1][-1] ^ 1])), *found[2:]],
        "chainrule.db is damaged in the backup",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_and_nothing_is_made(folder: Path, tmp_path: Path, what: str) -> None:
    file, bad = tmp_path / "b.tar", tmp_path / "bad.tar"
    assert run("backup", "--data-dir", folder, "--to", file).exit_code == 0
    change, message = WRONG[what]
    write(bad, change(members(file)))
    with pytest.raises((BackupError, StartupError), match=message.replace("[", r"\[")):
        restore_backup(bad, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "bad.tar", "data"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_not_restored(folder: Path, tmp_path: Path, share: float) -> None:
    file = tmp_path / "b.tar"
    assert run("backup", "--data-dir", folder, "--to", file).exit_code == 0
    os.truncate(file, int(file.stat().st_size * share))
    with pytest.raises(BackupError):
        restore_backup(file, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = run("restore", "--from", tmp_path / "none.tar", "--data-dir", tmp_path / "new")
    assert found.exit_code == 1
    assert "none.tar" in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_of_postgresql_the_blobs_are_copied_and_the_rest_is_said(
    postgresql_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from tests.server.postgresql import emptied

    url = emptied(postgresql_url)
    path = tmp_path / "data"
    path.mkdir()
    store = open_store(path, url)
    open_blobs(path, store)
    identity = store.identity()
    store.close()
    made = run("backup", "--data-dir", path, "--store-url", url, "--to", tmp_path / "b.tar")
    assert made.exit_code == 0, made.stderr
    assert "wrote no rows (pg_dump copies those) and 0 blobs" in made.stdout
    found = run("restore", "--from", tmp_path / "b.tar", "--data-dir", tmp_path / "new")
    assert "the rows are not in this backup" in found.stdout
    assert (tmp_path / "new" / "blobs.owner").read_text() == identity
    assert not (tmp_path / "new" / "chainrule.db").exists()
