"""Learning rates over the steps of a job."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.server.training.config import Schedule, Validation


def factors(schedule: Schedule, total_steps: int) -> list[float]:
    return [schedule.factor(step, total_steps) for step in range(total_steps)]


def test_without_a_schedule_the_rate_stays() -> None:
    assert factors(Schedule(), 3) == [1.0, 1.0, 1.0]


def test_a_rise_is_linear_and_ends_at_one() -> None:
    assert factors(Schedule(warmup_steps=3), 5) == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_rise_longer_than_the_job_is_cut() -> None:
    assert factors(Schedule(warmup_steps=9, decay="cosine"), 3) == [0.1, 0.2, 0.3]


def test_drops_come_after_every_so_many_steps() -> None:
    assert factors(Schedule(decay="step", decay_steps=2, gamma=0.5), 6) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_drops_are_counted_from_the_end_of_the_rise() -> None:
    schedule = Schedule(warmup_steps=1, decay="step", decay_steps=2, gamma=0.1)
    assert factors(schedule, 6) == [0.5, 1.0, 1.0, 0.1, 0.1, pytest.approx(0.01)]


def test_a_linear_fall_takes_the_steps_that_are_left() -> None:
    assert factors(Schedule(decay="linear"), 4) == [1.0, 0.75, 0.5, 0.25]
    assert factors(Schedule(warmup_steps=1, decay="linear", final_factor=0.5), 5) == [0.5, 1.0, 0.875, 0.75, 0.625]


def test_a_fall_ends_where_it_should() -> None:
    for decay in ("linear", "cosine"):
        schedule = Schedule(decay=decay, decay_steps=2, final_factor=0.2)
        assert factors(schedule, 5)[2:] == [pytest.approx(0.2)] * 3


def test_a_cosine_falls_along_half_a_period() -> None:
    expected = [0.5 * (1 + math.cos(math.pi * share)) for share in (0, 0.25, 0.5, 0.75)]
    assert factors(Schedule(decay="cosine"), 4) == pytest.approx(expected)


@given(
    st.integers(0, 8),
    st.sampled_from(["none", "step", "linear", "cosine"]),
    st.integers(0, 8),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.integers(1, 25),
)
def test_no_factor_is_negative_or_above_one(
    warmup: int, decay: str, length: int, gamma: float, final: float, total: int
) -> None:
    schedule = Schedule(warmup, decay, length, gamma, final)  # type: ignore[arg-type]
    found = factors(schedule, total)
    assert all(0.0 <= factor <= 1.0 + 1e-12 for factor in found)
    assert found[: min(warmup, total)] == sorted(found[: min(warmup, total)])
    assert found[warmup:] == sorted(found[warmup:], reverse=True)


def test_validation_is_wanted_for_a_dataset_or_a_share() -> None:
    assert not Validation(patience=3).wanted
    assert Validation(dataset="datasets/d").wanted
    assert Validation(fraction=0.1).wanted
