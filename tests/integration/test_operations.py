"""A real server, looked after: its settings from a file, its numbers, its log, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from prometheus_client.parser import text_string_to_metric_families

from chainrule.client import Client, JobCancelledError, JobState
from chainrule.v1 import blob_pb2, blob_pb2_grpc, cluster_pb2, cluster_pb2_grpc, job_pb2, job_pb2_grpc
from tests.integration.conftest import STOP_TIMEOUT_S, Images, ServerProcess, submit, wait_for

MakeServer = Callable[..., ServerProcess]


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metrics_of(server: ServerProcess) -> str:
    """Address of its metrics, as host:port."""
    return server.log().partition("metrics on http://")[2].partition("/metrics")[0]


def samples(server: ServerProcess) -> dict[str, float]:
    code, text = get(f"http://{metrics_of(server)}/metrics")
    assert code == 200
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def trailing(call: Any) -> dict[str, Any]:
    """What came with the end of a call, or of one that failed."""
    return dict(call.trailing_metadata())


def status_of(call: Any) -> Any:
    """The google.rpc.Status that a call failed with."""
    return rpc_status.from_call(call)


def call_bytes(channel: Any, path: str) -> None:
    """Call a method that no stub has."""
    channel.unary_unary(path)(b"", timeout=30)


def log_lines(server: ServerProcess) -> list[dict[str, str]]:
    return [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]


@pytest.fixture
def looked_after(make_server: MakeServer, tmp_path: Path) -> ServerProcess:
    """A server with metrics and a log in JSON, by a file."""
    file = tmp_path / "serve.toml"
    file.write_text('metrics-port = 0\nlog-format = "json"\ngrace = 20\n')
    server = make_server("data", "--config", str(file))
    server.start()
    return server


def test_numbers_and_log_tell_of_calls_and_of_a_job(looked_after: ServerProcess, images: Images) -> None:
    with Client.connect(looked_after.address) as client:
        job = submit(client, images)
        status = job.wait(timeout_s=120)
    with grpc.insecure_channel(looked_after.address) as channel:
        jobs = job_pb2_grpc.JobServiceStub(channel)
        _, call = jobs.GetJob.with_call(
            job_pb2.GetJobRequest(name=job.name), metadata=(("x-request-id", "mine-1"),), timeout=30
        )
        assert trailing(call)["x-request-id"] == "mine-1"
        with pytest.raises(grpc.RpcError) as refused:
            jobs.GetJob(job_pb2.GetJobRequest(name="jobs/none"), timeout=30)
        assert len(trailing(refused.value)["x-request-id"]) == 16
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert "grpc-status-details-bin" in trailing(refused.value)
        for i in range(3):
            with pytest.raises(grpc.RpcError):
                call_bytes(channel, f"/chainrule.v1.JobService/Nothing{i}")
    found = samples(looked_after)
    assert found['chainrule_grpc_calls_total{code="OK",method="JobService/CreateJob"}'] == 1
    assert found['chainrule_grpc_calls_total{code="NOT_FOUND",method="JobService/GetJob"}'] == 1
    assert found['chainrule_grpc_calls_total{code="UNIMPLEMENTED",method="unknown"}'] == 3
    assert not any("Nothing" in name for name in found)
    assert found['chainrule_grpc_call_seconds_count{method="JobService/CreateJob"}'] == 1
    assert found['chainrule_jobs{state="SUCCEEDED"}'] == 1
    assert found["chainrule_training_steps_total"] == status.progress.total_steps
    assert found["chainrule_blobs"] > 2
    assert found['chainrule_grpc_open_streams{method="JobService/WatchJob"}'] == 0
    assert get(f"http://{metrics_of(looked_after)}/healthz") == (200, "serving\n")
    of_job = [line for line in log_lines(looked_after) if line.get("job") == job.name]
    assert any("attempt 1" in line["message"] for line in of_job)
    assert looked_after.terminate() == 0, looked_after.log()


class Slow:
    """Chunks of an upload, the last of which waits for `go_on`."""

    def __init__(self, content: bytes, digest: str) -> None:
        self._content = content
        self._digest = digest
        self.sent = threading.Event()
        self.go_on = threading.Event()

    def __iter__(self) -> Iterator[blob_pb2.WriteBlobRequest]:
        yield blob_pb2.WriteBlobRequest(blob=blob_pb2.Blob(digest=self._digest, size_bytes=len(self._content)))
        yield blob_pb2.WriteBlobRequest(chunk=self._content[:-1])
        self.sent.set()
        assert self.go_on.wait(60)
        yield blob_pb2.WriteBlobRequest(chunk=self._content[-1:])


def begin_upload(channel: grpc.Channel, content: bytes) -> tuple[Slow, Any]:
    """An upload that has begun, as far as the server is concerned."""
    from hashlib import sha256

    blobs = blob_pb2_grpc.BlobServiceStub(channel)
    digest = sha256(content).hexdigest()
    slow = Slow(content, digest)
    call = blobs.WriteBlob.future(iter(slow), timeout=120)
    assert slow.sent.wait(60)
    wait_for(
        lambda: blobs.QueryWriteStatus(blob_pb2.QueryWriteStatusRequest(digest=digest)).committed_bytes > 0,
        60,
        "the upload to arrive",
    )
    return slow, call


def test_a_server_that_is_told_to_stop_drains(looked_after: ServerProcess, images: Images) -> None:
    """Health says so, new calls are refused with a time to try again, followers are sent away, an upload ends, and the
    job goes on at the next start."""
    with grpc.insecure_channel(looked_after.address) as channel, Client.connect(looked_after.address) as client:
        health: Any = health_pb2_grpc.HealthStub(channel)
        jobs = job_pb2_grpc.JobServiceStub(channel)
        job = submit(client, images, epochs=2000)
        following = iter(jobs.WatchJob(job_pb2.WatchJobRequest(name=job.name), timeout=120))
        while next(following).state != job_pb2.Job.STATE_RUNNING:
            pass
        slow, uploading = begin_upload(channel, b"slowly" * 1000)

        os.kill(looked_after.pid, signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as ended:
            for _ in following:
                pass
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "being stopped" in str(ended.value.details())
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert get(f"http://{metrics_of(looked_after)}/healthz") == (503, "draining\n")
        with pytest.raises(grpc.RpcError) as refused:
            cluster_pb2_grpc.ClusterServiceStub(channel).GetServerInfo(cluster_pb2.GetServerInfoRequest(), timeout=30)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in status_of(refused.value).details)
        assert retry.retry_delay.seconds == 2

        assert not looked_after.has_ended()
        slow.go_on.set()
        assert uploading.result(60).size_bytes == 6000
        wait_for(looked_after.has_ended, STOP_TIMEOUT_S, "the server to end")
        assert looked_after.terminate() == 0, looked_after.log()

    looked_after.start()
    with Client.connect(looked_after.address) as client:
        again = client.jobs.get(job.name)
        wait_for(lambda: again.status().progress.step > 0, 60, "the job to go on")
        again.cancel()
        with pytest.raises(JobCancelledError):
            again.wait(timeout_s=60)


def test_the_sdk_follows_a_job_through_a_restart(make_server: MakeServer, images: Images) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = make_server("data", "--port", str(port))
    server.start()
    with Client.connect(server.address) as client:
        following = submit(client, images, epochs=150).watch()
        while next(following).state is not JobState.RUNNING:
            pass
        assert server.terminate() == 0, server.log()
        server.start()
        *_, last = following
    assert last.state is JobState.SUCCEEDED
    assert "the service was restarted" in [change.reason for change in last.history]


def test_a_second_signal_does_not_wait_for_calls(make_server: MakeServer) -> None:
    server = make_server("data", "--grace", "3600")
    server.start()
    with grpc.insecure_channel(server.address) as channel:
        slow, uploading = begin_upload(channel, bytes(np.arange(1000, dtype=np.uint8)))
        os.kill(server.pid, signal.SIGTERM)
        wait_for(lambda: "stopping ..." in server.log(), 30, "the server to drain")
        assert not server.has_ended()
        os.kill(server.pid, signal.SIGINT)
        wait_for(server.has_ended, STOP_TIMEOUT_S, "the server to end")
        assert server.terminate() == 0, server.log()
        with pytest.raises(grpc.RpcError):
            uploading.result(60)
        slow.go_on.set()


def test_a_port_of_metrics_in_use_is_named_and_nothing_is_left(looked_after: ServerProcess, tmp_path: Path) -> None:
    port = metrics_of(looked_after).rpartition(":")[2]
    folder = tmp_path / "new" / "data"
    command = [sys.executable, "-m", "chainrule.client", "serve", "--port", "0", "--metrics-port", port]
    result = subprocess.run(
        [*command, "--data-dir", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port} for metrics: address already in use" in result.stderr
    assert not folder.parent.exists()


def test_the_server_that_has_a_folder_is_named(looked_after: ServerProcess) -> None:
    command = [sys.executable, "-m", "chainrule.client", "admin", "gc", "--data-dir", str(looked_after.data_dir)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert f"in use by another server (process {looked_after.pid}, at {looked_after.address})" in result.stderr
