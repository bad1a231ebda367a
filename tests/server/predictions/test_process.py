"""A predictor as a process: it computes what the engine does, and its end is noticed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from chainrule.server.predictions.messages import Asked, Predicted, Reason, Refused, Result
from chainrule.server.predictions.network import NetworkSpec, load_network
from chainrule.server.predictions.process import LostPredictorError, PredictorLike, PredictorProcess
from tests.server.predictions.predictors import SETTINGS
from tests.server.predictions.test_network import images, named, stored


class Watched:
    """A predictor, and whether its end was told."""

    def __init__(self) -> None:
        self.process: PredictorProcess
        self.lost = asyncio.Event()
        self.told: list[PredictorLike] = []

    def when_lost(self, predictor: PredictorLike) -> None:
        self.told.append(predictor)
        self.lost.set()


async def computed(predictor: PredictorProcess, network: NetworkSpec, requests: list[Asked]) -> tuple[Result, ...]:
    """What comes of a batch. Raises LostPredictorError."""
    told: asyncio.Future[tuple[Result, ...] | LostPredictorError] = asyncio.get_running_loop().create_future()
    predictor.submit(network, requests, told.set_result)
    outcome = await told
    if isinstance(outcome, LostPredictorError):
        raise outcome
    return outcome


@pytest.fixture
async def predictor() -> AsyncIterator[Watched]:
    watched = Watched()
    watched.process = await PredictorProcess.started(SETTINGS, watched.when_lost)
    yield watched
    await watched.process.close()


async def test_a_process_computes_what_the_engine_does(predictor: Watched, tmp_path: Path) -> None:
    spec = stored(tmp_path)
    asked = [Asked((("", images(3)),)), Asked((("", images(1)),), top_k=2)]
    first, second = await computed(predictor.process, spec, asked)
    [(_, expected)] = load_network(spec)((("", images(3)),))
    assert isinstance(first, Predicted)
    assert isinstance(second, Predicted)
    np.testing.assert_allclose(first.outputs[0][1], expected, rtol=1e-5, atol=1e-6)
    assert second.classes is not None
    assert second.classes[0].tolist() == np.argsort(-expected[0])[:2].tolist()
    assert predictor.process.held == {spec.key}


async def test_large_messages_cross(predictor: Watched, tmp_path: Path) -> None:
    rows = 40_000  # 10 MB of images, more than any buffer of a socket
    [result] = await computed(predictor.process, stored(tmp_path), [Asked((("", images(rows)),))])
    assert isinstance(result, Predicted)
    assert result.outputs[0][1].shape == (rows, 10)


async def test_what_it_cannot_load_is_told_and_it_goes_on(predictor: Watched, tmp_path: Path) -> None:
    asked = Asked((("", images(1)),))
    [refused] = await computed(predictor.process, named("models/gone"), [asked])
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.WEIGHTS
    [result] = await computed(predictor.process, stored(tmp_path), [asked])
    assert isinstance(result, Predicted)


async def test_a_killed_process_loses_its_batch(predictor: Watched, tmp_path: Path) -> None:
    os.kill(predictor.process.pid, signal.SIGSTOP)
    computing = asyncio.create_task(computed(predictor.process, stored(tmp_path), [Asked((("", images(1)),))]))
    await asyncio.sleep(0)
    os.kill(predictor.process.pid, signal.SIGKILL)
    with pytest.raises(LostPredictorError):
        await computing
    assert predictor.told == []  # but whose batch it was
    with pytest.raises(LostPredictorError):
        await computed(predictor.process, stored(tmp_path), [Asked((("", images(1)),))])


async def test_the_end_of_an_idle_process_is_told_once(predictor: Watched) -> None:
    os.kill(predictor.process.pid, signal.SIGKILL)
    await predictor.lost.wait()
    await predictor.process.close()
    assert predictor.told == [predictor.process]


async def test_one_that_is_told_to_end_does_and_nobody_is_told(tmp_path: Path) -> None:
    watched = Watched()
    process = await PredictorProcess.started(SETTINGS, watched.when_lost)
    os.kill(process.pid, signal.SIGTERM)  # is for the service
    await computed(process, stored(tmp_path), [Asked((("", images(1)),))])
    await process.close()
    assert watched.told == []
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.parametrize("command", [(sys.executable, "-c", "raise SystemExit(1)"), ("/no/such/program",)])
async def test_one_that_does_not_start_is_told(command: tuple[str, ...]) -> None:
    with pytest.raises(LostPredictorError):
        await PredictorProcess.started(SETTINGS, lambda _: None, command=command)
