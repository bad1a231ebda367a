"""Attempts that cannot be started: what is waited for, and what ends the job."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chainrule.server.blobs import BlobStore
from chainrule.server.errors import ClusterUnreachableError
from chainrule.server.jobs import policies
from chainrule.server.ray_calls import StoreFullError
from chainrule.server.records import Job, JobState
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.config import Validation
from tests.server.jobs.service_parts import CONFIG, NUM_EXAMPLES, STEPS_PER_EPOCH, FakeAttempt, FakeLauncher, Parts

FULL_STORE = StoreFullError("Ray has no room for an object (OutOfDiskError: ...)")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "FIRST_DELAY_S", 0.001)


async def ended(folder: Path, launcher: FakeLauncher, **config: Any) -> Job:
    parts = Parts(folder, launcher)
    try:
        name = parts.prepared(replace(CONFIG, **config))
        await parts.make_run(name).run()
        return parts.store.get_job(name)
    finally:
        parts.store.close()


async def test_what_the_cluster_cannot_hold_fails_the_job_with_its_size_and_a_remedy(tmp_path: Path) -> None:
    launcher = FakeLauncher(FULL_STORE)
    job = await ended(tmp_path, launcher, validation=Validation(dataset="datasets/v"))
    assert len(launcher.specs) == 1
    assert job.state is JobState.FAILED
    assert job.failure is not None
    assert job.failure.reason == "OBJECT_STORE_FULL"
    [spec] = launcher.specs
    weights = sum(array.nbytes for array in spec.state.weights().values())
    examples = 2 * NUM_EXAMPLES * (64 * 4 + 8)
    assert job.failure.message.startswith(
        f"the cluster cannot hold what {job.name} begins with, {examples:,} bytes of examples and "
        f"{weights:,} bytes of weights and optimizer state: {FULL_STORE.message}; submit it with a smaller dataset"
    )
    assert "ray start --object-store-memory" in job.failure.message


async def test_so_it_does_where_the_job_recovers(tmp_path: Path) -> None:
    launcher = FakeLauncher(1, FULL_STORE)
    job = await ended(tmp_path, launcher)
    assert [change.state.value for change in job.history][-2:] == ["RECOVERING", "FAILED"]
    assert len(launcher.specs) == 2


async def test_an_outage_of_the_same_cluster_is_waited_for(tmp_path: Path) -> None:
    outage = ClusterUnreachableError("Ray does not answer (RpcError: no head)")
    job = await ended(tmp_path, FakeLauncher(outage, outage), max_failures=0)
    assert job.state is JobState.SUCCEEDED


async def test_files_that_cannot_be_reached_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the blobs are on a file system of the network that is away for a while."""
    parts = Parts(tmp_path, FakeLauncher())
    name = parts.prepared(replace(CONFIG, max_failures=0))
    real, failures = BlobStore.read, [OSError(errno.ESTALE, "Stale file handle"), TimeoutError("timed out")] * 2

    def read(blobs: BlobStore, digest: str) -> bytes:
        if failures:
            raise failures.pop()
        return real(blobs, digest)

    monkeypatch.setattr(BlobStore, "read", read)
    await parts.make_run(name).run()
    job = parts.store.get_job(name)
    assert failures == []
    assert job.state is JobState.SUCCEEDED
    parts.store.close()


async def test_a_folder_of_blobs_that_is_away_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is not mounted at the moment: what is in it is neither damaged nor missing."""
    parts = Parts(tmp_path, FakeLauncher(2))
    folder, away = tmp_path / "blobs", tmp_path / "away"
    launch = parts.launcher.launch

    async def launched(spec: AttemptSpec) -> FakeAttempt:
        attempt = await launch(spec)
        if not attempts:
            attempt.on_stop = lambda: attempts.append(folder.rename(away))
        return attempt

    def delay(times: int) -> float:
        if away.exists() and times == 3:
            away.rename(folder)
        return 0.001

    attempts: list[Path] = []
    monkeypatch.setattr(parts.launcher, "launch", launched)
    monkeypatch.setattr(policies, "delay", delay)
    name = parts.prepared(replace(CONFIG, max_failures=1))
    async with asyncio.timeout(30):
        await parts.make_run(name).run()
    job = parts.store.get_job(name)
    assert (job.state, job.failure) == (JobState.SUCCEEDED, None)
    assert parts.launcher.first_steps == [0, 2 * STEPS_PER_EPOCH]
    assert [event.kind for event in job.events] == ["recovery"]
    parts.store.close()


async def test_an_outage_that_is_told_in_other_words_each_time_is_one_entry(tmp_path: Path) -> None:
    outages = [ClusterUnreachableError(text) for text in ("no answer within 10 s", "no connection") * 5]
    job = await ended(tmp_path, FakeLauncher(*outages))
    assert [change.reason for change in job.history if change.state is JobState.RECOVERING] == ["no answer within 10 s"]
    assert job.state is JobState.SUCCEEDED
