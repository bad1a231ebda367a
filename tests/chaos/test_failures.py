"""What is the job's own fault ends it, with what it was; what is not computes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chainrule.server.training.config import Sgd
from chainrule.server.training.events import Event, Failed, Finished
from chainrule.server.training.examples import Examples
from tests.chaos.jobs import Job, assert_same_bits, cnn, disturbed, fault, fault_free


def failed(event: Event) -> Failed:
    assert isinstance(event, Failed)
    return event


@pytest.mark.parametrize("workers", [1, 3])
async def test_the_same_exception_twice_fails_the_job_with_the_traceback(workers: int, tmp_path: Path) -> None:
    found = await disturbed(cnn(), tmp_path, fault("worker.compute", "raise", step=7, often=True), workers=workers)
    last = failed(found.last)
    assert last.reason == "TRAINING_ERROR"
    assert last.message == "two workers failed in the same way: a fault on purpose"
    assert "Traceback" in last.traceback
    assert "ArithmeticError: a fault on purpose" in last.traceback
    assert not last.lost
    assert found.steps == list(range(1, len(found.steps) + 1))
    assert len(found.steps) < 7


async def test_an_exception_that_does_not_come_again_costs_a_worker_only(tmp_path: Path) -> None:
    job = cnn()
    found = await disturbed(job, tmp_path, fault("worker.compute", "raise", step=7), workers=2)
    await assert_same_bits(found, job)
    assert "failed: a fault on purpose" in found.incidents_of("recovery")[0]


def with_nan(job: Job, example: int) -> Job:
    """The job with one example that is not a number."""
    inputs = job.data.inputs.copy()
    inputs[example] = np.nan
    return replace(job, data=Examples(inputs, job.data.targets))


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_loss_that_is_not_a_number_fails_the_job_and_names_the_step(workers: int, tmp_path: Path) -> None:
    job = cnn()
    step = next(s for s in range(job.plan.total_steps) if 17 in job.plan.batch(s)) + 1
    found = await disturbed(with_nan(job, 17), tmp_path, workers=workers)
    last = failed(found.last)
    assert last.reason == "NON_FINITE"
    assert last.message.startswith(f"the loss is nan at step {step} (epoch 1), in shard ")
    assert not last.lost
    assert found.steps == list(range(1, step))


async def test_weights_that_blow_up_fail_the_job(tmp_path: Path) -> None:
    job = cnn(optimizer=Sgd(lr=1e30))
    last = failed((await disturbed(job, tmp_path, workers=2)).last)
    assert last.reason == "NON_FINITE"
    assert " is not finite " in last.message or "the loss is " in last.message


async def test_a_step_that_is_not_finite_can_be_left_out(tmp_path: Path) -> None:
    job = with_nan(cnn(non_finite="skip"), 17)
    step = next(s for s in range(job.plan.total_steps) if 17 in job.plan.batch(s)) + 1
    expected = await fault_free(job)
    assert isinstance(expected.last, Finished)
    assert all(np.isfinite(array).all() for array in expected.state.parameters.values())
    assert expected.state.updates == expected.state.step - job.plan.config.epochs
    found = await disturbed(job, tmp_path, fault("partition.push", "kill", step=step + 1), workers=2)
    await assert_same_bits(found, job)
    assert any(f" at step {step} (epoch 1), in shard" in text for text in found.incidents_of("skipped"))


# --- who may compute -------------------------------------------------------------------------------------------


async def test_a_worker_with_other_kernels_is_refused_and_named(tmp_path: Path) -> None:
    job = cnn()
    fingerprint = (await fault_free(job)).fingerprint
    found = await disturbed(
        job,
        tmp_path,
        workers=2,
        together=False,
        start="spawn",
        fingerprint=fingerprint,
        variables=numpy_for("worker 2"),
    )
    await assert_same_bits(found, job)
    [message] = found.incidents_of("refused")
    assert message.startswith("worker 2 on this machine does not compute as the job began (")
    assert "kernels: reference here, onednn" in message


@pytest.mark.whole
async def test_an_attempt_where_nobody_may_compute_fails(tmp_path: Path) -> None:
    job = cnn()
    fingerprint = (await fault_free(job)).fingerprint
    found = await disturbed(
        job, tmp_path, together=False, start="spawn", fingerprint=fingerprint, variables=numpy_for("worker 1")
    )
    last = failed(found.last)
    assert (last.reason, last.lost) == ("FINGERPRINT_MISMATCH", False)
    assert "submit with exact: false" in last.message


@pytest.mark.whole
async def test_a_job_that_need_not_be_exact_takes_any_worker(tmp_path: Path) -> None:
    job = cnn(exact=False)
    fingerprint = (await fault_free(job)).fingerprint
    found = await disturbed(
        job, tmp_path, together=False, start="spawn", fingerprint=fingerprint, variables=numpy_for("worker 1")
    )
    assert isinstance(found.last, Finished)
    assert found.incidents_of("refused") == []


def numpy_for(chosen: str) -> Callable[[str], dict[str, str]]:
    """Has one part compute with numpy alone."""
    return lambda part: {"CHAINRULE_KERNELS": "reference"} if part == chosen else {}
