"""What a job is submitted with, beside its configuration; and checking it without submitting it."""

import inspect
from typing import Any

import grpc
import pytest

from chainrule.client import Client, InvalidArgument, InvalidInputError, JobState
from chainrule.client.jobs import Jobs
from chainrule.client.submission import job_request
from chainrule.v1 import model_pb2
from tests.client.fake_server import NOW, Failure, FakeServer


def test_a_job_has_labels_a_description_and_a_priority(server: FakeServer, client: Client) -> None:
    job = client.jobs.create(model="m", dataset="d", labels={"team": "vision"}, description="try", priority=-3)
    status = job.status()
    assert (status.labels, status.description, status.priority) == ({"team": "vision"}, "try", -3)


@pytest.mark.parametrize("priority", [1.5, "high", 2**31])
def test_a_priority_that_cannot_be_sent_is_refused_here(client: Client, priority: object) -> None:
    with pytest.raises(InvalidInputError, match=r"priority is .*; it must be a whole number from -100 to 100"):
        client.jobs.create(model="m", dataset="d", priority=priority)  # type: ignore[arg-type]


def test_a_job_begins_with_a_model_or_one_of_its_versions(server: FakeServer, client: Client) -> None:
    model = client.models.create_from_family("m", "mlp")
    name = "models/m/versions/2"
    server.versions[name] = model_pb2.ModelVersion(name=name, create_time=NOW)
    for given in (model, client.models.version("m", 2), "m/versions/latest", "models/m"):
        client.jobs.create(model=given, dataset="d")
    assert [request.job.model for request in server.requests("CreateJob")] == [
        "models/m",
        "models/m/versions/2",
        "models/m/versions/latest",
        "models/m",
    ]


def test_a_check_submits_nothing_and_tells_what_would_be(server: FakeServer, client: Client) -> None:
    status = client.jobs.check(model="m", dataset="d", epochs=7, labels={"a": "b"})
    assert (status.name, status.state, status.config.epochs, status.labels) == ("", JobState.UNKNOWN, 7, {"a": "b"})
    [request] = server.requests("CreateJob")
    assert request.validate_only
    assert server.jobs == {}


def test_a_check_raises_what_submitting_would(server: FakeServer, client: Client) -> None:
    refusal = Failure(
        code=grpc.StatusCode.INVALID_ARGUMENT, message="no", violations={"job.config.shards": "is 9; at most 4"}
    )
    server.fail("CreateJob", refusal)
    with pytest.raises(InvalidArgument) as caught:
        client.jobs.check(model="m", dataset="d", shards=9)
    assert [violation.field for violation in caught.value.violations] == ["shards"]


def test_creating_and_checking_take_the_same_named_arguments() -> None:
    wanted = inspect.signature(job_request).parameters
    for method in (Jobs.create, Jobs.check):
        given = inspect.signature(method).parameters
        assert list(given) == ["self", *wanted]
        assert {name: given[name] for name in wanted} == dict(wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epoch": 3}, r"a job has no argument epoch; did you mean epochs\? help\(client\.jobs\.create\) and docs/"),
        ({"losses": "mse"}, r"no argument losses; did you mean loss\?"),
        ({"verbose": True}, r"no argument verbose; it takes model, dataset, epochs, .*, request_id\. help"),
    ],
)
def test_an_argument_that_there_is_not_is_named_with_the_nearest(
    server: FakeServer, client: Client, arguments: dict[str, Any], message: str
) -> None:
    for call in (client.jobs.create, client.jobs.check):
        with pytest.raises(TypeError, match=message):
            call(model="m", dataset="d", **arguments)
    assert server.requests("CreateJob") == []


def test_a_job_without_a_dataset_is_told_so(client: Client) -> None:
    with pytest.raises(TypeError, match=r'nothing says which dataset to take; give dataset="digits", or a handle'):
        client.jobs.create(model="m")  # type: ignore[call-arg]


def test_names_stand_for_what_has_its_defaults(server: FakeServer, client: Client) -> None:
    client.jobs.create(
        model="m", dataset="d", optimizer="adam", schedule="cosine", loss="mse", metrics="mae", request_id="r"
    )
    client.jobs.create(
        model="m",
        dataset="d",
        optimizer={"name": "adam"},
        schedule={"decay": "cosine"},
        loss=[{"name": "mse"}],
        metrics=[{"name": "mae"}],
        request_id="r",
    )
    first, second = server.requests("CreateJob")
    assert first == second
