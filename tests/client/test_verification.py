"""Two jobs are compared bit by bit, and what is said of them is what was seen."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from chainrule.client import (
    DataLoss,
    Dataset,
    Evidence,
    FailedPrecondition,
    JobState,
    JobStatus,
    Metric,
    ModelRecord,
    Progress,
    Sgd,
    TrainingConfig,
)
from chainrule.client.status import receipt_from_message
from chainrule.client.verification import Record, check_chain, compare
from tests.client.fake_server import chained

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = ModelRecord(
    name="models/m",
    family="mlp",
    config={"num_classes": 3},
    weights_digest=None,
    init_seed=0,
    num_parameters=9,
    create_time=NOW,
)
DATASET = Dataset(
    name="datasets/d",
    digest="d" * 64,
    num_examples=4,
    input_shape=(1,),
    num_classes=3,
    size_bytes=9,
    create_time=NOW,
)


def losses(*values: float) -> list[Metric]:
    return [
        Metric(sequence=i, step=i, epoch=1, loss=loss, accuracy=0.5, num_examples=4, time=NOW)
        for i, loss in enumerate(values, start=1)
    ]


def record(
    name: str,
    metrics: list[Metric],
    *,
    states: Mapping[int, str] | None = None,
    weights: tuple[int, str] | None = None,
    config: TrainingConfig | None = None,
    **changes: Any,
) -> Record:
    """A job that has measured these losses and has receipts of these states; with weights it has SUCCEEDED."""
    total = 9
    status = JobStatus(
        name=name,
        state=JobState.SUCCEEDED if weights else JobState.RUNNING,
        model="models/m",
        dataset="datasets/d",
        config=config or TrainingConfig(),
        progress=Progress(
            step=len(metrics),
            total_steps=total,
            epoch=1,
            total_epochs=1,
            loss=None,
            accuracy=None,
            examples_per_second=0.0,
            eta_s=None,
        ),
        weights_digest=weights[1] if weights else None,
        weights_step=weights[0] if weights else None,
        running_workers=1,
        fingerprint=changes.pop("fingerprint", {"threads": "1"}),
        events=(),
        evaluations=(),
        error=None,
        history=(),
        create_time=NOW,
        start_time=None,
        end_time=None,
    )
    made = Record(
        status=status,
        model=MODEL,
        dataset=DATASET,
        validation=None,
        receipts=tuple(map(receipt_from_message, chained(states or {}))),
        metrics=metrics,
    )
    return dataclasses.replace(made, **changes)


A, B = "jobs/a", "jobs/b"
FULL = losses(0.5, 0.4, 0.3, 0.2)
STATES = {2: "s2", 4: "s4"}


# Agreeing


def test_jobs_with_the_same_losses_states_and_weights_agree() -> None:
    found = compare(record(A, FULL, states=STATES, weights=(4, "w")), record(B, FULL, states=STATES, weights=(4, "w")))
    assert (found.agree, found.parts_at_step, found.parts_in) == (True, None, None)
    assert (found.agree_up_to_step, found.same_state_at_step) == (4, 4)
    assert (found.losses_compared, found.states_compared, found.weights_compared) == (4, 2, True)
    assert (found.differences, found.not_compared) == ((), ())
    assert found.message == "jobs/a and jobs/b agree up to step 4"


def test_jobs_agree_up_to_the_step_that_both_have_done() -> None:
    found = compare(record(A, FULL, states=STATES, weights=(4, "w")), record(B, FULL[:2], states={2: "s2"}))
    assert (found.agree, found.agree_up_to_step, found.same_state_at_step) == (True, 2, 2)
    assert found.not_compared == (
        "steps 3 to 4: jobs/b, RUNNING, has done 2",
        "the final weights: jobs/b, RUNNING, has none",
    )


def test_states_of_which_only_one_has_receipts_are_said_not_to_be_compared() -> None:
    found = compare(record(A, FULL, states=STATES), record(B, FULL, states={4: "s4"}))
    assert (found.agree, found.states_compared) == (True, 1)
    assert "1 state up to step 2: only jobs/a has receipts of them" in found.not_compared


def test_losses_that_are_not_a_number_are_the_same_if_their_bits_are() -> None:
    assert compare(record(A, losses(math.nan)), record(B, losses(math.nan))).agree


def kept(last: int) -> list[Metric]:
    """What a server keeps of a job at this step: of the latest 10 steps all, of those before the first and every
    tenth."""
    made = [
        Metric(sequence=i, step=i, epoch=1, loss=1 / i, accuracy=0.5, num_examples=4, time=NOW)
        for i in range(1, last + 1)
    ]
    return [m for m in made if m.step > last - 10 or m.step % 10 == 0 or m.step == 1]


def at_step(step: int, made: Record) -> Record:
    progress = dataclasses.replace(made.status.progress, step=step)
    return dataclasses.replace(made, status=dataclasses.replace(made.status, progress=progress))


def test_equal_jobs_of_which_other_losses_are_kept_agree() -> None:
    found = compare(at_step(45, record(A, kept(45))), at_step(35, record(B, kept(35))))
    assert (found.agree, found.agree_up_to_step) == (True, 30)
    assert found.losses_compared == 4  # of 1, 10, 20 and 30
    assert found.not_compared[0] == (
        "31 losses up to step 35: of early steps the server keeps the first, and then every tenth"
    )


def test_a_loss_that_differs_behind_a_gap_is_found_and_the_gap_is_told() -> None:
    ours = kept(45)
    theirs = [dataclasses.replace(metric, loss=9.0) if metric.step >= 20 else metric for metric in ours]
    found = compare(at_step(45, record(A, ours)), at_step(45, record(B, theirs)))
    assert (found.parts_at_step, found.agree_up_to_step, found.losses_compared) == (20, 10, 3)
    assert found.not_compared[0].startswith("17 losses up to step 19: ")


# Parting


def test_the_first_step_whose_loss_differs_in_its_last_bit_is_named() -> None:
    other = losses(0.5, 0.4, math.nextafter(0.3, 1.0), 0.7)
    found = compare(record(A, FULL, states=STATES), record(B, other, states={2: "s2", 4: "other"}))
    assert (found.agree, found.parts_at_step, found.parts_in) == (False, 3, Evidence.LOSS)
    assert (found.agree_up_to_step, found.same_state_at_step, found.losses_compared) == (2, 2, 3)
    assert found.message == (
        "jobs/a and jobs/b part at step 3: their losses are not the same number; the same state after step 2"
    )


def test_zero_and_minus_zero_are_not_the_same_number() -> None:
    assert compare(record(A, losses(0.0)), record(B, losses(-0.0))).parts_at_step == 1


def test_losses_are_not_read_beyond_the_first_that_differs() -> None:
    def endless() -> Iterator[Metric]:
        yield from losses(0.1)
        raise AssertionError("read on")

    found = compare(record(A, losses(0.5, 0.4)), dataclasses.replace(record(B, []), metrics=endless()))
    assert (found.parts_at_step, found.agree_up_to_step) == (1, 0)


def test_states_that_differ_under_the_same_losses_are_found() -> None:
    found = compare(record(A, FULL, states=STATES), record(B, FULL, states={2: "s2", 4: "other"}))
    assert (found.parts_at_step, found.parts_in) == (4, Evidence.STATE)
    assert (found.agree_up_to_step, found.same_state_at_step) == (3, 2)
    assert "their states after it are not the same; the same state after step 2" in found.message


def test_a_state_that_differs_before_the_losses_do_is_named_first() -> None:
    found = compare(record(A, FULL, states={1: "s1"}), record(B, losses(0.5, 0.1), states={1: "other"}))
    assert (found.parts_at_step, found.parts_in, found.same_state_at_step) == (1, Evidence.STATE, 0)
    assert found.message == "jobs/a and jobs/b part at step 1: their states after it are not the same"


def test_of_a_step_whose_loss_and_state_differ_the_loss_is_named_since_it_comes_first() -> None:
    found = compare(record(A, FULL, states=STATES), record(B, losses(0.5, 0.1), states={2: "other"}))
    assert (found.parts_at_step, found.parts_in) == (2, Evidence.LOSS)


def test_final_weights_that_differ_are_found_where_nothing_else_does() -> None:
    found = compare(record(A, FULL, weights=(4, "w")), record(B, FULL, weights=(4, "v")))
    assert (found.agree, found.parts_at_step, found.parts_in) == (False, 4, Evidence.WEIGHTS)
    assert found.agree_up_to_step == 3


def test_final_weights_of_other_steps_are_not_compared() -> None:
    found = compare(record(A, FULL, weights=(4, "w")), record(B, FULL, weights=(2, "v")))
    assert (found.agree, found.weights_compared) == (True, False)
    assert found.not_compared == ("the final weights: taken after step 4 and after step 2",)


# What makes jobs different, and what cannot be compared


def test_another_configuration_is_told_by_its_fields() -> None:
    other = TrainingConfig(epochs=2, optimizer=Sgd(lr=0.5), max_workers=4, keep_checkpoints=9)
    found = compare(record(A, FULL), record(B, FULL, config=other))
    assert found.agree
    assert found.differences == ("epochs: 1 against 2", "optimizer.lr: 0.01 against 0.5")


def test_another_model_dataset_and_fingerprint_are_told() -> None:
    model = dataclasses.replace(MODEL, init_seed=1)
    dataset = dataclasses.replace(DATASET, digest="e" * 64)
    found = compare(record(A, FULL), record(B, FULL, model=model, dataset=dataset, fingerprint={"threads": "2"}))
    assert found.differences == (
        "model: mlp {'num_classes': 3}, initialised from 0 against mlp {'num_classes': 3}, initialised from 1",
        f"dataset: {'d' * 64} against {'e' * 64}",
        "fingerprint.threads: 1 against 2",
    )


def test_names_and_workers_make_no_difference() -> None:
    model, dataset = dataclasses.replace(MODEL, name="models/x"), dataclasses.replace(DATASET, name="datasets/x")
    config = TrainingConfig(max_workers=4, partitions=3)
    assert compare(record(A, FULL), record(B, FULL, model=model, dataset=dataset, config=config)).differences == ()


def test_a_job_whose_bits_promise_nothing_is_said_to() -> None:
    stale = TrainingConfig(staleness=2, exact=False)
    found = compare(record(A, FULL, config=stale), record(B, FULL, config=TrainingConfig(exact=False)))
    assert found.differences == ("staleness: 2 against 0",)
    assert "jobs/a trains with staleness 2: its bits depend on timing, and promise nothing" in found.not_compared
    assert any(reason.startswith("jobs/b is not exact") for reason in found.not_compared)


def test_jobs_without_a_step_in_common_have_no_verdict() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        compare(record(A, FULL), record(B, []))
    assert str(caught.value) == (
        "nothing can be compared yet: jobs/a is RUNNING at step 4 and jobs/b is RUNNING at step 0; "
        "compare them when both have done a step"
    )


def test_a_receipt_that_was_changed_breaks_the_chain() -> None:
    receipts = [receipt_from_message(receipt) for receipt in chained({1: "s1", 2: "s2", 3: "s3"})]
    check_chain(A, receipts)
    receipts[1] = dataclasses.replace(receipts[1], state_digest="forged")
    with pytest.raises(DataLoss, match="the receipt of jobs/a for step 2 does not continue the chain"):
        check_chain(A, receipts)
    with pytest.raises(DataLoss, match="for step 2 does not"):
        compare(record(B, FULL), record(A, FULL, receipts=receipts))
