"""A prediction, against the bare forward pass and an echo of the same stack; and many clients at once."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import grpc

from benchmarks.serving.bare import SERVICE
from benchmarks.serving.forward import Forward, example
from benchmarks.serving.goals import Figure, Goal
from benchmarks.serving.servers import Server, bare
from chainrule.client import Client
from chainrule.v1 import job_pb2, predict_pb2, predict_pb2_grpc

GOALS = (
    Goal("predict", "Predict, p50, over 3 forward passes and an echo", "", 1.0),
    Goal("predict", "requests that 200 clients at once have lost", "", 0.0),
)
PASSES = 3
CLIENTS = 200
WARM_UP = 50
Ask = Callable[[], Awaitable[object]]


def measure(server: Server, *, rounds: int, seconds: float) -> list[Figure]:
    """One request after the other, alternately of the service, of the echo and of the network by itself; then many
    clients, each with a connection of its own."""
    request = _request(server)
    with bare(request.ByteSize()) as echo, Forward() as forward:
        ratios, details = asyncio.run(_compare(server.address, echo.address, request, forward, rounds, seconds))
    lost, more = asyncio.run(_together(server.address, request, seconds))
    return [Figure(GOALS[0], tuple(ratios), (*details, more)), Figure(GOALS[1], (float(lost),))]


def _request(server: Server) -> predict_pb2.PredictRequest:
    with Client.connect(server.address) as client:
        client.models.create_from_family("small", "small_cnn")
    x = example()
    tensor = predict_pb2.Tensor(dtype="float32", shape=x.shape, data=x.tobytes())
    return predict_pb2.PredictRequest(model="models/small", inputs=[tensor])


async def _compare(
    ours: str, theirs: str, request: predict_pb2.PredictRequest, forward: Forward, rounds: int, seconds: float
) -> tuple[list[float], list[str]]:
    async with grpc.aio.insecure_channel(ours) as channel, grpc.aio.insecure_channel(theirs) as other:
        stub = predict_pb2_grpc.PredictServiceStub(channel)
        echo = other.unary_unary(f"/{SERVICE}/GetJob", job_pb2.GetJobRequest.SerializeToString, job_pb2.Job.FromString)
        echoed = job_pb2.GetJobRequest(name="x" * request.ByteSize())

        async def ask_ours() -> None:
            await stub.Predict(request)

        async def ask_echo() -> None:
            await echo(echoed)

        for ask in (ask_ours, ask_echo):
            for _ in range(WARM_UP):
                await ask()
        ratios, details = [], []
        for _ in range(rounds):
            mine = await _median_ms(ask_ours, seconds)
            echo_ms = await _median_ms(ask_echo, seconds)
            pass_ms = await asyncio.to_thread(forward.median_ms, max(100, round(200 * seconds)))
            ratios.append(mine / (PASSES * pass_ms + echo_ms))
            details.append(f"a prediction {mine:.2f} ms, a forward pass {pass_ms:.2f} ms, an echo {echo_ms:.2f} ms")
    return ratios, details


async def _median_ms(ask: Ask, seconds: float) -> float:
    times = []
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        began_s = time.perf_counter()
        await ask()
        times.append(time.perf_counter() - began_s)
    return 1e3 * statistics.median(times)


async def _together(address: str, request: predict_pb2.PredictRequest, seconds: float) -> tuple[int, str]:
    """How many requests were lost, and what else there is to say."""
    answered, lost = [], []

    async def client() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            stub = predict_pb2_grpc.PredictServiceStub(channel)
            await channel.channel_ready()
            end_s = time.perf_counter() + seconds
            while time.perf_counter() < end_s:
                began_s = time.perf_counter()
                try:
                    await stub.Predict(request, timeout=30.0)
                except grpc.aio.AioRpcError as error:
                    lost.append(error)
                else:
                    answered.append(time.perf_counter() - began_s)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    p99_ms = 1e3 * statistics.quantiles(answered, n=100)[-1]
    said = f"{CLIENTS} clients: {len(answered) / seconds:.0f} answers a second, p99 {p99_ms:.0f} ms"
    return len(lost), said
