"""The numbers for Prometheus: names, values, how many series there can be."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError

from chainrule.server.blobs import Announcement, Blob, BlobStore
from chainrule.server.errors import StoreUnavailableError
from chainrule.server.records import JobState
from chainrule.server.store import Store
from chainrule.server.telemetry.attempts import CountingLauncher
from chainrule.server.telemetry.metrics import Metrics, measure_loop_lag
from chainrule.server.training.attempt import Attempt, AttemptSpec
from chainrule.server.training.errors import LostPartError
from chainrule.server.training.events import Event, Failed, Incident, StepsDone
from chainrule.server.training.state import StepMetric
from tests.server.jobs.service_parts import FakeAttempt, FakeLauncher, Parts

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def values(metrics: Metrics) -> dict[str, float]:
    """All samples, as they are scraped: `name{label="value"}` to value."""
    text, _ = metrics.exposition("")
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(kernels="reference")


def test_names_follow_the_conventions(metrics: Metrics, store: Store, blobs: BlobStore) -> None:
    metrics.watch(store, blobs)
    for family in metrics.registry.collect():
        assert re.fullmatch(r"(chainrule|process)_[a-z_]+", family.name), family.name
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_examples"))


def test_the_table_of_the_documentation_has_them_all(metrics: Metrics, store: Store, blobs: BlobStore) -> None:
    metrics.watch(store, blobs)
    table = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    told = {name.removesuffix("_total").removesuffix("_info") for name in re.findall(r"`(chainrule_[a-z_]+)", table)}
    families = metrics.registry.collect()
    assert told - {"chainrule_grpc_call_seconds_bucket"} == {
        family.name for family in families if family.name.startswith("chainrule_")
    }


def test_nothing_is_in_the_registry_that_all_of_the_process_share(metrics: Metrics) -> None:
    shared = {family.name for family in prometheus_client.REGISTRY.collect()}
    assert not any(name.startswith("chainrule") for name in shared)
    Metrics(kernels="reference")  # nor is there only room for one


def test_what_serves_is_told(metrics: Metrics) -> None:
    [build] = [name for name in values(metrics) if name.startswith("chainrule_build_info")]
    assert 'kernels="reference"' in build
    assert 'version="' in build


def test_a_scraper_that_asks_for_openmetrics_gets_it(metrics: Metrics) -> None:
    body, content_type = metrics.exposition(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert metrics.exposition("*/*")[1].startswith("text/plain")


def test_jobs_are_counted_by_state(tmp_path: Path, metrics: Metrics) -> None:
    parts = Parts(tmp_path, FakeLauncher())
    metrics.watch(parts.store, parts.blobs)
    parts.submissions.submit(parts.submission(), cluster_cpus=4)
    parts.submissions.submit(parts.submission(), cluster_cpus=4)
    parts.prepared()
    found = values(metrics)
    assert found['chainrule_jobs{state="QUEUED"}'] == found["chainrule_queue_length"] == 2
    assert found['chainrule_jobs{state="PREPARING"}'] == 1
    assert found['chainrule_jobs{state="FAILED"}'] == 0
    assert sum(name.startswith("chainrule_jobs{") for name in found) == len(JobState)
    assert found["chainrule_store_up"] == 1
    assert found["chainrule_store_size_bytes"] == parts.store.size_bytes() > 4096
    parts.store.close()


def test_a_store_that_does_not_answer_leaves_the_other_numbers(
    store: Store, blobs: BlobStore, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked() -> int:
        raise StoreUnavailableError("the store does not answer") from OperationalError("", {}, Exception())

    monkeypatch.setattr(store, "size_bytes", locked)
    metrics.watch(store, blobs)
    found = values(metrics)
    assert found["chainrule_store_up"] == 0
    assert found["chainrule_blobs"] == 0
    assert not any(name.startswith("chainrule_jobs{") for name in found)


def test_blobs_are_counted_once_a_minute(store: Store, blobs: BlobStore, metrics: Metrics) -> None:
    now_s = 100.0
    metrics.watch(store, blobs, clock=lambda: now_s)
    blobs.put(b"12345")
    assert (values(metrics)["chainrule_blobs"], values(metrics)["chainrule_blobs_size_bytes"]) == (1, 5)
    blobs.put(b"123")
    now_s += 59
    assert values(metrics)["chainrule_blobs"] == 1
    now_s += 1
    assert (values(metrics)["chainrule_blobs"], values(metrics)["chainrule_blobs_size_bytes"]) == (2, 8)


async def test_blobs_that_arrive_are_counted(store: Store, blobs: BlobStore, metrics: Metrics) -> None:
    metrics.watch(store, blobs)
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def parts() -> AsyncIterator[Announcement]:
        yield Announcement(Blob("0" * 64, 5))
        asked.set()
        await go_on.wait()

    uploading = asyncio.create_task(blobs.receive(parts()))
    await asked.wait()
    assert values(metrics)["chainrule_uploads_in_progress"] == 1
    go_on.set()
    await asyncio.gather(uploading, return_exceptions=True)
    assert values(metrics)["chainrule_uploads_in_progress"] == 0


async def test_a_late_loop_is_seen(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop has no time for the measuring for 0.3 s, by its own clock."""
    now_s = 5.0
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        nonlocal now_s
        if slept:
            raise asyncio.CancelledError
        slept.append(delay_s)
        now_s += delay_s + 0.3

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s)
    with pytest.raises(asyncio.CancelledError):
        await measure_loop_lag(metrics, interval_s=2.0)
    monkeypatch.undo()
    found = values(metrics)
    assert slept == [2.0]
    assert found["chainrule_event_loop_lag_seconds_sum"] == pytest.approx(0.3)
    assert found["chainrule_event_loop_lag_seconds_count"] == 1


