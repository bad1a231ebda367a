"""The service with real predictors: many clients at once, killed predictors, callers that go, the way out."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import grpc
import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import models
from chainrule.server.config import ServerConfig
from chainrule.server.predictions import process
from chainrule.server.service import Service
from chainrule.v1 import model_pb2, predict_pb2, predict_pb2_grpc
from tests.server.guarded import Caller, make_token, serving

CLIENTS = 200
TOLERANCE = 1e-5
"""Of what is computed in batches of another size than what it is compared with."""


def image(number: int, rows: int = 1) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(rows, 1, 8, 8)).astype(np.float32)


def request_of(x: np.ndarray, model: str = "models/m", **more: object) -> predict_pb2.PredictRequest:
    tensor = predict_pb2.Tensor(dtype=x.dtype.name, shape=x.shape, data=x.tobytes())
    return predict_pb2.PredictRequest(model=model, inputs=[tensor], **more)  # type: ignore[arg-type]  # of each field its type


def output(response: predict_pb2.PredictResponse) -> np.ndarray:
    [tensor] = response.outputs
    return np.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape)


def expected(x: np.ndarray) -> np.ndarray:
    module = models.build("small_cnn", generator=cr.Generator(3)).eval()
    with cr.no_grad():
        return np.asarray(module(cr.from_numpy(x)).numpy())


@pytest.fixture
def predictors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Ids of the predictors that were started."""
    pids: list[int] = []
    real = process._start

    def start(*arguments: object) -> object:
        made = real(*arguments)  # type: ignore[arg-type]
        pids.append(made.pid)
        return made

    monkeypatch.setattr(process, "_start", start)
    yield pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@asynccontextmanager
async def served(folder: Path, **settings: object) -> AsyncIterator[tuple[Service, grpc.aio.Channel]]:
    """A service with the model "models/m"."""
    config = ServerConfig(data_dir=folder, **settings)  # type: ignore[arg-type]
    async with serving(config) as service, grpc.aio.insecure_channel(service.address) as channel:
        model = model_pb2.Model(builtin=model_pb2.Builtin(family="small_cnn"), init_seed=3)
        await Caller(channel).models.CreateModel(model_pb2.CreateModelRequest(model_id="m", model=model))
        yield service, channel


async def test_an_answer_is_what_the_engine_computes(tmp_path: Path, predictors: list[int]) -> None:
    async with served(tmp_path) as (_, channel):
        stub = predict_pb2_grpc.PredictServiceStub(channel)
        x = image(0, rows=5)
        response = await stub.Predict(request_of(x, top_k=2))
        assert response.version == "models/m/versions/1"
        np.testing.assert_allclose(output(response), expected(x), rtol=TOLERANCE, atol=TOLERANCE)
        best = [ranking.classes[0].index for ranking in response.rankings]
        assert best == expected(x).argmax(axis=1).tolist()
    assert len(predictors) == 1


