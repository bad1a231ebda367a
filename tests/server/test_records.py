"""The states of a job."""

from __future__ import annotations

import pytest

from chainrule.server.records import TRANSITIONS, JobState
from chainrule.v1 import job_pb2


def test_every_state_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(JobState)


def test_terminal_states_are_the_three_ends() -> None:
    assert {state for state in JobState if state.terminal} == {
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.CANCELLED,
    }


@pytest.mark.parametrize("state", [state for state in JobState if not state.terminal])
def test_every_state_that_is_not_an_end_can_reach_all_ends(state: JobState) -> None:
    reached, frontier = set(), {state}
    while frontier:
        reached |= frontier
        frontier = {after for before in frontier for after in TRANSITIONS[before]} - reached
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED} <= reached


def test_states_are_those_of_the_api() -> None:
    api = {name.removeprefix("STATE_") for name in job_pb2.Job.State.keys()} - {"UNSPECIFIED"}  # noqa: SIM118
    assert api == {state.value for state in JobState}
