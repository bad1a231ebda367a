"""The channel's options, and streams that outlive their connection."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from threading import Event, Thread

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from chainrule.client import (
    Client,
    ClientClosedError,
    DeadlineExceeded,
    Internal,
    InvalidInputError,
    ResourceExhausted,
    RetryPolicy,
    Settings,
    Unavailable,
)
from chainrule.client.transport import SERVICE_FILES, channel_options, is_repeatable
from chainrule.v1 import job_pb2
from tests.client.fake_server import BREAK, Failure, FakeServer

RUNNING, SUCCEEDED = job_pb2.Job.STATE_RUNNING, job_pb2.Job.STATE_SUCCEEDED


def job_at(step: int, state: job_pb2.Job.State.ValueType = RUNNING) -> job_pb2.Job:
    return job_pb2.Job(name="jobs/1", state=state, progress=job_pb2.Progress(step=step))


# Options


def test_exactly_the_idempotent_calls_are_repeated() -> None:
    methods = [
        method for file in SERVICE_FILES for service in file.services_by_name.values() for method in service.methods
    ]
    assert sorted(method.name for method in methods if is_repeatable(GetMessageClass(method.input_type)())) == [
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
        "Predict",
        "ResumeJob",
        "RevokeToken",
        "ScaleJob",
    ]


def test_no_two_methods_have_the_same_request() -> None:
    requests = [
        method.input_type.full_name
        for file in SERVICE_FILES
        for service in file.services_by_name.values()
        for method in service.methods
    ]
    assert len(set(requests)) == len(requests)


def test_what_names_an_etag_is_not_repeated() -> None:
    assert is_repeatable(job_pb2.PauseJobRequest(name="jobs/1"))
    assert not is_repeatable(job_pb2.PauseJobRequest(name="jobs/1", etag="7"))


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


def test_connect_is_patient_with_a_server_that_is_slow_to_shake_hands(server: FakeServer) -> None:
    with slow_relay(server.address, delay_s=0.5) as address, Client.connect(address) as client:
        assert client.server_info().version


@contextmanager
def slow_relay(address: str, *, delay_s: float) -> Iterator[str]:
    """An address whose connections are taken at once, and passed on to another after a while."""
    host, _, port = address.rpartition(":")

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                taken, _ = listener.accept()
                ended.wait(delay_s)
                passed_on = socket.create_connection((host, int(port)))
                sockets.extend((taken, passed_on))
                for pair in ((taken, passed_on), (passed_on, taken)):
                    threads.append(Thread(target=carry, args=pair))
                    threads[-1].start()

    ended, sockets = Event(), list[socket.socket]()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = [Thread(target=serve)]
        threads[0].start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
    threads[0].join()
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    for each in sockets:
        each.close()


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


def test_a_call_with_an_etag_is_left_to_the_caller(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1", state=RUNNING, etag="7")
    server.fail("PauseJob", BREAK)
    with pytest.raises(Unavailable, match="connection lost"):  # and not Aborted: it may be paused, by this very call
        client.jobs.get("jobs/1").pause(etag="7")
    assert len(server.requests("PauseJob")) == 1


def test_a_plain_call_waits_for_a_server_that_comes_back(
    server: FakeServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    server.stop()
    with ThreadPoolExecutor(1) as pool:
        nodes = pool.submit(client.nodes)
        while not caplog.records:  # it has begun to wait
            wait([nodes], timeout=0.01)
        server.start()
        assert [node.id for node in nodes.result(timeout=30)] == ["a1"]
    assert [record.getMessage() for record in caplog.records][1:] == ["the server answers again"]


def test_a_server_that_stays_away_ends_a_plain_call_with_the_window(server: FakeServer) -> None:
    policy = RetryPolicy(window_s=0.2, first_delay_s=0.01, max_delay_s=0.05)
    with Client.connect(server.address, settings=Settings(retry=policy)) as client:
        server.stop()
        with pytest.raises(Unavailable, match="cannot reach a chainrule server"):
            client.nodes()


STOPPING = Failure(code=grpc.StatusCode.UNAVAILABLE, message="going", reason="STOPPING", retry_after_s=0)
TOO_MANY = Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="wait", reason="TOO_MANY_CALLS", retry_after_s=0)


@pytest.mark.parametrize("refusal", [STOPPING, TOO_MANY])
def test_a_call_that_was_refused_before_it_began_is_made_again(
    refusal: Failure, server: FakeServer, client: Client
) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    server.fail("CancelJob", refusal, refusal)
    client.jobs.get("jobs/1").cancel()
    assert len(server.requests("CancelJob")) == 3


def test_connecting_waits_for_a_server_that_is_being_replaced(server: FakeServer) -> None:
    server.fail("GetServerInfo", STOPPING, BREAK)
    with Client.connect(server.address):
        assert len(server.requests("GetServerInfo")) == 3


def test_what_has_no_room_is_not_sent_again(server: FakeServer, client: Client) -> None:
    full = Failure(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="full", reason="QUEUE_FULL", retry_after_s=0)
    server.fail("ListNodes", full)
    with pytest.raises(ResourceExhausted, match="full"):
        client.nodes()
    assert len(server.requests("ListNodes")) == 1


# Streams


def test_a_stream_that_is_refused_after_a_break_goes_on(server: FakeServer, client: Client, running: str) -> None:
    server.take("WatchJob", job_at(1), BREAK)
    server.take("WatchJob", TOO_MANY)
    server.take("WatchJob", job_at(2, SUCCEEDED))
    assert [status.progress.step for status in client.jobs.get(running).watch()] == [1, 2]


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
        with pytest.raises(Unavailable, match=r"cannot reach a chainrule server at .*: no answer within 0\.1 s; "):
            next(statuses)


def test_a_wait_for_a_job_says_that_the_server_is_silent(server: FakeServer, running: str) -> None:
    settings = Settings(call_timeout_s=0.1, stream_timeout_s=0.1, retry=RetryPolicy(window_s=0.0))
    with Client.connect(server.address, settings=settings) as client:
        job = client.jobs.get(running)
        server.silent |= {"WatchJob", "GetServerInfo"}
        with pytest.raises(Unavailable, match=r"no answer within 0\.1 s"):
            job.wait()


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
