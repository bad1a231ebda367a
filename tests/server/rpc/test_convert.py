"""Records to messages and back."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import struct_pb2

from chainrule.server.blobs import Announcement, Blob, Chunk
from chainrule.server.errors import InvalidRequestError
from chainrule.server.records import Checkpoint, Job, JobEvent, JobState, Receipt, StateChange
from chainrule.server.rpc import convert
from chainrule.server.training.config import TrainingConfig
from chainrule.server.training.state import EvaluationMetric, StepMetric
from chainrule.v1 import blob_pb2, job_pb2

TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_submission_has_all_fields_of_the_request() -> None:
    job = job_pb2.Job(model="models/m", dataset="datasets/d", config=job_pb2.TrainingConfig(epochs=2))
    submission = convert.submission(job_pb2.CreateJobRequest(job=job, request_id="r"), tenant="t")
    assert (submission.model, submission.dataset, submission.request_id) == ("models/m", "datasets/d", "r")
    assert submission.config == TrainingConfig(epochs=2)


def test_a_struct_comes_back_from_the_wire() -> None:
    values = {"a": 1.5, "b": "x", "c": True, "d": None, "e": [1.0, [2.0], {}], "f": {"g": {"h": False}}}
    assert convert.struct_to_dict(convert.dict_to_struct(values), field="config") == values


def test_a_value_of_a_struct_that_is_not_set_is_none() -> None:
    assert convert.struct_to_dict(struct_pb2.Struct(fields={"a": struct_pb2.Value()}), field="config") == {"a": None}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have_is_refused_where_it_is(number: float) -> None:
    value = struct_pb2.Value(number_value=number)
    values = struct_pb2.ListValue(values=[struct_pb2.Value(number_value=1), value])
    for struct, field in (
        (struct_pb2.Struct(fields={"a": value}), "config.a"),
        (struct_pb2.Struct(fields={"a": struct_pb2.Value(list_value=values)}), "config.a[1]"),
    ):
        with pytest.raises(InvalidRequestError, match=f"is {number}; use a finite number") as caught:
            convert.struct_to_dict(struct, field="config")
        assert caught.value.violations[0].field == field


@pytest.mark.parametrize(
    ("message", "part"),
    [
        (blob_pb2.WriteBlobRequest(blob=blob_pb2.Blob(digest="d", size_bytes=3)), Announcement(Blob("d", 3))),
        (
            blob_pb2.WriteBlobRequest(blob=blob_pb2.Blob(digest="d"), write_offset_bytes=2),
            Announcement(Blob("d", 0), 2),
        ),
        (blob_pb2.WriteBlobRequest(chunk=b"xyz"), Chunk(b"xyz")),
        (blob_pb2.WriteBlobRequest(chunk=b"xyz", chunk_crc32c=0), Chunk(b"xyz", 0)),
        (blob_pb2.WriteBlobRequest(chunk=b""), Chunk(b"")),
        (blob_pb2.WriteBlobRequest(), None),
    ],
)
def test_a_message_of_an_upload_is_its_part(
    message: blob_pb2.WriteBlobRequest, part: Announcement | Chunk | None
) -> None:
    assert convert.upload_part(message) == part


@pytest.mark.parametrize("state", JobState)
def test_every_state_has_its_name_on_the_wire(state: JobState) -> None:
    assert job_pb2.Job.State.Name(convert.job_state(state)) == f"STATE_{state.name}"


def test_a_job_has_all_that_its_record_has() -> None:
    event = JobEvent("recovery", "went back", 3, 1.5, TIME)
    evaluation = EvaluationMetric(1, 4, 0.5, 0.75, 10, TIME.timestamp())
    record = Job(
        name="jobs/j",
        model="models/m",
        dataset="datasets/d",
        config=TrainingConfig(),
        state=JobState.PAUSED,
        history=(StateChange(JobState.PAUSED, TIME, "asked to"),),
        create_time=TIME,
        events=(event,),
        running_workers=2,
        fingerprint="{}",
        evaluations=(evaluation,),
        weights_step=4,
    )
    message = convert.job(record)
    assert message.state == job_pb2.Job.STATE_PAUSED
    assert (message.running_workers, message.fingerprint, message.weights_step) == (2, "{}", 4)
    [told] = message.events
    assert (told.kind, told.message, told.step, told.seconds_lost) == ("recovery", "went back", 3, 1.5)
    [measured] = message.evaluations
    assert (measured.epoch, measured.step, measured.loss, measured.accuracy) == (1, 4, 0.5, 0.75)
    for time in (told.time, measured.time, message.history[0].time):
        assert time.ToDatetime(tzinfo=UTC) == TIME


def test_checkpoints_and_receipts_name_what_they_are_of() -> None:
    checkpoint = convert.checkpoint(Checkpoint("jobs/j", 8, 2, "a" * 64, "b" * 64, 1234, TIME, is_best=True))
    assert (checkpoint.step, checkpoint.epoch, checkpoint.digest) == (8, 2, "b" * 64)
    assert (checkpoint.size_bytes, checkpoint.is_best) == (1234, True)
    receipt = convert.receipt(Receipt(8, "a" * 64, "b" * 64))
    assert (receipt.step, receipt.state_digest, receipt.chain_digest) == (8, "a" * 64, "b" * 64)


def test_a_job_is_shown_with_its_latest_changes_and_the_time_of_all() -> None:
    """A job can be paused and resumed as often as one likes."""
    states = (JobState.QUEUED, JobState.PAUSED)
    history = tuple(StateChange(states[i % 2], TIME + timedelta(seconds=i), str(i)) for i in range(1500))
    record = Job("jobs/j", "models/m", "datasets/d", TrainingConfig(), JobState.PAUSED, history, TIME)
    message = convert.job(record)
    assert [change.reason for change in message.history] == [str(i) for i in range(500, 1500)]
    assert message.timings.queued.ToSeconds() == 750


def test_what_was_measured_is_sent_by_name_and_accuracy_only_where_it_was() -> None:
    of_numbers = convert.metric(StepMetric(1, 1, 0.5, None, 8, 1.0, {"mae": 0.25}))
    assert (of_numbers.HasField("accuracy"), dict(of_numbers.values)) == (False, {"mae": 0.25})
    of_classes = convert.metric(StepMetric(1, 1, 0.5, 0.0, 8, 1.0))
    assert (of_classes.HasField("accuracy"), dict(of_classes.values)) == (True, {"accuracy": 0.0})
