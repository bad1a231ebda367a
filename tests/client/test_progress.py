"""The progress of a job: a line per epoch where there is no terminal, one live line on a terminal."""

import io
import re

import pytest
from rich.console import Console

from chainrule.client import JobStatus
from chainrule.client.progress import describe, duration, show_progress
from chainrule.client.status import status_from_message
from chainrule.v1 import job_pb2


def status(*, step: int, state: job_pb2.Job.State.ValueType = job_pb2.Job.STATE_RUNNING) -> JobStatus:
    """A job of 2 epochs with 3 steps each."""
    progress = job_pb2.Progress(
        step=step,
        total_steps=6,
        epoch=(step + 2) // 3,
        total_epochs=2,
        loss=0.25,
        accuracy=0.9,
        examples_per_second=1500,
    )
    progress.eta.FromSeconds(75)
    return status_from_message(job_pb2.Job(name="jobs/1", state=state, progress=progress))


def test_a_running_job_is_described_with_all_that_is_known() -> None:
    assert describe(status(step=4)) == (
        "RUNNING     epoch 2/2  step 4/6  loss 0.2500  accuracy 0.900  1,500 examples/s  ETA 1:15"
    )


def test_a_job_that_has_not_begun_has_no_loss() -> None:
    assert "loss" not in describe(status(step=0))


def test_a_job_that_has_ended_has_no_pace() -> None:
    ended = describe(status(step=6, state=job_pb2.Job.STATE_SUCCEEDED))
    assert ended == "SUCCEEDED   epoch 2/2  step 6/6  loss 0.2500  accuracy 0.900"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (75, "1:15"), (3725, "1:02:05")])
def test_durations_are_minutes_and_seconds(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_without_a_terminal_each_epoch_and_each_state_is_one_line() -> None:
    out = io.StringIO()
    with show_progress(Console(file=out, width=40)) as show:
        for step in range(7):
            show(status(step=step))
        show(status(step=6, state=job_pb2.Job.STATE_SUCCEEDED))
    lines = out.getvalue().splitlines()
    assert [line.split("step ")[1].split("/")[0] for line in lines] == ["0", "1", "4", "6"]
    assert all(line.startswith("jobs/1  ") for line in lines)


def test_on_a_terminal_the_last_status_stands_in_the_end() -> None:
    out = io.StringIO()
    with show_progress(Console(file=out, force_terminal=True, width=120)) as show:
        show(status(step=1))
        show(status(step=6, state=job_pb2.Job.STATE_SUCCEEDED))
    assert "SUCCEEDED   epoch 2/2  step 6/6" in out.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_live_line_stays_one_line_without_cuts(width: int) -> None:
    out = io.StringIO()
    with show_progress(Console(file=out, force_terminal=True, color_system=None, width=width)) as show:
        show(status(step=4))
    lines = [
        line for line in re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "\r", out.getvalue()).split("\r") if "RUNNING" in line
    ]
    assert lines
    for line in lines:
        assert "…" not in line
        assert "epoch 2/2" in line
        assert len(line.rstrip("\n")) <= width
        assert line.rstrip("\n").count("\n") == 0


def test_what_is_missed_least_is_left_out_first() -> None:
    full = describe(status(step=4))
    assert describe(status(step=4), width=len(full)) == full
    assert describe(status(step=4), width=67) == "RUNNING     epoch 2/2  loss 0.2500  accuracy 0.900  ETA 1:15"
    assert describe(status(step=4), width=1) == "RUNNING     epoch 2/2"