async def test_two_hundred_clients_at_once_lose_no_request(tmp_path: Path, predictors: list[int]) -> None:
    async with served(tmp_path) as (service, _):

        async def client(number: int) -> None:
            async with grpc.aio.insecure_channel(
                service.address, options=[("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                stub = predict_pb2_grpc.PredictServiceStub(channel)
                for turn in range(3):
                    x = image(3 * number + turn)
                    answer = output(await stub.Predict(request_of(x)))
                    assert np.abs(answer - known[3 * number + turn]).max() < TOLERANCE

        known = {number: expected(image(number)) for number in range(3 * CLIENTS)}
        await asyncio.gather(*map(client, range(CLIENTS)))
        assert examples(service) == 3 * CLIENTS
    assert len(predictors) == 1


async def test_a_predictor_that_is_killed_under_load_loses_no_request(tmp_path: Path, predictors: list[int]) -> None:
    async with served(tmp_path) as (_, channel):
        stub = predict_pb2_grpc.PredictServiceStub(channel)
        done = 0
        kills = iter((100, 300, 500))
        due = next(kills)

        async def client(number: int) -> None:
            nonlocal done, due
            for turn in range(20):
                x = image(20 * number + turn)
                answer = output(await stub.Predict(request_of(x)))
                assert np.abs(answer - known[20 * number + turn]).max() < TOLERANCE
                done += 1
                if done == due:
                    os.kill(predictors[-1], signal.SIGKILL)
                    due = next(kills, -1)

        known = {number: expected(image(number)) for number in range(20 * 40)}
        await asyncio.gather(*map(client, range(40)))
        assert done == 20 * 40
    assert len(predictors) == 4


async def test_what_is_asked_for_alone_has_the_same_bits_whatever_else_is(
    tmp_path: Path, predictors: list[int]
) -> None:
    async with served(tmp_path) as (_, channel):
        stub = predict_pb2_grpc.PredictServiceStub(channel)
        x = image(1)
        quiet = await stub.Predict(request_of(x, alone=True))
        busy = await asyncio.gather(
            *(stub.Predict(request_of(image(number))) for number in range(50)),
            *(stub.Predict(request_of(x, alone=True)) for _ in range(10)),
        )
        assert {response.outputs[0].data for response in busy[50:]} == {quiet.outputs[0].data}


async def test_who_has_gone_is_not_computed(tmp_path: Path, predictors: list[int]) -> None:
    async with served(tmp_path) as (service, channel):
        stub = predict_pb2_grpc.PredictServiceStub(channel)
        await stub.Predict(request_of(image(0)))
        os.kill(predictors[0], signal.SIGSTOP)
        first = stub.Predict(request_of(image(1)))
        gone = [stub.Predict(request_of(image(2)), timeout=0.2) for _ in range(20)]
        codes = [error.code() for error in await asyncio.gather(*map(refusal, gone))]
        assert set(codes) == {grpc.StatusCode.DEADLINE_EXCEEDED}
        while number(service, "chainrule_predictions_waiting"):  # noqa: ASYNC110 — another process tells it
            await asyncio.sleep(0.01)
        os.kill(predictors[0], signal.SIGCONT)
        await first
        response = await stub.Predict(request_of(image(3)))
        assert response.version
        assert examples(service) == 3


async def refusal(call: grpc.aio.UnaryUnaryCall) -> grpc.aio.AioRpcError:  # type: ignore[type-arg]  # generic in its stubs only
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def examples(service: Service) -> float:
    """How many examples the predictors have computed."""
    return number(service, "chainrule_prediction_batch_examples_sum")


def number(service: Service, name: str) -> float:
    value = service.metrics.registry.get_sample_value(name)
    assert value is not None
    return value


# --- streams ---------------------------------------------------------------------------------------------------


async def test_a_stream_is_answered_in_its_order(tmp_path: Path, predictors: list[int]) -> None:
    async with served(tmp_path) as (_, channel):
        stub = predict_pb2_grpc.PredictServiceStub(channel)
        asked = [image(number, rows=1 + number % 3) for number in range(200)]
        requests = (predict_pb2.StreamPredictRequest(request=request_of(x)) for x in asked)
        answers = [output(response) async for response in stub.StreamPredict(requests)]
        assert len(answers) == len(asked)
        for answer, x in zip(answers, asked, strict=True):
            assert np.abs(answer - expected(x)).max() < TOLERANCE


async def test_a_stream_ends_with_its_first_error_after_the_answers_before(
    tmp_path: Path, predictors: list[int]
) -> None:
    async with served(tmp_path) as (_, channel):
        stub = predict_pb2_grpc.PredictServiceStub(channel)
        good, bad = request_of(image(0)), request_of(image(0)[:, :, :4])
        requests = (predict_pb2.StreamPredictRequest(request=request) for request in (good, good, bad, good))
        stream = stub.StreamPredict(requests)
        answers = [cast(predict_pb2.PredictResponse, await stream.read()) for _ in range(2)]
        assert [output(answer).shape for answer in answers] == [(1, 10)] * 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (caught.value.details() or "").startswith(
            'request.inputs[0]: "input" of shape (1, 1, 4, 8) does not fit'
        )


async def test_a_service_that_stops_answers_what_a_stream_has_sent(tmp_path: Path, predictors: list[int]) -> None:
    answered = asyncio.Event()
    answers = []

    async def requests() -> AsyncIterator[predict_pb2.StreamPredictRequest]:
        yield predict_pb2.StreamPredictRequest(request=request_of(image(0)))
        await asyncio.Event().wait()  # the client says nothing more, and does not end

    async def read(channel: grpc.aio.Channel) -> grpc.StatusCode:
        try:
            async for response in predict_pb2_grpc.PredictServiceStub(channel).StreamPredict(requests()):
                answers.append(response)
                answered.set()
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async with served(tmp_path) as (service, _):
        channel = grpc.aio.insecure_channel(service.address)
        reading = asyncio.create_task(read(channel))
        await answered.wait()
    assert await reading is grpc.StatusCode.UNAVAILABLE
    assert len(answers) == 1
    await channel.close()


# --- who may ---------------------------------------------------------------------------------------------------


async def test_a_tenant_predicts_with_its_own_models_only(tmp_path: Path) -> None:
    tokens = {
        "ann": make_token(tmp_path, "ann", tenant="a", scopes=["submit"]),
        "bob": make_token(tmp_path, "bob", tenant="b", scopes=["read"]),
        "reader": make_token(tmp_path, "reader", tenant="a", scopes=["read"]),
    }
    async with (
        serving(ServerConfig(data_dir=tmp_path, require_tokens=True)) as service,
        grpc.aio.insecure_channel(service.address) as channel,
    ):
        callers = {name: Caller(channel, secret) for name, secret in tokens.items()}
        model = model_pb2.Model(builtin=model_pb2.Builtin(family="small_cnn"))
        asked = model_pb2.CreateModelRequest(model_id="m", model=model)
        await callers["ann"].models.CreateModel(asked, metadata=callers["ann"].metadata)
        stub = predict_pb2_grpc.PredictServiceStub(channel)
        assert await stub.Predict(request_of(image(0)), metadata=callers["reader"].metadata)
        error = await refusal(stub.Predict(request_of(image(0)), metadata=callers["bob"].metadata))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        error = await refusal(stub.Predict(request_of(image(0))))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
