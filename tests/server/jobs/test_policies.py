"""Decisions about jobs."""

from __future__ import annotations

import pytest

from chainrule.server.jobs.policies import MAX_DELAY_S, Demand, GiveUp, Retry, admit, after_loss, cpus_for, delay


def test_jobs_are_admitted_in_order_while_there_is_room() -> None:
    waiting = [Demand("a", 2), Demand("b", 1), Demand("c", 2)]
    assert admit(waiting, free_cpus=4) == ["a", "b"]


def test_no_job_overtakes_one_that_has_to_wait() -> None:
    assert admit([Demand("large", 4), Demand("small", 1)], free_cpus=2) == []


@pytest.mark.parametrize(("losses", "delay_s"), [(1, 0.5), (2, 1.0), (3, 2.0)])
def test_a_lost_attempt_is_retried_after_a_growing_pause(losses: int, delay_s: float) -> None:
    assert after_loss(losses, "worker died") == Retry(delay_s)


def test_attempts_that_keep_being_lost_are_given_up_with_the_last_cause() -> None:
    decision = after_loss(4, "worker died of signal 9")
    assert isinstance(decision, GiveUp)
    assert "4 attempts in a row" in decision.message
    assert "worker died of signal 9" in decision.message


def test_pauses_have_an_upper_bound() -> None:
    assert delay(10_000) == MAX_DELAY_S


@pytest.mark.parametrize(("workers", "total", "cpus"), [(3, 8.0, 3), (3, 2.0, 2), (3, 2.9, 2), (3, 0.0, 1)])
def test_a_job_is_given_what_the_cluster_has_at_all(workers: int, total: float, cpus: int) -> None:
    assert cpus_for(workers, total_cpus=total) == cpus
