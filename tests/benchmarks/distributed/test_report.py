"""The figures that follow from when steps were done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.distributed.report import Row, cells, gather, table
from benchmarks.distributed.times import Side, StepTimes, mean_losses
from benchmarks.distributed.variants import FUSED, PLAIN
from benchmarks.distributed.works import Work

WORK = Work(
    name="m",
    title="MLP",
    network="mlp",
    batch=8,
    shape=(5, 7, 3),
    warmup_steps=2,
    steps=3,
    goal=2.0,
    scaling_goal=0.9,
)


def run(*steps_ms: float, losses: tuple[float, ...] = (2.0, 1.0), parameters: int = 7) -> StepTimes:
    """A run whose steps after warming up took these times."""
    times_s = [100.0, 107.0]
    for time in steps_ms:
        times_s.append(times_s[-1] + time / 1e3)
    return StepTimes(8, 2, tuple(times_s), losses, parameters, "software")


def side(*runs: StepTimes) -> Side:
    return Side(runs)


def test_steps_are_timed_from_the_end_of_the_one_before_after_warming_up() -> None:
    times = run(10, 20, 60)
    assert times.steps_ms == pytest.approx([10, 20, 60], rel=1e-6)
    assert times.window_ms == pytest.approx(90, rel=1e-6)


def test_a_side_has_the_median_of_all_rounds_and_the_mean_of_the_best() -> None:
    found = side(run(10, 20, 60), run(10, 10, 40))
    assert found.median_ms == pytest.approx(15, rel=1e-6)
    assert found.mean_ms == pytest.approx(20, rel=1e-6)
    assert found.examples_per_s == pytest.approx(8 / 0.015, rel=1e-6)


def test_the_ratio_is_to_the_best_way_to_run_ddp() -> None:
    row = gather(
        WORK,
        ours=side(run(10, 10, 40)),
        single=side(run(18, 18, 18)),
        ddp={PLAIN: side(run(60, 60, 60)), FUSED: side(run(30, 30, 30))},
    )
    assert row.best is not None
    assert row.best[0] == FUSED
    assert row.ratio == pytest.approx(3, rel=1e-6)
    assert row.mean_ratio == pytest.approx(1.5, rel=1e-6)
    assert row.scaling == pytest.approx(0.9, rel=1e-6)
    assert row.summary == "m: ratio 3.00, scaling 0.90"
    assert row.problems == ()


@pytest.mark.parametrize(("ddp_ms", "single_ms", "met"), [(21, 19, True), (19, 19, False), (21, 17, False)])
def test_both_goals_count(ddp_ms: float, single_ms: float, met: bool) -> None:
    row = Row(WORK, side(run(10, 10)), side(run(single_ms, single_ms)), {PLAIN: side(run(ddp_ms, ddp_ms))})
    assert row.met is met


def test_without_a_side_there_is_nothing_to_compare() -> None:
    row = Row(WORK, None, None, {PLAIN: side(run(10, 10))}, ("it broke",))
    assert row.met is None
    assert row.summary == "m: failed"
    assert cells(row)[2:4] == ("failed", "10.0")
    assert "m FAILED: it broke" in table([row]).splitlines()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"parameters": 8}, "we have 7 parameters, DDP (plain) 8"),
        ({"losses": (2.1, 1.0)}, "our first loss is 2, that of DDP (plain) 2.1"),
        ({"losses": (2.0, 1.1)}, "our last loss is 1, that of DDP (plain) 1.1"),
        ({"losses": (2.0, float("nan"))}, "our last loss is 1, that of DDP (plain) nan"),
    ],
)
def test_sides_that_do_not_train_the_same_are_a_problem(changes: dict[str, object], problem: str) -> None:
    other = replace(run(30, 30), **changes)  # type: ignore[arg-type]
    row = gather(WORK, ours=side(run(10, 10)), single=None, ddp={PLAIN: side(other)})
    assert row.problems == (problem,)


def test_the_loss_of_a_step_is_the_mean_over_processes() -> None:
    assert mean_losses([[1.0, 2.0], [3.0, 6.0]]) == (2.0, 4.0)


def test_the_table_has_a_line_for_each_work_and_names_the_ways_below() -> None:
    row = Row(WORK, side(run(10, 10)), side(run(19, 19)), {PLAIN: side(run(30, 30)), FUSED: side(run(21, 21))})
    _, _, line, ways, software = table([row]).splitlines()
    assert " ".join(line.split()) == "MLP 2 × 1 10.0 21.0 800 381 2.10 2.10 0.95 2.0, scaling 0.9 met"
    assert ways == "m, DDP in ms: plain 30.0, tuned fused 21.0"
    assert software == "software"
