"""What kills and checkpoints cost, from when steps were done."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.distributed.checkpoints import cost
from benchmarks.distributed.recovery import loss


def test_a_worker_s_death_costs_the_time_that_the_steps_come_later() -> None:
    """A step each second, the kill in the middle of the sixth, which takes 3 s longer, the next 1 s."""
    done = [(step, float(step)) for step in range(1, 6)] + [(6, 9.0), (7, 11.0), (8, 12.0), (9, 13.0)]
    found = loss(done, 5.5, warmup_steps=1)
    assert found.step_s == 1
    assert found.resumed_s == 3.5
    assert found.lost_s == 4
    assert found.recomputed_s == 0


def test_steps_that_are_computed_again_are_told_apart() -> None:
    """From the checkpoint after step 3, three seconds after the kill: steps 4 and 5 come a second time."""
    done = [(step, float(step)) for step in range(1, 6)] + [(4, 8.0), (5, 9.0), (6, 10.0), (7, 11.0)]
    found = loss(done, 5.0, warmup_steps=2)
    assert found.resumed_s == 3
    assert found.lost_s == 4
    assert found.recomputed_s == 2
    assert found.beyond_recomputing_s == 2


@pytest.mark.parametrize(("before_s", "after_s"), [(1.0, 2.0), (2.0, 1.0)])
def test_the_pace_is_that_of_the_faster_side_so_that_what_disturbs_the_other_hides_no_loss(
    before_s: float, after_s: float
) -> None:
    done = [(step, step * before_s) for step in range(1, 6)]
    done += [(5 + step, 5 * before_s + step * after_s) for step in range(1, 7)]
    assert loss(done, 5 * before_s, warmup_steps=1).lost_s == 6 * (after_s - 1.0)


def test_a_kill_without_steps_on_both_sides_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="1 steps were done between warm-up and kill, 1 after it"):
        loss([(1, 1.0), (2, 2.0), (3, 3.0)], 2.5, warmup_steps=2)


def test_a_checkpoint_costs_what_the_steps_around_it_take_more_than_the_others() -> None:
    """Steps of 10 ms; every fourth takes a checkpoint and 1 ms more, the one after it 3 ms more."""
    steps_ms = [10, 10, 10, *[11, 13, 10, 10] * 3]
    times_s = [100 + done / 1e3 for done in itertools.accumulate(steps_ms)]
    found = cost(times_s, 4)
    assert found.checkpoint_ms == pytest.approx(4)
    assert found.step_ms == pytest.approx(10)
    assert found.share == pytest.approx(0.1)


def test_without_a_whole_period_there_is_no_cost() -> None:
    with pytest.raises(ValueError, match="6 steps with a checkpoint every 4 have no whole period to measure"):
        cost([float(step) for step in range(6)], 4)
