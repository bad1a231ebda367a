"""Records to messages and back."""

from __future__ import annotations

import math

import pytest
from google.protobuf import struct_pb2

from chainrule.server.blobs import Blob
from chainrule.server.errors import InvalidRequestError
from chainrule.server.records import JobState
from chainrule.server.rpc import convert
from chainrule.server.training.plan import Sgd, TrainingConfig
from chainrule.v1 import blob_pb2, job_pb2


@pytest.mark.parametrize(
    "config",
    [
        TrainingConfig(),
        TrainingConfig(
            epochs=3,
            batch_size=128,
            shards=8,
            workers=4,
            seed=2**64 - 1,
            optimizer=Sgd(lr=0.1, momentum=0.9, dampening=0.0, weight_decay=1e-4, nesterov=True),
        ),
        TrainingConfig(optimizer=Sgd(dampening=0.5)),
    ],
)
def test_a_configuration_comes_back_from_the_wire(config: TrainingConfig) -> None:
    sent = convert.training_config(config).SerializeToString()
    assert convert.training_config_record(job_pb2.TrainingConfig.FromString(sent)) == config


def test_what_is_left_out_of_a_configuration_has_its_default() -> None:
    assert convert.training_config_record(job_pb2.TrainingConfig()) == TrainingConfig()
    momentum = job_pb2.TrainingConfig(sgd=job_pb2.Sgd(momentum=0.9))
    assert convert.training_config_record(momentum).optimizer == Sgd(lr=0.01, momentum=0.9)


def test_a_learning_rate_of_zero_is_not_left_out() -> None:
    zero = job_pb2.TrainingConfig(sgd=job_pb2.Sgd(lr=0))
    assert convert.training_config_record(zero).optimizer.lr == 0


def test_a_submission_has_all_fields_of_the_request() -> None:
    job = job_pb2.Job(model="models/m", dataset="datasets/d", config=job_pb2.TrainingConfig(epochs=2))
    submission = convert.submission(job_pb2.CreateJobRequest(job=job, request_id="r"))
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
        (blob_pb2.WriteBlobRequest(blob=blob_pb2.Blob(digest="d", size_bytes=3)), Blob("d", 3)),
        (blob_pb2.WriteBlobRequest(chunk=b"xyz"), b"xyz"),
        (blob_pb2.WriteBlobRequest(chunk=b""), b""),
        (blob_pb2.WriteBlobRequest(), None),
    ],
)
def test_a_message_of_an_upload_is_its_part(message: blob_pb2.WriteBlobRequest, part: Blob | bytes | None) -> None:
    assert convert.upload_part(message) == part


@pytest.mark.parametrize("state", JobState)
def test_every_state_has_its_name_on_the_wire(state: JobState) -> None:
    assert job_pb2.Job.State.Name(convert.job_state(state)) == f"STATE_{state.name}"


@pytest.mark.parametrize("field", ["epochs", "batch_size", "shards", "workers"])
def test_an_explicit_zero_is_not_taken_for_left_out(field: str) -> None:
    """It used to mean the default, and a job of one epoch ran where none was asked for."""
    message = job_pb2.TrainingConfig(**{field: 0})  # type: ignore[arg-type]
    assert getattr(convert.training_config_record(message), field) == 0
