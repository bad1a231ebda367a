"""Decisions about jobs."""

from __future__ import annotations

from itertools import pairwise

import pytest

from chainrule.server.jobs.policies import (
    MAX_DELAY_S,
    PART_LOST,
    Demand,
    GiveUp,
    Grant,
    Loss,
    Retry,
    Share,
    admit,
    after_loss,
    delay,
    grow,
    in_turn,
    superfluous,
    way_back,
)
from chainrule.server.records import TRANSITIONS, JobState
from chainrule.server.training.state import EvaluationMetric
from chainrule.server.training.watching import Watched

KILLED = Loss(PART_LOST, "worker died of signal 9", 3)

# --- workers ---------------------------------------------------------------------------------------------------


def test_the_highest_priority_goes_first_and_of_equals_the_oldest() -> None:
    waiting = [Demand("a", 1, 1), Demand("b", 1, 1, priority=-1), Demand("c", 1, 1, priority=5), Demand("d", 1, 1)]
    assert [demand.job for demand in in_turn(waiting, holding={})] == ["c", "a", "d", "b"]


def test_a_small_job_does_not_overtake_a_large_one_of_a_higher_priority() -> None:
    waiting = [Demand("small", 1, 1), Demand("large", 4, 4, priority=1)]
    turn = in_turn(waiting, holding={})
    assert admit(turn, free_cpus=3) == []
    assert admit(turn, free_cpus=4) == [Grant("large", 4)]
    assert admit(turn, free_cpus=5) == [Grant("large", 4), Grant("small", 1)]


def test_a_tenant_has_only_so_many_jobs_at_a_time() -> None:
    waiting = [Demand(job, 1, 1, tenant=job[0]) for job in ("a1", "a2", "b1", "b2", "b3")]
    turn = in_turn(waiting, holding={"a": 1, "c": 9}, max_tenant_jobs=2)
    assert [demand.job for demand in turn] == ["a1", "b1", "b2"]
    assert in_turn(waiting, holding={"a": 100}) == waiting


def test_a_job_that_waits_for_its_tenants_others_keeps_nobody_out() -> None:
    waiting = [Demand("mine", 4, 4, priority=9, tenant="me"), Demand("yours", 1, 1, tenant="you")]
    turn = in_turn(waiting, holding={"me": 1}, max_tenant_jobs=1)
    assert admit(turn, free_cpus=1) == [Grant("yours", 1)]


def test_of_a_tenant_with_room_for_one_more_the_highest_priority_is_that_one() -> None:
    waiting = [Demand("old", 1, 1, tenant="t"), Demand("urgent", 1, 1, priority=1, tenant="t")]
    assert [demand.job for demand in in_turn(waiting, holding={}, max_tenant_jobs=1)] == ["urgent"]


def test_jobs_are_admitted_in_order_while_there_is_room() -> None:
    waiting = [Demand("a", 2, 2), Demand("b", 1, 1), Demand("c", 2, 2)]
    assert admit(waiting, free_cpus=4) == [Grant("a", 2), Grant("b", 1)]


def test_no_job_overtakes_one_that_has_to_wait() -> None:
    assert admit([Demand("large", 4, 4), Demand("small", 1, 1)], free_cpus=2) == []


def test_all_get_their_fewest_workers_before_the_first_gets_more() -> None:
    waiting = [Demand("a", 1, 8), Demand("b", 2, 3), Demand("c", 9, 9)]
    assert admit(waiting, free_cpus=3) == [Grant("a", 1), Grant("b", 2)]
    assert admit(waiting, free_cpus=5.9) == [Grant("a", 3), Grant("b", 2)]
    assert admit(waiting, free_cpus=11) == [Grant("a", 8), Grant("b", 3)]


