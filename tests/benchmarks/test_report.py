"""The figures that follow from what was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.single.report import OURS, PYTORCH, Row, cells, gather, table
from benchmarks.single.works import Order, Work

WORK = Work(name="m", title="MLP", network="mlp", batch=1, shape=(1000, 500, 10), goal=2.0, memory_goal=1.0)
SIDES = ((OURS, "contiguous_format"), (PYTORCH, "contiguous_format"), (PYTORCH, "channels_last"))
ORDERS = [Order(engine=engine, memory_format=memory_format, work=WORK) for engine, memory_format in SIDES]


def measured(*times_ms: float, loss: float = 2.0, parameters: int = 7, peak: int = 300) -> dict[str, Any]:
    return {
        "times_ns": [int(time * 1e6) for time in times_ms],
        "loss": loss,
        "parameters": parameters,
        "peak_bytes": peak * 10**6,
        "imported_bytes": 50 * 10**6,
        "description": "kernels",
    }


def row(*found: dict[str, Any]) -> Row:
    """Of as many rounds as there is found for."""
    return replace(gather(WORK, ORDERS * (len(found) // len(ORDERS)), found), peak_flops=1e12)


def test_the_ratio_is_of_medians_over_all_rounds_and_of_the_better_format() -> None:
    slow, fast = measured(9.0, 9.0, 9.0), measured(6.0, 7.0, 5.0, peak=400)
    result = row(measured(1.0, 2.0), slow, fast, measured(3.0, 4.0, 30.0), slow, fast)
    assert result.ours is not None
    assert result.ours.median_ms == 3.0
    assert result.best is not None
    assert result.best.memory_format == "channels_last"
    assert result.ratio == 2.0
    assert result.fastest_ratio == 5.0
    assert result.memory_ratio == 0.75
    assert result.met is True


def test_the_share_of_the_peak_is_of_our_operations() -> None:
    """2 · 3 · (500,000 + 5,000) − 2 · 500,000 operations in 2 ms are 1.015 · 10⁹ a second."""
    result = row(measured(2.0), measured(2.0), measured(2.0))
    assert result.gflops == pytest.approx(1.015)
    assert result.peak_share == pytest.approx(1.015e-3)


@pytest.mark.parametrize(("time", "peak"), [(3.1, 300), (3.0, 301)])
def test_a_goal_is_missed_by_time_or_by_memory(time: float, peak: int) -> None:
    assert row(measured(time, peak=peak), measured(6.0), measured(6.0)).met is False
    assert row(measured(3.0), measured(6.0), measured(6.0)).met is True


def test_engines_that_compute_otherwise_are_a_problem() -> None:
    result = row(measured(1.0, parameters=8), measured(1.0, loss=2.1), measured(1.0, loss=float("nan")))
    assert result.problems == (
        "chainrule.engine has 8 parameters, torch 7",
        "the first loss is 2 of chainrule.engine, 2.1 of torch",
        "chainrule.engine has 8 parameters, torch 7",
        "the first loss is 2 of chainrule.engine, nan of torch",
    )


def test_a_process_that_failed_in_any_round_leaves_no_figures_of_its_side() -> None:
    broken, sound = {"problem": "ImportError: no"}, measured(1.0)
    result = row(sound, sound, sound, broken, sound, sound)
    assert result.problems == ("chainrule.engine (contiguous_format): ImportError: no",)
    assert result.ours is None
    assert result.ratio is None
    assert result.met is None
    assert cells(result)[3:5] == ("failed", "1.00")
    assert table([result]).splitlines()[-2:] == [
        "m FAILED: chainrule.engine (contiguous_format): ImportError: no",
        "kernels",
    ]


def test_what_an_engine_cannot_do_is_no_problem() -> None:
    sound = measured(1.0)
    result = row({"unavailable": "no autocast"}, sound, sound)
    assert result.problems == ()
    assert cells(result)[3] == "not available"
    assert result.summary == "m: no autocast"


def test_the_table_is_aligned_and_says_whether_goals_are_met() -> None:
    result = row(measured(3.0), measured(90.0), measured(600.0))
    header, rule, line, *notes = table([result]).splitlines()
    names = "work threads dtype ours ms PyTorch ms ratio fastest goal GFLOP/s of peak ours MB PyTorch MB"
    figures = "MLP 1 fp32 3.00 90.0 30.00 30.00 2.00, memory 1.0 met 1 0% 300 (+250) 300 (+250)"
    assert " ".join(header.split()) == names
    assert " ".join(line.split()) == figures
    assert line.index("2.00,") == header.index("goal")
    assert len(line) == len(rule) == len(header)
    assert notes == ["kernels"]
