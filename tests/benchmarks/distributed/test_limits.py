"""The tables of costs and of transports."""

from __future__ import annotations

from benchmarks.distributed.costs import Costly
from benchmarks.distributed.limits import Limited, table
from benchmarks.distributed.sides import RunError
from benchmarks.distributed.transports import MEMORY, RAY, SIZES, TLS, Exchange
from benchmarks.distributed.transports import table as transports_table

COST = Limited("kill", "a killed worker", "s", 3.0, (1.0, 2.5, 4.0), ("one", "two", "three"))


def test_a_cost_is_judged_by_its_median() -> None:
    assert COST.median == 2.5
    assert COST.met is True
    assert Limited("kill", "a killed worker", "s", 2.0, (1.0, 2.5, 4.0)).met is False
    assert COST.summary == "kill: 2.50 s"


def test_the_table_of_costs_has_the_limit_and_below_it_what_each_round_found() -> None:
    _, _, line, *details = table([COST]).splitlines()
    assert " ".join(line.split()) == "a killed worker 2.50 4.00 3 s met"
    assert details == ["kill: one", "kill: two", "kill: three"]


def test_a_failure_is_named_and_what_was_found_before_it_is_kept() -> None:
    answers = iter([(1.0, "well")])

    def measure() -> tuple[float, str]:
        try:
            return next(answers)
        except StopIteration:
            raise RunError("it ended") from None

    found = Costly("kill", "a killed worker", "s", 3.0, measure).run(2)
    assert found.values == (1.0,)
    assert found.problem == "it ended"
    assert "kill FAILED: it ended" in table([found]).splitlines()


def test_without_a_figure_nothing_is_met() -> None:
    found = Limited("kill", "a killed worker", "s", 3.0, problem="it ended")
    assert found.met is None
    assert found.summary == "kill: failed"


def test_the_table_of_transports_compares_with_shared_memory() -> None:
    _, _, line = transports_table([Exchange(1_020, {MEMORY: 0.1, TLS: 0.25, RAY: 3.0})]).splitlines()
    assert line.split() == ["1,020", "0.100", "0.250", "3.00", "30.0", "2.5"]


def test_the_sizes_of_exchanges_rise() -> None:
    counts = [size.exchanges for size in SIZES]
    assert counts == sorted(counts, reverse=True)
    assert all(size.work.total_steps > size.exchanges for size in SIZES)