def test_running_jobs_grow_in_order_into_what_is_free() -> None:
    running = [Share("full", 2, 2), Share("a", 1, 3), Share("b", 1, 3)]
    assert grow(running, free_cpus=3) == [Grant("a", 3), Grant("b", 2)]
    assert grow(running, free_cpus=0.9) == []
    assert grow([Share("too many", 4, 2)], free_cpus=-1) == []


# --- losses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("losses", "delay_s"), [(1, 0.5), (2, 1.0), (3, 2.0)])
def test_a_lost_attempt_is_retried_after_a_growing_pause(losses: int, delay_s: float) -> None:
    assert after_loss([KILLED] * losses, max_failures=10) == Retry(delay_s)


def test_attempts_that_keep_being_lost_are_given_up_with_the_last_cause() -> None:
    decision = after_loss([KILLED] * 4, max_failures=3)
    assert isinstance(decision, GiveUp)
    assert "4 attempts in a row" in decision.message
    assert "worker died of signal 9" in decision.message


def test_with_no_failures_allowed_the_first_loss_is_the_last() -> None:
    assert isinstance(after_loss([KILLED], max_failures=0), GiveUp)


def test_the_same_exception_at_the_same_step_twice_is_given_up_whatever_came_between() -> None:
    failed = Loss("TRAINING_ERROR", "division by zero", 7)
    assert after_loss([failed, KILLED, failed], max_failures=10) == GiveUp(
        "it failed twice in the same way after step 7: division by zero"
    )


@pytest.mark.parametrize(
    "other", [Loss("TRAINING_ERROR", "division by zero", 8), Loss("TRAINING_ERROR", "index out of range", 7)]
)
def test_another_exception_or_another_step_is_retried(other: Loss) -> None:
    assert isinstance(after_loss([Loss("TRAINING_ERROR", "division by zero", 7), other], max_failures=10), Retry)


def test_pauses_have_an_upper_bound() -> None:
    assert delay(10_000) == MAX_DELAY_S


# --- checkpoints -----------------------------------------------------------------------------------------------


def evaluation(step: int, loss: float) -> EvaluationMetric:
    return EvaluationMetric(step // 10, step, loss, 0.5, 5, 0.0)


def dropped(steps: list[int], *evaluations: EvaluationMetric, keep: int = 2, restore_best: bool = True) -> list[int]:
    by = Watched() if restore_best else None
    return superfluous(steps, evaluations, keep=keep, best=by, ends_epoch=lambda step: step % 10 == 0)


def test_the_latest_checkpoints_are_kept() -> None:
    assert dropped([40, 30, 20, 10], restore_best=False) == [20, 10]
    assert dropped([40, 30], restore_best=False) == []


def test_the_best_checkpoint_is_kept_where_it_may_become_the_result() -> None:
    evaluations = [evaluation(10, 0.5), evaluation(20, 0.3), evaluation(30, 0.4), evaluation(40, 0.3)]
    assert dropped([40, 30, 20, 10], *evaluations, keep=1) == [30, 10]
    assert dropped([40, 30, 20, 10], *evaluations, keep=1, restore_best=False) == [30, 20, 10]


def test_a_checkpoint_that_is_still_to_be_evaluated_is_kept() -> None:
    assert dropped([12, 11, 10, 9], evaluation(10, 0.5), keep=1) == [11, 9]
    assert dropped([12, 11, 10, 9], keep=1) == [11, 9]


@pytest.mark.parametrize("state", JobState)
def test_what_nobody_runs_gets_to_where_it_waits_or_has_ended(state: JobState) -> None:
    way = way_back(state)
    assert all(to in TRANSITIONS[since] for since, to in pairwise((state, *way)))
    end = (state, *way)[-1]
    assert end.terminal or end in (JobState.QUEUED, JobState.PAUSED)


def test_a_cancel_and_a_pause_are_kept_to() -> None:
    assert way_back(JobState.CANCELLING) == (JobState.CANCELLED,)
    assert way_back(JobState.PAUSING) == (JobState.PAUSED,)
