"""Errors of the server speak of the SDK's arguments and calls, whatever the API calls them."""

import inspect
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from chainrule.client import Client, InvalidArgument, Job, Sgd
from chainrule.client.config import TrainingConfig
from chainrule.client.submission import job_request
from chainrule.client.transport import SERVICE_FILES
from chainrule.client.words import CALLS, argument_of, in_own_words
from chainrule.v1 import job_pb2
from tests.client.fake_server import Failure, FakeServer


@pytest.mark.parametrize(
    ("path", "argument"),
    [
        ("job.config.epochs", "epochs"),
        ("job.config.sgd.lr", "optimizer.lr"),
        ("job.config.schedule.gamma", "schedule.gamma"),
        ("job.config.trainable[2]", "trainable[2]"),
        ("job.model", "model"),
        ("job.labels", "labels"),
        ("job.config", "job.config"),
        ("model.builtin.config.num_classes", "config.num_classes"),
        ("model.weights_digest", "weights"),
        ("dataset.digest", "inputs, targets"),
        ("dataset_id", "dataset_id"),
        ("token_id", "token"),
        ("token.secret_digest", "secret"),
        ("token.scopes", "scopes"),
        ("inputs[0].dtype", "x[0].dtype"),
        ("request.inputs[0]", "x[0]"),
        ("request.top_k", "top_k"),
        ("modelling", "modelling"),
        ("page_size", "limit"),
        ("name", "name"),
        ("", ""),
    ],
)
def test_a_field_is_known_by_the_name_of_its_argument(path: str, argument: str) -> None:
    assert argument_of(path) == argument


def paths(message: Descriptor, prefix: str) -> Iterator[str]:
    """The paths of all fields of a configuration, with those inside them."""
    for field in message.fields:
        yield f"{prefix}.{field.name}"
        if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type is not None:
            yield from paths(field.message_type, f"{prefix}.{field.name}")


def test_every_field_of_a_jobs_configuration_is_an_argument_of_create() -> None:
    arguments = set(inspect.signature(job_request).parameters)
    for path in paths(job_pb2.TrainingConfig.DESCRIPTOR, "job.config"):
        assert argument_of(path).partition(".")[0] in arguments, path
    assert argument_of("job.config.sgd.nesterov") == "optimizer.nesterov"
    assert hasattr(Sgd(), "nesterov")
    assert set(TrainingConfig.__dataclass_fields__) - {"losses"} | {"loss"} <= arguments


def test_every_call_of_the_api_has_a_name_in_the_sdk(client: Client) -> None:
    methods = {m.name for file in SERVICE_FILES for service in file.services_by_name.values() for m in service.methods}
    assert set(CALLS) == methods
    for call in CALLS.values():
        group, _, method = call.rpartition(".")
        if group == "access" and not hasattr(client, group):
            continue  # another part of the client
        assert callable(getattr(Job if group == "job" else getattr(client, group) if group else client, method))


def test_only_whole_names_are_replaced() -> None:
    text = "job.config.epochs: is 0; job.config.epochs_max is fine; see WriteBlob, not WriteBlobs"
    assert in_own_words(text, {"job.config.epochs": "epochs"}) == (
        "epochs: is 0; job.config.epochs_max is fine; see blobs.upload, not WriteBlobs"
    )


def test_a_refusal_speaks_of_arguments(server: FakeServer, client: Client) -> None:
    violations = {"job.config.adam.lr": "is -1; it must be above 0", "job.config.shards": "is 9"}
    message = "; ".join(f"{field}: {text}" for field, text in violations.items())
    server.fail("CreateJob", Failure(code=grpc.StatusCode.INVALID_ARGUMENT, message=message, violations=violations))
    with pytest.raises(InvalidArgument) as caught:
        client.jobs.create(model="m", dataset="d", optimizer={"name": "adam", "lr": -1})
    assert str(caught.value) == "optimizer.lr: is -1; it must be above 0; shards: is 9"
    assert [violation.field for violation in caught.value.violations] == ["optimizer.lr", "shards"]
    assert [violation.path for violation in caught.value.violations] == list(violations)
    assert not hasattr(caught.value, "__notes__")
