"""Logs of a real job: of all its processes, resumed without gaps, and kept when the service is started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from chainrule.client import Client
from chainrule.v1 import job_pb2, job_pb2_grpc
from tests.integration.conftest import Images, ServerProcess, processes, submit


@contextmanager
def stub_of(address: str) -> Iterator[job_pb2_grpc.JobServiceStub]:
    with grpc.insecure_channel(address) as channel:
        yield job_pb2_grpc.JobServiceStub(channel)


def listed(jobs: job_pb2_grpc.JobServiceStub, name: str) -> list[job_pb2.LogEntry]:
    return list(jobs.ListLogs(job_pb2.ListLogsRequest(name=name, page_size=10_000), timeout=30).entries)


def test_a_job_keeps_the_logs_of_all_its_processes(make_server: Callable[..., ServerProcess], images: Images) -> None:
    server = make_server("logs")
    server.start()
    with Client.connect(server.address) as client, stub_of(server.address) as jobs:
        job = submit(client, images, epochs=100, workers=2)
        streamed: list[job_pb2.LogEntry] = []
        stream = jobs.StreamLogs(job_pb2.StreamLogsRequest(name=job.name), timeout=120)
        for response in stream:
            streamed += response.entries
            if {entry.source for entry in streamed} >= {"worker 1", "partition 0"}:
                break
        stream.cancel()  # ... and another goes on where this one stopped
        victim = processes("ray::WorkerActor.run")[0]
        os.kill(victim, signal.SIGKILL)
        after = job_pb2.StreamLogsRequest(name=job.name, after_sequence=streamed[-1].sequence)
        for response in jobs.StreamLogs(after, timeout=120):
            streamed += response.entries
        job.wait(timeout_s=60)
        found = listed(jobs, job.name)
    assert [entry.sequence for entry in streamed] == list(range(1, len(streamed) + 1))
    assert streamed == found
    sources = {entry.source for entry in found}
    assert sources >= {"service", "coordinator", "partition 0", "worker 1", "worker 2"}
    nodes = {entry.node for entry in found if entry.source != "service"}
    assert len(nodes) == 1
    assert "" not in nodes
    assert {entry.attempt for entry in found if entry.source == "coordinator"} == {1}
    dead = [entry for entry in found if entry.severity == job_pb2.LogEntry.SEVERITY_WARNING]
    assert any(entry.source == "coordinator" and "is gone" in entry.message for entry in dead)
    server.kill()
    server.start()
    with stub_of(server.address) as jobs:
        assert listed(jobs, job.name) == found
