"""How long a job has been in its states."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from chainrule.server.jobs.timings import Timings, timings
from chainrule.server.records import JobState, StateChange

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def history(*changes: tuple[str, float]) -> list[StateChange]:
    return [StateChange(JobState[state], at(seconds), "") for state, seconds in changes]


def test_time_counts_in_the_state_that_it_was_spent_in() -> None:
    changes = history(
        ("QUEUED", 0),
        ("PREPARING", 1),
        ("RUNNING", 3),
        ("RECOVERING", 7),
        ("RUNNING", 15),
        ("PAUSING", 31),
        ("PAUSED", 63),
        ("QUEUED", 127),
        ("PREPARING", 255),
        ("RUNNING", 511),
        ("FINALIZING", 1023),
        ("SUCCEEDED", 2047),
    )
    spent = timings(changes, now=at(5000))
    assert spent == Timings(
        queued_s=1 + 128, preparing_s=2 + 256, running_s=4 + 16 + 512, recovering_s=8, paused_s=32 + 64, ending_s=1024
    )


def test_the_present_state_counts_up_to_now() -> None:
    assert timings(history(("QUEUED", 0), ("PREPARING", 2)), now=at(5)) == Timings(queued_s=2, preparing_s=3)
    assert timings(history(("QUEUED", 0), ("CANCELLING", 2)), now=at(2.5)) == Timings(queued_s=2, ending_s=0.5)


def test_a_clock_that_was_set_back_takes_no_time_away() -> None:
    assert timings(history(("QUEUED", 10), ("PREPARING", 4)), now=at(5)) == Timings(preparing_s=1)


def test_without_a_history_there_are_no_timings() -> None:
    assert timings([], now=at(5)) == Timings()
