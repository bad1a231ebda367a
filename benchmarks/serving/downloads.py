"""A download, against a bare stream of the same chunks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import grpc
import numpy as np

from benchmarks.serving.bare import OPTIONS, SERVICE
from benchmarks.serving.goals import Figure, Goal
from benchmarks.serving.servers import Server, bare
from chainrule.client import Client
from chainrule.v1 import blob_pb2, blob_pb2_grpc

GOALS = (Goal("download", "47 MB down: speed over that of a bare stream", "", 0.9, at_least=True),)
BLOB_BYTES = 46_800_000
A_ROUND = 5
"""Downloads of each side; the fastest counts, as the rest of the machine only ever slows one down."""

Download = Callable[[], Awaitable[int]]


def measure(server: Server, *, rounds: int) -> list[Figure]:
    """Download a dataset's blob, alternately from the service and from a server that has the bytes in memory."""
    digest = _store(server)
    with bare(0) as other:
        ratios, details = asyncio.run(_compare(server.address, other.address, digest, rounds))
    return [Figure(GOALS[0], tuple(ratios), tuple(details))]


def _store(server: Server) -> str:
    with Client.connect(server.address) as client:
        inputs = np.random.default_rng(0).normal(size=(BLOB_BYTES // 4000, 1000)).astype(np.float32)
        dataset = client.datasets.create("download", inputs=inputs, targets=np.zeros(len(inputs), np.int64))
        return dataset.digest


async def _compare(ours: str, theirs: str, digest: str, rounds: int) -> tuple[list[float], list[str]]:
    async with (
        grpc.aio.insecure_channel(ours, options=OPTIONS) as channel,
        grpc.aio.insecure_channel(theirs, options=OPTIONS) as other,
    ):
        stub = blob_pb2_grpc.BlobServiceStub(channel)
        stream = other.unary_stream(
            f"/{SERVICE}/ReadBlob",
            blob_pb2.ReadBlobRequest.SerializeToString,
            blob_pb2.ReadBlobResponse.FromString,
        )
        size = 0

        async def download_ours() -> int:
            return sum([len(part.chunk) async for part in stub.ReadBlob(blob_pb2.ReadBlobRequest(digest=digest))])

        async def download_theirs() -> int:
            return sum([len(part.chunk) async for part in stream(blob_pb2.ReadBlobRequest(limit_bytes=size))])

        size = await download_ours()
        await download_theirs()
        ratios, details = [], []
        for _ in range(rounds):
            pairs = [(await _timed(download_ours, size), await _timed(download_theirs, size)) for _ in range(A_ROUND)]
            mine, bare_s = (min(times) for times in zip(*pairs, strict=True))
            ratios.append(bare_s / mine)
            details.append(f"{size / mine / 1e6:.0f} MB/s and {size / bare_s / 1e6:.0f} MB/s")
    return ratios, details


async def _timed(download: Download, size: int) -> float:
    """Seconds that a download takes."""
    began_s = time.perf_counter()
    found = await download()
    if found != size:
        raise ValueError(f"{found} of {size} bytes came")
    return time.perf_counter() - began_s
