"""Decisions about an attempt, on both sides of each threshold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.server.training.policies import (
    FIRST_DELAY_S,
    FIRST_PATIENCE_S,
    HANGS,
    HANGS_S,
    LEASE_S,
    MAX_DELAY_S,
    MAX_LOSSES,
    MIN_PATIENCE_S,
    PATIENCE,
    GiveUp,
    Replace,
    Sight,
    Speculate,
    Waiting,
    WorkerFailure,
    after_failure,
    after_loss,
    after_refusal,
    arbiter,
    auditors,
    checkpoint_due,
    hangs,
    receipt_due,
    silent,
    somebody_is_done,
    speculate,
    stops_early,
    usual,
)
from chainrule.server.training.state import EvaluationMetric
from chainrule.server.training.watching import Watched
from tests.server.training.bench import NOW_S, tiny_plan


def evaluations(*losses: float) -> list[EvaluationMetric]:
    return [EvaluationMetric(epoch + 1, 3 * (epoch + 1), loss, 0.5, 10, NOW_S) for epoch, loss in enumerate(losses)]


# --- when to keep what -----------------------------------------------------------------------------------------


def test_checkpoints_are_due_at_the_ends_of_epochs_and_every_so_many_steps() -> None:
    assert [step for step in range(7) if checkpoint_due(tiny_plan(), step)] == [3, 6]
    often = tiny_plan(checkpoint_every_steps=2)
    assert [step for step in range(1, 7) if checkpoint_due(often, step)] == [2, 3, 4, 6]


def test_receipts_are_due_at_the_ends_of_epochs_and_every_so_many_steps() -> None:
    assert [step for step in range(7) if receipt_due(tiny_plan(receipt_every_steps=0), step)] == [3, 6]
    assert [step for step in range(7) if receipt_due(tiny_plan(receipt_every_steps=2), step)] == [2, 3, 4, 6]
    assert [step for step in range(7) if receipt_due(tiny_plan(receipt_every_steps=1), step)] == [1, 2, 3, 4, 5, 6]


def test_no_receipt_is_due_where_weights_depend_on_timing() -> None:
    plan = tiny_plan(receipt_every_steps=1, staleness=1)
    assert not any(receipt_due(plan, step) for step in range(7))


@pytest.mark.parametrize(
    ("losses", "patience", "stops"),
    [
        ((3.0, 2.0, 2.5), 1, True),
        ((3.0, 2.0, 2.5), 2, False),
        ((3.0, 2.0, 2.5, 2.0), 2, True),  # not better is as long as worse
        ((3.0, 2.0, 2.5, 1.9), 2, False),
        ((3.0,), 1, False),
        ((), 1, False),
        ((1.0, 2.0, 3.0, 4.0), 0, False),
        ((float("nan"), float("nan")), 1, True),
    ],
)
def test_a_job_stops_early_after_epochs_without_a_better_loss(
    losses: tuple[float, ...], patience: int, stops: bool
) -> None:
    assert stops_early(evaluations(*losses), patience, Watched()) is stops


def test_a_job_that_watches_accuracy_goes_on_while_that_rises() -> None:
    found = [EvaluationMetric(epoch, epoch, 1.0, share, 10, NOW_S) for epoch, share in ((1, 0.5), (2, 0.6), (3, 0.6))]
    by = Watched("accuracy", rises=True)
    assert [stops_early(found[:epochs], 1, by) for epochs in (1, 2, 3)] == [False, False, True]
    assert stops_early(found, 1, Watched())


# --- who is lost -----------------------------------------------------------------------------------------------


def test_who_was_heard_of_within_the_lease_is_not_lost() -> None:
    signs = {3: 10.0, 1: 9.0, 2: 4.9, 4: 5.0}
    assert silent(signs, now_s=10.0, lease_s=5.0) == [2]
    assert silent(signs, now_s=15.0, lease_s=5.0) == [1, 2, 4]
    assert silent({1: 0.0}, now_s=LEASE_S) == []
    assert silent({1: 0.0}, now_s=LEASE_S + 0.001) == [1]
    assert silent({}, now_s=1e9) == []


def test_the_first_loss_is_replaced_at_once_and_further_ones_after_longer_and_longer() -> None:
    assert after_loss(1, "worker 1 is gone") == Replace(0.0)
    assert [after_loss(losses, "") for losses in (2, 3, 4, 5)] == [
        Replace(FIRST_DELAY_S),
        Replace(2 * FIRST_DELAY_S),
        Replace(4 * FIRST_DELAY_S),
        Replace(8 * FIRST_DELAY_S),
    ]
    assert after_loss(MAX_LOSSES, "") == Replace(MAX_DELAY_S)


def test_after_too_many_losses_without_a_step_the_attempt_is_given_up() -> None:
    found = after_loss(MAX_LOSSES + 1, "worker 7 is gone")
    assert found == GiveUp(
        "PART_LOST", "11 processes were lost without a step in between; the last: worker 7 is gone", lost=True
    )


FAILURE = WorkerFailure(5, "division by zero", "Traceback ...")


def test_another_worker_tries_what_one_has_failed_at() -> None:
    assert after_failure([], FAILURE) is None
    assert after_failure([replace(FAILURE, tick=4)], FAILURE) is None
    assert after_failure([replace(FAILURE, message="something else")], FAILURE) is None


def test_the_same_failure_at_the_same_tick_is_the_jobs_own() -> None:
    before = [replace(FAILURE, tick=4), replace(FAILURE, traceback="another")]
    assert after_failure(before, FAILURE) == GiveUp(
        "TRAINING_ERROR", "two workers failed in the same way: division by zero", lost=False
    )


def test_failures_at_one_place_in_ever_other_words_are_the_jobs_own_too() -> None:
    before = [replace(FAILURE, message="at 0x1"), replace(FAILURE, message="at 0x2", tick=FAILURE.tick + 1)]
    assert after_failure(before, FAILURE) is None
    assert after_failure([*before, replace(FAILURE, message="at 0x3")], FAILURE) == GiveUp(
        "TRAINING_ERROR", "3 workers failed at the same place; the last: division by zero", lost=False
    )


# --- who is slow -----------------------------------------------------------------------------------------------

LATE = Sight(1, (0, 1), tick=7, working=True)
DONE = Sight(2, (2, 3), tick=7, working=False)
WAITING = Waiting(7, (0, 1), seconds=3.1, usual_s=1.0)


def test_idle_workers_help_with_what_is_waited_for() -> None:
    assert speculate(WAITING, [LATE, DONE]) == Speculate(7, {2: (0, 1)}, {1: (0, 1)})


def test_several_share_it() -> None:
    idle = [DONE, Sight(3, (4, 5), 7, working=False), Sight(4, (), 7, working=False)]
    waiting = replace(WAITING, missing=(0, 1))
    assert speculate(waiting, [LATE, *idle]) == Speculate(7, {2: (0,), 3: (1,)}, {1: (0, 1)})


@pytest.mark.parametrize(
    ("usual_s", "patience_s"),
    [(1.0, PATIENCE), (10.0, 10 * PATIENCE), (0.001, MIN_PATIENCE_S), (0.0, FIRST_PATIENCE_S)],
)
def test_patience_is_several_usual_ticks_and_not_too_short(usual_s: float, patience_s: float) -> None:
    waiting = Waiting(7, (0,), seconds=patience_s, usual_s=usual_s)
    assert speculate(waiting, [LATE, DONE]) == Speculate(7, {2: (0,)}, {1: (0,)})
    assert speculate(replace(waiting, seconds=patience_s - 1e-6), [LATE, DONE]) is None


@pytest.mark.parametrize(
    ("usual_s", "peers_s", "patience_s"),
    [(10.0, 2.0, 2 * PATIENCE), (2.0, 10.0, 2 * PATIENCE), (0.0, 2.0, 2 * PATIENCE), (10.0, 0.001, MIN_PATIENCE_S)],
)
def test_who_is_slow_all_the_time_is_slow_beside_the_others(usual_s: float, peers_s: float, patience_s: float) -> None:
    waiting = Waiting(7, (0,), seconds=patience_s, usual_s=usual_s, peers_s=peers_s)
    assert speculate(waiting, [LATE, DONE]) == Speculate(7, {2: (0,)}, {1: (0,)})
    assert speculate(replace(waiting, seconds=patience_s - 1e-6), [LATE, DONE]) is None


def test_a_worker_is_done_once_nothing_of_its_own_is_missing() -> None:
    assert somebody_is_done(7, (0, 1), [LATE, DONE])
    assert not somebody_is_done(7, (0, 1), [LATE])
    assert not somebody_is_done(7, (0, 3), [LATE, DONE])
    assert not somebody_is_done(8, (0, 1), [LATE, DONE])
    assert not somebody_is_done(7, (0, 1), [LATE, replace(DONE, working=True)])
    assert not somebody_is_done(7, (0, 1), [LATE, replace(DONE, shards=())])


def test_nobody_helps_where_nothing_is_missing_or_all_was_given_out() -> None:
    assert speculate(replace(WAITING, missing=()), [LATE, DONE]) is None
    assert speculate(replace(WAITING, asked=frozenset({0, 1})), [LATE, DONE]) is None
    assert speculate(replace(WAITING, asked=frozenset({0})), [LATE, DONE]) == Speculate(7, {2: (1,)}, {1: (1,)})


def test_who_works_does_not_help() -> None:
    assert speculate(WAITING, [LATE, replace(DONE, working=True)]) is None
    assert speculate(WAITING, [LATE]) is None
    assert speculate(WAITING, []) is None


def test_who_waits_although_it_has_something_to_do_is_asked_if_there_is_nobody_else() -> None:
    """It may have missed being told."""
    asleep = replace(LATE, working=False)
    assert speculate(WAITING, [asleep]) == Speculate(7, {1: (0, 1)}, {1: (0, 1)})
    assert speculate(WAITING, [asleep, DONE]) == Speculate(7, {2: (0, 1)}, {1: (0, 1)})


def test_shards_of_nobody_are_computed_without_blaming_anyone() -> None:
    assert speculate(replace(WAITING, missing=(6, 7)), [LATE, DONE]) == Speculate(7, {2: (6, 7)}, {})


def test_a_tick_that_stands_for_very_long_hangs() -> None:
    waiting = Waiting(7, (0,), seconds=HANGS_S, usual_s=1.0)
    assert not hangs(waiting)
    assert hangs(replace(waiting, seconds=HANGS_S + 1.0))
    slow = Waiting(7, (0,), seconds=HANGS * HANGS_S, usual_s=HANGS_S)
    assert not hangs(slow)
    assert hangs(replace(slow, seconds=HANGS * HANGS_S + 1.0))


def test_the_usual_time_is_the_median() -> None:
    assert usual([]) == 0.0
    assert usual([5.0]) == 5.0
    assert usual([1.0, 100.0, 2.0]) == 2.0


# --- who decides -----------------------------------------------------------------------------------------------


def test_the_next_worker_audits() -> None:
    assert auditors({0: 4, 1: 4, 2: 7, 3: 9}) == {0: 7, 1: 7, 2: 9, 3: 4}
    assert auditors({0: 3, 1: 3}) == {0: 3, 1: 3}
    assert auditors({}) == {}


@given(st.dictionaries(st.integers(0, 20), st.integers(1, 6)))
def test_nobody_audits_itself_while_there_are_others(owners: dict[int, int]) -> None:
    found = auditors(owners)
    assert found.keys() == owners.keys()
    assert set(found.values()) == set(owners.values())
    if len(set(owners.values())) > 1:
        assert all(found[shard] != lease for shard, lease in owners.items())


def test_a_worker_that_has_not_computed_it_decides() -> None:
    assert arbiter((1, 2), [1, 2, 5, 6]) == 5
    assert arbiter((1, 2), [2, 1]) == 2
    assert arbiter((1, 2), []) is None


def test_after_refusals_the_pause_grows_to_a_minute() -> None:
    assert [after_refusal(times) for times in (1, 2, 3, 6, 7, 100)] == [1.0, 2.0, 4.0, 32.0, 60.0, 60.0]
