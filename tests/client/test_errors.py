"""Every gRPC code becomes its exception, with all that the server said."""

import pickle

import grpc
import pytest

from chainrule.client import (
    Client,
    DeadlineExceeded,
    FieldViolation,
    InvalidArgument,
    JobFailedError,
    ResourceExhausted,
    RpcError,
    Settings,
    Unavailable,
)
from chainrule.client.errors import ERROR_OF_CODE
from chainrule.engine import ChainruleError
from tests.client.fake_server import BREAK, Failure, FakeServer


@pytest.fixture
def job(server: FakeServer) -> str:
    return server.put_job(name="jobs/1").name


def cancel(client: Client, job: str) -> RpcError:
    """What cancelling a job raises. It is a call that gRPC does not repeat."""
    with pytest.raises(RpcError) as caught:
        client.jobs.get(job).cancel()
    return caught.value


def test_every_code_but_ok_has_its_own_exception() -> None:
    assert set(ERROR_OF_CODE) == set(grpc.StatusCode) - {grpc.StatusCode.OK}
    assert all(error.code is code for code, error in ERROR_OF_CODE.items())
    assert all(issubclass(error, ChainruleError) for error in ERROR_OF_CODE.values())


@pytest.mark.parametrize("code", ERROR_OF_CODE, ids=lambda code: code.name)
def test_a_code_with_details_becomes_its_exception_with_reason_and_metadata(
    server: FakeServer, client: Client, job: str, code: grpc.StatusCode
) -> None:
    server.fail("CancelJob", Failure(code=code, message="it is so", reason="SO", metadata={"job": "jobs/1"}))
    error = cancel(client, job)
    assert type(error) is ERROR_OF_CODE[code]
    assert str(error) == "it is so"
    assert (error.reason, error.metadata) == ("SO", {"job": "jobs/1"})


@pytest.mark.parametrize("code", ERROR_OF_CODE, ids=lambda code: code.name)
def test_a_code_without_details_becomes_its_exception(
    server: FakeServer, client: Client, job: str, code: grpc.StatusCode
) -> None:
    server.fail("CancelJob", Failure(code=code, message="it is so"))
    error = cancel(client, job)
    assert type(error) is ERROR_OF_CODE[code]
    assert "it is so" in str(error)
    assert (error.reason, error.metadata, error.violations, error.retry_after_s) == ("", {}, (), None)


def test_an_error_without_words_names_the_code_and_the_address(server: FakeServer, client: Client, job: str) -> None:
    server.fail("CancelJob", Failure(code=grpc.StatusCode.ABORTED))
    assert str(cancel(client, job)) == f"the server at {server.address} answered ABORTED and said no more"


def test_refused_fields_are_violations_and_show_in_tracebacks(server: FakeServer, client: Client, job: str) -> None:
    server.fail(
        "CancelJob",
        Failure(code=grpc.StatusCode.INVALID_ARGUMENT, message="bad", violations={"name": "must be jobs/{job}"}),
    )
    error = cancel(client, job)
    assert isinstance(error, InvalidArgument)
    assert error.violations == (FieldViolation("name", "must be jobs/{job}"),)
    assert error.__notes__ == ["name: must be jobs/{job}"]


def test_a_field_that_the_message_tells_is_told_once(server: FakeServer, client: Client, job: str) -> None:
    server.fail(
        "CancelJob",
        Failure(code=grpc.StatusCode.INVALID_ARGUMENT, message="name: is bad; is wrong", violations={"name": "is bad"}),
    )
    assert not hasattr(cancel(client, job), "__notes__")


def test_the_wait_that_the_server_asks_for_is_told(server: FakeServer, client: Client, job: str) -> None:
    server.fail("CancelJob", Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="full", retry_after_s=7))
    error = cancel(client, job)
    assert isinstance(error, ResourceExhausted)
    assert error.retry_after_s == 7.0


def test_a_broken_stream_is_translated_too(server: FakeServer, client: Client, job: str) -> None:
    server.take("WatchJob", Failure(code=grpc.StatusCode.INTERNAL, message="a defect", reason="DEFECT"))
    with pytest.raises(RpcError) as caught:
        list(client.jobs.get(job).watch())
    assert type(caught.value) is ERROR_OF_CODE[grpc.StatusCode.INTERNAL]
    assert caught.value.reason == "DEFECT"


def test_unreachable_names_the_address_and_the_remedy(server: FakeServer, client: Client, job: str) -> None:
    server.fail("CancelJob", BREAK)
    error = cancel(client, job)
    assert isinstance(error, Unavailable)
    assert isinstance(error, ConnectionError)
    assert str(error) == (
        f"cannot reach a chainrule server at {server.address}: connection lost; "
        'start one with "chainrule serve", or name another with --address or CHAINRULE_ADDRESS'
    )


def test_an_unavailable_server_speaks_for_itself(server: FakeServer, client: Client, job: str) -> None:
    server.fail("CancelJob", Failure(code=grpc.StatusCode.UNAVAILABLE, message="shutting down", reason="DRAINING"))
    assert str(cancel(client, job)) == "shutting down"


def test_a_call_without_an_answer_is_deadline_exceeded(server: FakeServer) -> None:
    server.silent.add("GetJob")
    with (
        Client.connect(server.address, settings=Settings(call_timeout_s=0.2)) as client,
        pytest.raises(DeadlineExceeded, match=f"no answer from the server at {server.address} in time") as caught,
    ):
        client.jobs.get("jobs/1")
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize("kind", [*ERROR_OF_CODE.values(), JobFailedError], ids=lambda kind: kind.__name__)
def test_errors_survive_pickling(kind: type[ChainruleError]) -> None:
    error = kind("it is so", reason="SO")  # type: ignore[call-arg]
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == "it is so"
    assert vars(copy) == vars(error)


def test_what_an_error_is_about_is_told(server: FakeServer, client: Client, job: str) -> None:
    resource = ("chainrule.v1.Job", "jobs/1")
    server.fail("CancelJob", Failure(code=grpc.StatusCode.NOT_FOUND, message="no such job", resource=resource))
    error = cancel(client, job)
    assert (error.resource_type, error.resource_name) == resource
    server.fail("CancelJob", Failure(code=grpc.StatusCode.NOT_FOUND, message="no such job"))
    error = cancel(client, job)
    assert (error.resource_type, error.resource_name) == ("", "")


@pytest.mark.parametrize(("said", "added"), [("", ""), ("Method not found!", " (Method not found!)")])
def test_a_call_that_the_server_does_not_know_says_what_it_may_be(
    server: FakeServer, client: Client, job: str, said: str, added: str
) -> None:
    server.fail("CancelJob", Failure(code=grpc.StatusCode.UNIMPLEMENTED, message=said))
    assert str(cancel(client, job)) == (
        f"the server at {server.address} does not know this call: it is older than this client, or no chainrule "
        f"server{added}"
    )
