"""A random schedule of kills, halts, pauses and changes of size. `make chaos` plays more of them, from any seed."""

from __future__ import annotations

import pytest

from tests.chaos.schedule import make_round, play

SEED = 20261123


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.whole)])
async def test_a_job_under_a_random_schedule_gives_the_same_bits(number: int) -> None:
    tally = await play(make_round(SEED, number))
    assert tally.kills > 0


def test_a_seed_gives_the_same_schedule_every_time_and_another_seed_another() -> None:
    assert make_round(1, 0) == make_round(1, 0)
    assert len({make_round(seed, number) for seed in range(10) for number in range(10)}) == 100
