"""The client for asyncio beside the one for threads called from asyncio: `python benchmarks/client.py`.

Both ask one server, of a process of its own, which answers from memory: how many calls of 32 callers are answered in a
second, and how many threads 500 waits for a job take.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is found

from benchmarks.machine import describe, load
from benchmarks.serving.servers import Server
from chainrule.client import AsyncClient, Client
from chainrule.v1 import cluster_pb2, job_pb2

CALLERS, WAITS = 32, 500
JOB = job_pb2.Job(name="jobs/echo", state=job_pb2.Job.STATE_RUNNING)


async def server_info(_request: Any, _context: Any) -> cluster_pb2.ServerInfo:
    """The server."""
    return cluster_pb2.ServerInfo()


async def get_job(_request: Any, _context: Any) -> job_pb2.Job:
    """The job."""
    return JOB


async def watch_job(_request: Any, _context: Any) -> AsyncIterator[job_pb2.Job]:
    """The job, and then nothing."""
    yield JOB
    await asyncio.Event().wait()


async def serve(address_file: Path) -> None:
    """Serve until SIGTERM."""
    server = grpc.aio.server()
    asked_one: Any = grpc.unary_unary_rpc_method_handler
    jobs = {
        "GetJob": asked_one(get_job, job_pb2.GetJobRequest.FromString, job_pb2.Job.SerializeToString),
        "WatchJob": grpc.unary_stream_rpc_method_handler(
            cast(Any, watch_job), job_pb2.WatchJobRequest.FromString, job_pb2.Job.SerializeToString
        ),
    }
    cluster = {
        "GetServerInfo": asked_one(
            server_info, cluster_pb2.GetServerInfoRequest.FromString, cluster_pb2.ServerInfo.SerializeToString
        )
    }
    for name, methods in (("JobService", jobs), ("ClusterService", cluster)):
        handler = grpc.method_handlers_generic_handler(f"chainrule.v1.{name}", methods)
        server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.start()
    temporary = address_file.with_suffix(".new")
    temporary.write_text(f"127.0.0.1:{port}\n")
    temporary.rename(address_file)
    await stop.wait()
    await server.stop(0)


async def asked(ask: Callable[[], Awaitable[object]], seconds: float) -> float:
    """Calls a second of all callers together."""
    end = time.perf_counter() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await ask()
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return done / (time.perf_counter() - began)


async def measure(address: str, *, rounds: int, seconds: float) -> None:
    """Print what comes of both."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(WAITS) as pool, Client.connect(address) as client:
        async with await AsyncClient.connect(address) as aio:
            theirs, ours = client.jobs.get("echo"), await aio.jobs.get("echo")

            async def in_threads() -> None:
                await loop.run_in_executor(pool, theirs.status)

            ratios = []
            for _ in range(rounds):
                threads, tasks = await asked(in_threads, seconds), await asked(ours.status, seconds)
                ratios.append(tasks / threads)
                print(f"GetJob of {CALLERS} callers: {threads:,.0f} a second in threads, {tasks:,.0f} in tasks")
            print(f"tasks over threads: {statistics.median(ratios):.2f}")
            before = threading.active_count()
            waits = [asyncio.ensure_future(anext(aiter(ours.watch()))) for _ in range(WAITS)]
            await asyncio.gather(*waits)
            print(f"{WAITS} waits in tasks: {threading.active_count() - before} threads more")
        all_there, seen = asyncio.Event(), threading.Event()

        def tell() -> None:
            loop.call_soon_threadsafe(all_there.set)

        arrived = threading.Barrier(WAITS, action=tell)

        def follow() -> None:
            next(theirs.watch())
            arrived.wait()
            seen.wait()

        running = [loop.run_in_executor(pool, follow) for _ in range(WAITS)]
        await all_there.wait()
        print(f"{WAITS} waits in threads: {threading.active_count()} threads in all")
        seen.set()
        await asyncio.gather(*running)


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="The client for asyncio beside the one for threads.")
    parser.add_argument("--rounds", type=int, default=3, help="of the calls")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement of calls")
    parser.add_argument("--address-file", type=Path, help=argparse.SUPPRESS)  # the server's process
    options = parser.parse_args()
    if options.address_file:
        asyncio.run(serve(options.address_file))
        return 0
    print("\n".join(f"{name}: {text}" for name, text in describe("client").items()), flush=True)
    with Server(str(Path(__file__).resolve())) as server:
        asyncio.run(measure(server.address, rounds=options.rounds, seconds=options.seconds))
    print(f"load at the end: {load()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
