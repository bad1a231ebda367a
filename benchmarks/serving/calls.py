"""GetJob with many jobs stored, against the same stack answering from memory."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import grpc

from benchmarks.serving.bare import SERVICE
from benchmarks.serving.goals import Figure, Goal
from benchmarks.serving.servers import Server, bare
from benchmarks.serving.works import NEVER_ENDS, prepared
from chainrule.client import Client
from chainrule.v1 import job_pb2, job_pb2_grpc

GOALS = (
    Goal("get-job", "GetJob: rate over that of an echo", "", 0.6, at_least=True),
    Goal("get-job", "GetJob: 99th percentile, 32 at a time", "ms", 10.0),
)
JOBS = 1000
AT_A_TIME = 32
Ask = Callable[[int], Awaitable[object]]


def measure(server: Server, *, rounds: int, seconds: float) -> list[Figure]:
    """Ask for one job after the other, 32 at a time, alternately of the service and of the echo."""
    names, reply_bytes = _store_jobs(server)
    with bare(reply_bytes) as echo:
        ratios, latencies, details = asyncio.run(_compare(server.address, echo.address, names, rounds, seconds))
    details.append(f"{JOBS} jobs stored, messages of {reply_bytes} bytes")
    return [Figure(GOALS[0], tuple(ratios), tuple(details)), Figure(GOALS[1], tuple(latencies))]


def _store_jobs(server: Server) -> tuple[list[str], int]:
    """Submit jobs behind one that has all of the cluster, and cancel them; returns their names and the size of one."""
    with Client.connect(server.address) as client, grpc.insecure_channel(server.address) as channel:
        small = prepared(client, hidden=16, examples=64, batch_size=16, workers=2, min_workers=2)
        ended = client.jobs.create(**small, epochs=10)
        ended.wait(timeout_s=120.0)
        first = client.jobs.create(**small, epochs=NEVER_ENDS)
        jobs = job_pb2_grpc.JobServiceStub(channel)
        names = []
        for _ in range(JOBS - 2):
            names.append(client.jobs.create(**small, epochs=1).name)
            jobs.CancelJob(job_pb2.CancelJobRequest(name=names[-1]))
        first.cancel()
        reply = jobs.GetJob(job_pb2.GetJobRequest(name=names[0]))
    return [ended.name, *names, first.name], reply.ByteSize()


async def _compare(
    ours: str, theirs: str, names: list[str], rounds: int, seconds: float
) -> tuple[list[float], list[float], list[str]]:
    async with grpc.aio.insecure_channel(ours) as channel, grpc.aio.insecure_channel(theirs) as other:
        stub = job_pb2_grpc.JobServiceStub(channel)
        echo = other.unary_unary(f"/{SERVICE}/GetJob", job_pb2.GetJobRequest.SerializeToString, job_pb2.Job.FromString)

        async def ask_ours(number: int) -> None:
            await stub.GetJob(job_pb2.GetJobRequest(name=names[number % len(names)]))

        async def ask_echo(number: int) -> None:
            await echo(job_pb2.GetJobRequest(name=names[number % len(names)]))

        ratios, p99s, details = [], [], []
        began_s = time.perf_counter()
        for first in range(0, len(names), AT_A_TIME):
            await asyncio.gather(*map(ask_ours, range(first, first + AT_A_TIME)))
        details.append(f"each job for the first time: {len(names) / (time.perf_counter() - began_s):.0f} a second")
        await _asked(ask_echo, 0.5)
        for _ in range(rounds):
            mine, slowest_ms = await _asked(ask_ours, seconds)
            echoes, echo_ms = await _asked(ask_echo, seconds)
            ratios.append(mine / echoes)
            p99s.append(slowest_ms)
            details.append(f"{mine:.0f} and {echoes:.0f} a second, p99 {slowest_ms:.1f} and {echo_ms:.1f} ms")
    return ratios, p99s, details


async def _asked(ask: Ask, seconds: float) -> tuple[float, float]:
    """Calls a second, and the 99th percentile of how long one takes, in ms."""
    times: list[float] = []
    began_s = time.perf_counter()

    async def caller(number: int) -> None:
        while time.perf_counter() - began_s < seconds:
            asked_s = time.perf_counter()
            await ask(number)
            times.append(time.perf_counter() - asked_s)
            number += AT_A_TIME

    await asyncio.gather(*(caller(number) for number in range(AT_A_TIME)))
    rate = len(times) / (time.perf_counter() - began_s)
    return rate, 1e3 * statistics.quantiles(times, n=100)[-1]
