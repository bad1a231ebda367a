"""How jobs get into other states: what is told of each change, and the version of a model that the last one makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chainrule.server.jobs import policies
from chainrule.server.records import Cause, JobState
from chainrule.server.training.events import Failed
from tests.server.jobs.service_parts import CONFIG, TENANT, FakeLauncher, Parts


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "FIRST_DELAY_S", 0.001)


async def test_changes_of_state_say_what_brought_them_about_and_in_which_attempt(tmp_path: Path) -> None:
    parts = Parts(tmp_path, FakeLauncher(1))
    name = parts.prepared()
    await parts.make_run(name).run()
    told = [(change.state.value, change.cause, change.attempt) for change in parts.store.get_job(name).history]
    assert told == [
        ("QUEUED", Cause.REQUEST, 0),
        ("PREPARING", Cause.CAPACITY, 0),
        ("RUNNING", Cause.TRAINING, 1),
        ("RECOVERING", Cause.LOSS, 1),
        ("RUNNING", Cause.TRAINING, 2),
        ("FINALIZING", Cause.TRAINING, 2),
        ("SUCCEEDED", Cause.TRAINING, 2),
    ]
    parts.store.close()


async def test_what_is_wrong_with_a_job_is_the_cause_of_its_end(tmp_path: Path) -> None:
    parts = Parts(tmp_path, FakeLauncher(lambda _: [Failed("NON_FINITE", "the loss is nan", "", lost=False)]))
    name = parts.prepared()
    await parts.make_run(name).run()
    last = parts.store.get_job(name).history[-1]
    assert (last.state, last.cause) == (JobState.FAILED, Cause.FAILURE)
    parts.store.close()


async def test_a_job_begins_with_the_weights_of_its_version_and_makes_the_next(tmp_path: Path) -> None:
    parts = Parts(tmp_path, FakeLauncher())
    first = parts.prepared()
    await parts.make_run(first).run()
    second, _ = parts.submissions.submit(
        replace(parts.submission(replace(CONFIG, epochs=1)), model="models/m/versions/latest"), cluster_cpus=4
    )
    parts.store.transition(second.name, JobState.PREPARING)
    await parts.make_run(second.name).run()
    begun = parts.launcher.specs[1].state
    assert (begun.step, {float(array.max()) for array in begun.parameters.values()}) == (0, {12.0})  # as `state_after`
    versions = [(job.source_version, job.result_version) for job in map(parts.store.get_job, (first, second.name))]
    assert versions == [(1, 2), (2, 3)]
    inputs = parts.store.inputs(TENANT, model="models/m", version=None, dataset="datasets/d")
    assert (inputs.version, inputs.model.weights_digest) == (3, parts.store.get_job(second.name).weights_digest)
    parts.store.close()
