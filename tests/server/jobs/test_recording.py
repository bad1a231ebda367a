"""What attempts report of their workers, as it becomes the job's state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chainrule.server.jobs.recording import Recorder
from chainrule.server.jobs.submission import make_plan
from chainrule.server.jobs.transitions import Transitions
from chainrule.server.records import Job
from chainrule.server.training.events import Logged, Started, WorkersChanged
from chainrule.server.training.logs import LogEntry
from tests.server.jobs.service_parts import CONFIG, FINGERPRINT, FakeLauncher, Parts

Begin = Callable[[], tuple[Recorder, Callable[[], Job]]]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """A recorder of a job that wants at least 2 workers, and how the job is."""
    parts = Parts(tmp_path, FakeLauncher())

    def make() -> tuple[Recorder, Callable[[], Job]]:
        name = parts.prepared(replace(CONFIG, min_workers=2, max_workers=4))
        job = parts.store.get_job(name)
        model = parts.store.get_model(job.model, tenant="default")
        dataset = parts.store.get_dataset(job.dataset, tenant="default")
        plan = make_plan(model.architecture, dataset, None, job.config)
        recorder = Recorder(
            name,
            plan,
            first_step=0,
            setback=None,
            store=parts.store,
            checkpoints=parts.checkpoints,
            transitions=Transitions(name, parts.store, parts.feed),
            feed=parts.feed,
        )
        return recorder, lambda: parts.store.get_job(name)

    yield make
    parts.store.close()


async def test_workers_are_enough_if_the_attempt_says_so(begin: Begin) -> None:
    """With fewer than the job wanted at first, as when it was scaled to these."""
    recorder, job = begin()
    await recorder.record(Started(4, FINGERPRINT))
    for workers in (1, 3):
        await recorder.record(WorkersChanged(workers, "as asked", enough=True))
        assert (job().state.value, job().running_workers) == ("RUNNING", workers)
    assert [change.state.value for change in job().history] == ["QUEUED", "PREPARING", "RUNNING"]


async def test_workers_are_too_few_until_the_attempt_says_that_they_are_not(begin: Begin) -> None:
    recorder, job = begin()
    await recorder.record(Started(4, FINGERPRINT))
    seen = []
    for workers, enough in ((3, False), (2, False), (3, False), (4, True)):
        await recorder.record(WorkersChanged(workers, f"{workers} are there", enough=enough))
        seen.append((job().state.value, job().running_workers))
    assert seen == [("RECOVERING", 3), ("RECOVERING", 2), ("RECOVERING", 3), ("RUNNING", 4)]
    assert [change.reason for change in job().history[3:]] == ["3 are there", "4 are there"]


async def test_what_an_attempt_has_logged_is_stored_and_rings(begin: Begin) -> None:
    recorder, job = begin()
    bell = recorder._feed.listen_to_logs(job().name)
    await recorder.record(Logged((LogEntry(5, 20, "ready", "worker 1", "n"),)))
    assert bell.is_set()
    [found] = recorder._store.logs(job().name, tenant="default", after_sequence=0, limit=9).entries
    assert (found.source, found.message) == ("worker 1", "ready")
