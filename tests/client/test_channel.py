"""The channel's options, and streams that outlive their connection."""

import json

import grpc
import pytest

from chainrule.client import (
    Client,
    ClientClosedError,
    DeadlineExceeded,
    Internal,
    InvalidInputError,
    RetryPolicy,
    Settings,
    Unavailable,
)
from chainrule.client.transport import channel_options, service_config
from chainrule.v1 import job_pb2
from tests.client.fake_server import BREAK, Failure, FakeServer

RUNNING, SUCCEEDED = job_pb2.Job.STATE_RUNNING, job_pb2.Job.STATE_SUCCEEDED


def job_at(step: int, state: job_pb2.Job.State.ValueType = RUNNING) -> job_pb2.Job:
    return job_pb2.Job(name="jobs/1", state=state, progress=job_pb2.Progress(step=step))


# Options


def test_exactly_the_idempotent_calls_are_repeated() -> None:
    [config] = service_config()["methodConfig"]  # type: ignore[misc]
    assert sorted(name["method"] for name in config["name"]) == [  # type: ignore[has-type]
        "CreateDataset",
        "CreateJob",
        "CreateModel",
        "CreateToken",
        "FindMissingBlobs",
        "GetDataset",
        "GetJob",
        "GetModel",
        "GetModelVersion",
        "GetServerInfo",
        "GetToken",
        "ListAuditEntries",
        "ListCheckpoints",
        "ListDatasets",
        "ListJobs",
        "ListLogs",
        "ListMetrics",
        "ListModelVersions",
        "ListModels",
        "ListNodes",
        "ListReceipts",
        "ListTokens",
        "PauseJob",
        "ResumeJob",
        "RevokeToken",
        "ScaleJob",
    ]


def test_only_unavailable_is_repeated() -> None:
    options = dict(channel_options("localhost:50051"))
    [config] = json.loads(str(options["grpc.service_config"]))["methodConfig"]
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


def test_messages_may_have_16_mib_both_ways_and_the_connection_is_kept_alive() -> None:
    options = dict(channel_options("localhost:50051"))
    assert options["grpc.max_send_message_length"] == options["grpc.max_receive_message_length"] == 16 * 1024 * 1024
    assert options["grpc.keepalive_time_ms"] == 30_000


@pytest.mark.parametrize(
    ("address", "proxy"),
    [("localhost:1", 0), ("127.0.0.1:1", 0), ("[::1]:1", 0), ("train.example:1", 1), ("localhost.example:1", 1)],
)
def test_a_proxy_does_not_stand_between_a_machine_and_itself(address: str, proxy: int) -> None:
    assert dict(channel_options(address))["grpc.enable_http_proxy"] == proxy


# Connecting


def test_connect_says_what_to_do_when_no_server_is_there(server: FakeServer) -> None:
    server.stop()
    with pytest.raises(Unavailable) as caught:
        Client.connect(server.address)
    assert f"cannot reach a chainrule server at {server.address}: " in str(caught.value)
    assert '"chainrule serve"' in str(caught.value)


def test_connect_does_not_wait_for_ever(server: FakeServer) -> None:
    server.silent.add("GetServerInfo")
    with pytest.raises(Unavailable, match=r"cannot reach a chainrule server at .*: no answer within 0\.2 s; start one"):
        Client.connect(server.address, timeout_s=0.2)


