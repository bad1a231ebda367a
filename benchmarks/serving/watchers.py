"""What many followers of one running job cost its steps."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from benchmarks.serving.goals import Figure, Goal
from benchmarks.serving.servers import Server
from benchmarks.serving.works import NEVER_ENDS, prepared
from benchmarks.single.host import ROOT, environment
from chainrule.client import Client, Job
from chainrule.v1 import job_pb2, job_pb2_grpc

GOALS = (Goal("watchers", "steps with 1,000 watchers: how much slower", "%", 5.0),)
WATCHERS = 1000
A_CHANNEL = 100
"""Watchers on one connection."""
BEGIN_S = 3.0
"""Left out at the beginning of each window, in which streams open or close."""


def measure(server: Server, *, rounds: int, seconds: float) -> list[Figure]:
    """Windows of a running job with and without watchers, alternating."""
    slower: list[float] = []
    details: list[str] = []
    with Client.connect(server.address) as client:
        work = prepared(client, hidden=512, examples=4096, batch_size=256, workers=2, min_workers=2)
        job = client.jobs.create(**work, epochs=NEVER_ENDS)
        next(iter(job.stream_metrics(timeout_s=120.0)))
        _step_ms(job, seconds)
        for _ in range(rounds):
            before_ms = _step_ms(job, seconds)
            with _watched(server.address, job.name) as received:
                with_ms = _step_ms(job, seconds)
            after_ms = _step_ms(job, seconds)
            alone_ms = (before_ms + after_ms) / 2
            slower.append(100 * (with_ms / alone_ms - 1))
            details.append(
                f"a step takes {before_ms:.2f} ms before, {with_ms:.2f} with, {after_ms:.2f} after; "
                f"each watcher was told {received[0]:.1f} times a second"
            )
        job.cancel()
    return [Figure(GOALS[0], tuple(slower), tuple(details))]


def _step_ms(job: Job, seconds: float) -> float:
    """Mean time of a step during the next seconds, as the metrics have it."""
    time.sleep(BEGIN_S)
    first = job.status().progress.step
    time.sleep(seconds)
    found = job.metrics(after=first)
    return 1e3 * (found[-1].time - found[0].time).total_seconds() / (len(found) - 1)


@contextmanager
def _watched(address: str, job: str) -> Iterator[list[float]]:
    """Watch a job from another process meanwhile; afterwards, how often each watcher was told something a second."""
    command = [sys.executable, "-m", "benchmarks.serving.watchers", address, job]
    received: list[float] = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(1), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # all have been told once
        try:
            yield received
        finally:
            process.stdin.close()
            received.append(float(process.stdout.readline() or "nan"))


async def _watch(address: str, job: str) -> None:
    """Watch until standard input ends. Says when all streams have begun, and how much came."""
    counts = [0] * WATCHERS
    all_there = asyncio.Event()

    async def watch(number: int, stub: job_pb2_grpc.JobServiceAsyncStub) -> None:
        async for _ in stub.WatchJob(job_pb2.WatchJobRequest(name=job)):
            counts[number] += 1
            if counts[number] == 1 and min(counts) == 1:
                all_there.set()

    channels = [
        grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(WATCHERS // A_CHANNEL)
    ]
    stubs: list[job_pb2_grpc.JobServiceAsyncStub] = [job_pb2_grpc.JobServiceStub(channel) for channel in channels]
    tasks = [asyncio.ensure_future(watch(number, stubs[number % len(stubs)])) for number in range(WATCHERS)]
    await all_there.wait()
    print("there", flush=True)
    before, began_s = sum(counts), time.monotonic()
    await asyncio.to_thread(sys.stdin.read)
    print((sum(counts) - before) / WATCHERS / (time.monotonic() - began_s), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for channel in channels:
        await channel.close()


def main() -> None:
    """What runs in the process of the watchers."""
    parser = argparse.ArgumentParser(description="Watches a job many times over.")
    parser.add_argument("address")
    parser.add_argument("job")
    options = parser.parse_args()
    asyncio.run(_watch(options.address, options.job))


if __name__ == "__main__":
    main()
