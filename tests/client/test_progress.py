"""The progress of a job: a line now and then where there is no terminal, one live line on a terminal."""

import io
import re

import pytest
from rich.console import Console

from chainrule.client import JobStatus
from chainrule.client.progress import describe, duration, show_progress
from chainrule.client.status import status_from_message
from chainrule.v1 import job_pb2

RUNNING, RECOVERING = job_pb2.Job.STATE_RUNNING, job_pb2.Job.STATE_RECOVERING


def status(*, step: int, state: job_pb2.Job.State.ValueType = RUNNING, workers: int = 0, reason: str = "") -> JobStatus:
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
    history = [job_pb2.StateChange(state=state, reason=reason)]
    return status_from_message(
        job_pb2.Job(name="jobs/1", state=state, progress=progress, running_workers=workers, history=history)
    )


def test_a_running_job_is_described_with_all_that_is_known() -> None:
    assert describe(status(step=4)) == (
        "RUNNING     epoch 2/2  step 4/6  loss 0.2500  accuracy 0.900  1,500 examples/s  ETA 1:15"
    )


def test_a_job_that_has_not_begun_has_no_loss() -> None:
    assert "loss" not in describe(status(step=0))


def test_a_job_that_has_ended_has_no_pace() -> None:
    ended = describe(status(step=6, state=job_pb2.Job.STATE_SUCCEEDED))
    assert ended == "SUCCEEDED   epoch 2/2  step 6/6  loss 0.2500  accuracy 0.900"


def test_a_running_job_says_how_many_workers_it_has() -> None:
    assert describe(status(step=4, workers=1)).endswith("ETA 1:15  1 worker")
    assert describe(status(step=4, workers=2)).endswith("ETA 1:15  2 workers")
    assert "worker" not in describe(status(step=6, workers=2, state=job_pb2.Job.STATE_SUCCEEDED))


@pytest.mark.parametrize("state", ["QUEUED", "RECOVERING", "PAUSING", "PAUSED"])
def test_a_job_that_stands_still_says_why_in_place_of_its_pace(state: str) -> None:
    standing = status(step=4, state=job_pb2.Job.State.Value(f"STATE_{state}"), workers=1, reason="as asked\nby Ada")
    assert describe(standing) == (
        f"{state:<10}  epoch 2/2  step 4/6  loss 0.2500  accuracy 0.900  1 worker  (as asked)"
    )


def test_a_reason_is_not_told_of_a_job_that_goes_on() -> None:
    assert "(" not in describe(status(step=4, reason="the cluster has room"))


def test_why_a_job_stands_still_is_left_out_last() -> None:
    standing = status(step=4, state=RECOVERING, workers=1, reason="worker 2 is gone")
    assert describe(standing, width=50) == "RECOVERING  epoch 2/2  (worker 2 is gone)"
    assert describe(standing, width=30) == "RECOVERING  epoch 2/2"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (75, "1:15"), (3725, "1:02:05")])
def test_durations_are_minutes_and_seconds(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def lines_of(steps: range, *, total: int, seconds_per_step: float) -> list[int]:
    """The steps at which a line is printed, of a job that runs without a terminal."""
    out, now = io.StringIO(), 100.0
    with show_progress(Console(file=out, width=40), clock=lambda: now) as show:
        for step in steps:
            now += seconds_per_step
            message = job_pb2.Job(name="jobs/1", state=RUNNING)
            message.progress.step, message.progress.total_steps = step, total
            show(status_from_message(message))
    lines = out.getvalue().splitlines()
    assert all(line.startswith("jobs/1  ") for line in lines)
    return [int(line.split("step ")[1].split("/")[0]) for line in lines]


def test_without_a_terminal_each_tenth_of_the_training_is_one_line() -> None:
    assert lines_of(range(101), total=100, seconds_per_step=0.0) == list(range(0, 101, 10))


def test_without_a_terminal_a_slow_training_is_a_line_every_ten_seconds() -> None:
    assert lines_of(range(9), total=1000, seconds_per_step=4.0) == [0, 3, 6]
    assert lines_of(range(3), total=1000, seconds_per_step=60.0) == [0, 1, 2]


def test_without_a_terminal_each_state_is_one_line() -> None:
    out = io.StringIO()
    with show_progress(Console(file=out, width=40), clock=lambda: 0.0) as show:
        show(status(step=6))
        show(status(step=6))
        show(status(step=6, state=job_pb2.Job.STATE_SUCCEEDED))
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["RUNNING", "SUCCEEDED"]


def test_without_a_terminal_another_number_of_workers_is_one_line() -> None:
    out = io.StringIO()
    with show_progress(Console(file=out)) as show:
        for workers in (4, 4, 3, 3, 4):
            show(status(step=4, workers=workers))
    assert [line.rsplit("  ", 1)[1] for line in out.getvalue().splitlines()] == ["4 workers", "3 workers", "4 workers"]


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