def test_connect_takes_the_address_of_the_environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_ADDRESS", server.address)
    with Client.connect() as client:
        assert client.address == server.address


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":50051", "localhost/a:50051"])
def test_an_address_without_host_or_port_is_refused_here(address: str) -> None:
    with pytest.raises(InvalidInputError, match="is not host:port, for example localhost:50051"):
        Client.connect(address)


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_a_port_that_cannot_be_is_refused_here(port: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Client.connect(f"localhost:{port}")
    assert str(caught.value) == f'address "localhost:{port}" has port {port}; it must be from 1 to 65535'


@pytest.mark.parametrize("address", ["http://localhost", "http://localhost:50051"])
def test_an_address_with_a_scheme_is_refused_here(address: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Client.connect(address)
    assert str(caught.value) == (
        f'address "{address}" has a scheme; it must be host:port alone, for example localhost:50051'
    )


def test_a_closed_client_says_so(client: Client) -> None:
    client.close()
    client.close()
    with pytest.raises(ClientClosedError, match="is closed"):
        client.server_info()


def test_a_call_is_repeated_after_a_break(server: FakeServer, client: Client) -> None:
    server.fail("ListNodes", BREAK, BREAK)
    assert [node.id for node in client.nodes()] == ["a1"]
    assert len(server.requests("ListNodes")) == 3


def test_cancelling_is_not_repeated(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    server.fail("CancelJob", BREAK)
    with pytest.raises(Unavailable):
        client.jobs.get("jobs/1").cancel()
    assert len(server.requests("CancelJob")) == 1


# Streams


@pytest.fixture
def running(server: FakeServer) -> str:
    return server.put_job(name="jobs/1", state=RUNNING).name


def test_a_stream_goes_on_after_breaks(server: FakeServer, client: Client, running: str) -> None:
    server.take("WatchJob", job_at(1), BREAK)
    server.take("WatchJob", Failure(code=grpc.StatusCode.CANCELLED, message="cut off"))
    server.take("WatchJob", job_at(2), job_at(3, SUCCEEDED))
    assert [status.progress.step for status in client.jobs.get(running).watch()] == [1, 2, 3]
    assert len(server.requests("WatchJob")) == 3


def test_a_stream_goes_on_when_the_server_comes_back(server: FakeServer, client: Client, running: str) -> None:
    statuses = client.jobs.get(running).watch()
    assert next(statuses).state == "RUNNING"
    server.stop()
    server.start()
    assert next(statuses).state == "RUNNING"
    server.put_job(name=running, state=SUCCEEDED)
    assert [status.state for status in statuses] == ["SUCCEEDED"]


def test_a_stream_that_ends_before_the_job_counts_as_broken(server: FakeServer, client: Client, running: str) -> None:
    server.take("WatchJob", job_at(1))
    server.take("WatchJob", job_at(2, SUCCEEDED))
    assert [status.progress.step for status in client.jobs.get(running).watch()] == [1, 2]


def test_a_server_that_stays_away_is_unavailable_and_not_a_failed_job(server: FakeServer, running: str) -> None:
    policy = RetryPolicy(window_s=0.2, first_delay_s=0.01, max_delay_s=0.05)
    with Client.connect(server.address, settings=Settings(retry=policy)) as client:
        statuses = client.jobs.get(running).watch()
        assert next(statuses).state == "RUNNING"
        server.stop()
        with pytest.raises(Unavailable, match="cannot reach a chainrule server"):
            next(statuses)


def test_an_error_that_is_no_break_ends_the_stream(server: FakeServer, client: Client, running: str) -> None:
    server.take("WatchJob", job_at(1), Failure(code=grpc.StatusCode.INTERNAL, message="a defect"))
    statuses = client.jobs.get(running).watch()
    next(statuses)
    with pytest.raises(Internal, match="a defect"):
        next(statuses)
    assert len(server.requests("WatchJob")) == 1


def test_a_stream_is_opened_again_when_its_own_deadline_is_over(server: FakeServer, running: str) -> None:
    with Client.connect(server.address, settings=Settings(stream_timeout_s=0.2)) as client:
        statuses = client.jobs.get(running).watch()
        next(statuses)
        next(statuses)
        assert len(server.requests("WatchJob")) == 2
        server.put_job(name=running, state=SUCCEEDED)
        assert [status.state for status in statuses][-1] == "SUCCEEDED"


def test_a_silent_stream_to_a_silent_server_is_given_up(server: FakeServer, running: str) -> None:
    settings = Settings(call_timeout_s=0.1, stream_timeout_s=0.1, retry=RetryPolicy(window_s=0.0))
    with Client.connect(server.address, settings=settings) as client:
        statuses = client.jobs.get(running).watch()
        next(statuses)
        server.silent.add("GetServerInfo")
        with pytest.raises(DeadlineExceeded, match="no answer from the server"):
            next(statuses)


def test_a_watch_ends_when_its_time_is_over(server: FakeServer, client: Client, running: str) -> None:
    statuses = client.jobs.get(running).watch(timeout_s=0.2)
    next(statuses)
    with pytest.raises(DeadlineExceeded, match=r"the 0\.2 s given"):
        next(statuses)


def test_closing_the_client_ends_a_stream(server: FakeServer, client: Client, running: str) -> None:
    statuses = client.jobs.get(running).watch()
    next(statuses)
    client.close()
    with pytest.raises(ClientClosedError):
        next(statuses)
