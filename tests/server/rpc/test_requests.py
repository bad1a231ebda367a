"""Requests as they arrive."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from google.protobuf.message import Message

from chainrule.server.errors import InvalidRequestError
from chainrule.server.rpc.requests import Unacceptable, checked, decoder
from chainrule.v1 import blob_pb2, job_pb2, model_pb2
from tests.server.conftest import refusal

Config, CreateJob, Job = job_pb2.TrainingConfig, job_pb2.CreateJobRequest, job_pb2.Job


def decoded(message: Message) -> Message | Unacceptable:
    return decoder(type(message).FromString)(message.SerializeToString())


def test_a_message_is_what_was_sent() -> None:
    message = CreateJob(job=Job(model="models/m", config=Config(clip_norm=2.0)))
    assert b"\0" in message.SerializeToString()
    assert decoded(message) == message


def test_zeros_in_bytes_are_no_text() -> None:
    message = blob_pb2.WriteBlobRequest(chunk=bytes(4))
    assert decoded(message) == message


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (job_pb2.GetJobRequest(name="jobs/\0"), "name"),
        (CreateJob(job=Job(labels={"a\0": "b"})), "job.labels"),
        (CreateJob(job=Job(labels={"a": "b\0"})), "job.labels"),
        (CreateJob(job=Job(config=Config(trainable=["*", "\0"]))), "job.config.trainable[1]"),
        (
            model_pb2.Builtin(config=json_format.Parse('{"a": ["b", "\\u0000"]}', struct_pb2.Struct())),
            "config.fields.list_value.values[1].string_value",
        ),
    ],
)
def test_text_with_nul_is_found_at_any_depth(message: Message, field: str) -> None:
    found = decoded(message)
    assert isinstance(found, Unacceptable)
    [violation] = found.error.violations
    assert (violation.field, violation.description) == (field, "holds the character NUL; leave it out")


def test_a_handler_gets_no_request_that_is_none() -> None:
    broken: Any = decoder(job_pb2.GetJobRequest.FromString)(b"\xff")
    with pytest.raises(InvalidRequestError, match="its bytes cannot be read") as caught:
        checked(lambda request, context: request)(broken, None)
    assert refusal(caught).field == "request"