# --- what attempts report --------------------------------------------------------------------------------------


class Scripted:
    """An attempt that answers each question with the next word of a script."""

    def __init__(self, *script: list[Event] | Exception) -> None:
        self._script = list(script)

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        word = self._script.pop(0)
        if isinstance(word, Exception):
            raise word
        return word


def step(number: int) -> StepsDone:
    return StepsDone((StepMetric(number, 1, 1.0, 0.5, 16, 0.0),))


async def counted(metrics: Metrics, *script: list[Event] | Exception) -> Attempt:
    """What a counting launcher makes of an attempt with this script."""

    class Launcher:
        async def launch(self, spec: AttemptSpec) -> Attempt:
            return cast(Attempt, Scripted(*script))

    return await CountingLauncher(Launcher(), metrics).launch(cast(AttemptSpec, None))


async def test_steps_are_counted_once_though_they_are_told_twice(metrics: Metrics) -> None:
    attempt = await counted(metrics, [step(1), step(2)], [step(2), step(3)], [step(4)])
    assert await attempt.events(0, 1) == [step(1), step(2)]
    assert await attempt.events(1, 1) == [step(2), step(3)]  # the second was not dealt with
    await attempt.events(3, 1)
    assert values(metrics)["chainrule_training_steps_total"] == 4
    assert values(metrics)["chainrule_training_examples_total"] == 64


async def test_recoveries_are_counted_by_cause(metrics: Metrics) -> None:
    events: list[Event] = [
        Incident("recovery", "a worker died", 1),
        Incident("straggler", "late", 1),
        Incident("scaled", "is none", 1),
        Failed("ANYTHING", "gave up", "", lost=True),
        Failed("NOT_FINITE", "is none", "", lost=False),
    ]
    attempt = await counted(metrics, events, LostPartError("gone"))
    await attempt.events(0, 1)
    with pytest.raises(LostPartError):
        await attempt.events(5, 1)
    found = {name: value for name, value in values(metrics).items() if "recoveries_total" in name}
    assert found == {
        f'chainrule_training_recoveries_total{{cause="{cause}"}}': 1
        for cause in ("part_lost", "straggler", "attempt_lost", "coordinator_lost")
    }


async def test_a_counted_attempt_does_what_it_is_asked(tmp_path: Path, metrics: Metrics) -> None:
    parts = Parts(tmp_path, FakeLauncher())
    launcher = CountingLauncher(parts.launcher, metrics)
    parts.launcher = launcher  # type: ignore[assignment]
    await parts.manager.start()
    job = await parts.manager.submit(parts.submission())
    ended = await parts.ended(job.name)
    await parts.manager.stop()
    assert ended.state is JobState.SUCCEEDED
    assert values(metrics)["chainrule_training_steps_total"] == ended.progress.total_steps
    assert isinstance(launcher._launcher, FakeLauncher)
    [attempt] = launcher._launcher.attempts
    assert isinstance(attempt, FakeAttempt)
    assert attempt.stopped
    parts.store.close()
