"""Predictions: from a request to its answer, through the batches of predictors that are started and replaced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from chainrule.server.errors import (
    IllegalStateError,
    InvalidRequestError,
    OutOfMemoryError,
    PredictorLostError,
    PredictorUnavailableError,
    ServiceError,
    StoreUnavailableError,
)
from chainrule.server.predictions.batching import Batcher, Limits, Request
from chainrule.server.predictions.messages import Asked, Predicted, Reason, Refused, Result
from chainrule.server.predictions.network import NetworkSpec
from chainrule.server.predictions.process import LostPredictorError, PredictorLike
from chainrule.server.predictions.versions import ServedVersion, ServedVersions
from chainrule.server.telemetry.metrics import Metrics

MAX_LOST = 3
"""So many predictors may end while they compute a request before it is given up: it may be what ends them."""

RESTART_S = 1.0
"""After how long another predictor is started where one could not be, while others are at work."""

Start = Callable[[Callable[[PredictorLike], None]], Awaitable[PredictorLike]]
"""Starts a predictor and waits until it is ready; what it is given is called with it when it has ended by itself.
Raises LostPredictorError."""

logger = logging.getLogger(__name__)


class DefectError(Exception):
    """A predictor failed at a batch as it should not."""


@dataclass(frozen=True)
class Prediction:
    """What came of a request."""

    version: ServedVersion
    """Which it was computed with."""
    result: Predicted


class Predictions:
    """Answers requests: `async with Predictions(...) as predictions`. Lives in one event loop.

    A predictor that has nothing to do is handed what waits at once; what comes while it computes is its next batch. The
    first one is started when it is first needed, another whenever all are at work and something waits.

    Args:
        most: of predictors; 0: there are no predictions.
        start: see `Start`.
    """

    def __init__(
        self, versions: ServedVersions, *, most: int, start: Start, metrics: Metrics, limits: Limits | None = None
    ) -> None:
        self._versions = versions
        self._most = most
        self._start = start
        self._metrics = metrics
        self._batcher = Batcher(limits or Limits())
        metrics.predictions_waiting.set_function(self._batcher.__len__)
        self._futures: dict[Request, asyncio.Future[Result]] = {}
        self._idle: list[PredictorLike] = []
        self._busy: set[PredictorLike] = set()
        self._starting: asyncio.Task[None] | None = None
        self._start_after_s = 0.0
        self._closing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.draining = asyncio.Event()
        """Set once the service is on its way out: streams read no more requests."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await asyncio.gather(*(predictor.close() for predictor in (*self._idle, *self._busy)), *self._closing)

    async def predict(self, name: str, asked: Asked, *, tenant: str, alone: bool = False) -> Prediction:
        """What the version of this name, or the newest of a model, makes of some inputs. Whoever stops waiting has the
        request forgotten, unless it is being computed.

        Raises InvalidRequestError, NotFoundError, TooManyCallsError if too many wait, DamagedBlobError,
        OutOfMemoryError, IllegalStateError if the server has no predictors, PredictorUnavailableError if none starts,
        PredictorLostError if they end at it.
        """
        if not self._most:
            raise IllegalStateError("this server makes no predictions; start it with --predictors 1 or more")
        version = self._versions.known(name, tenant=tenant)
        if version is None:
            version = await asyncio.to_thread(self._versions.find, name, tenant=tenant)
        loop = asyncio.get_running_loop()
        request = Request(version.network, asked, loop.time(), alone=alone)
        self._batcher.add(request)
        future = self._futures[request] = loop.create_future()
        self._pump()
        try:
            result = await future
        finally:
            del self._futures[request]
            self._batcher.discard(request)
        if isinstance(result, Refused):
            raise await self._error_of(result, version.network)
        self._metrics.prediction_seconds.observe(loop.time() - request.since_s)
        self._metrics.predictions.inc(request.rows)
        return Prediction(version, result)

    # --- private -----------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Hand out what is due, and see to it that there is somebody to hand it to."""
        now_s = asyncio.get_running_loop().time()
        while self._idle and (batch := self._batcher.next(now_s)):
            predictor = chosen(self._idle, batch[0].network.key)
            self._idle.remove(predictor)
            self._busy.add(predictor)
            predictor.submit(
                batch[0].network, [request.asked for request in batch], partial(self._done, predictor, batch)
            )
        due_s = self._batcher.due_s()
        if due_s is None:
            return
        if self._idle:
            self._pump_at(due_s)
        elif self._starting is None and len(self._busy) < self._most:
            if now_s >= self._start_after_s:
                self._starting = asyncio.create_task(self._start_one())
            else:
                self._pump_at(self._start_after_s)

    def _pump_at(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due_s, self._pump)

    async def _start_one(self) -> None:
        try:
            self._idle.append(await self._start(self._lost))
        except LostPredictorError as error:
            logger.warning("no predictor could be started: %s", error)
            self._start_after_s = asyncio.get_running_loop().time() + RESTART_S
            if not self._idle and not self._busy:
                self._start_after_s = 0.0  # for the next request
                self._fail_all(PredictorUnavailableError(f"no predictor could be started ({error}); try again"))
        finally:
            self._starting = None
        self._pump()

    def _lost(self, predictor: PredictorLike) -> None:
        """It has ended by itself; where it was computing, `_compute` sees to what it has lost."""
        if predictor in self._idle:
            logger.warning("a predictor has ended while it had nothing to do; another is started when it is needed")
            self._idle.remove(predictor)
            self._metrics.predictors_lost.inc()
            self._close(predictor)
            self._pump()

    def _done(
        self, predictor: PredictorLike, batch: Sequence[Request], outcome: tuple[Result, ...] | LostPredictorError
    ) -> None:
        """It has computed a batch, or ended at it."""
        self._busy.remove(predictor)
        if isinstance(outcome, LostPredictorError):
            self._metrics.predictors_lost.inc()
            logger.warning("%s; %d requests are computed again, on another", outcome, len(batch))
            self._recover(batch, outcome)
            self._close(predictor)
        else:
            self._idle.append(predictor)
            self._metrics.prediction_batch_examples.observe(sum(request.rows for request in batch))
            for request, result in zip(batch, outcome, strict=True):
                self._answer(request, result)
        self._pump()

    def _recover(self, batch: Sequence[Request], error: LostPredictorError) -> None:
        """Have requests computed again that somebody still waits for."""
        again = []
        for request in batch:
            request.lost += 1
            if request.lost >= MAX_LOST:
                self._fail(
                    request,
                    PredictorLostError(
                        f'{request.lost} predictors have ended while they computed this request to "'
                        f"{request.network.model}\" ({error}); it may need more memory than the server's machine has: "
                        "send fewer examples at a time"
                    ),
                )
            elif request in self._futures:
                again.append(request)
        self._batcher.give_back(again)

    def _answer(self, request: Request, result: Result) -> None:
        future = self._futures.get(request)
        if future is not None and not future.done():
            future.set_result(result)

    def _fail(self, request: Request, error: ServiceError) -> None:
        future = self._futures.get(request)
        if future is not None and not future.done():
            future.set_exception(error)

    def _fail_all(self, error: ServiceError) -> None:
        for request in self._batcher.take_all():
            self._fail(request, error)

    async def _error_of(self, refused: Refused, network: NetworkSpec) -> Exception:
        match refused.reason:
            case Reason.INPUTS:
                return InvalidRequestError.of(refused.field, refused.text)
            case Reason.MEMORY:
                return OutOfMemoryError(f"{refused.text}; send fewer at a time, or serve from a larger machine")
            case Reason.DEFECT:
                return DefectError(f"{network.model}: {refused.text}")
        try:
            await asyncio.to_thread(self._versions.check_weights, network)
        except ServiceError as error:
            return error
        return StoreUnavailableError(f"{refused.text}; they are right by now: try again")

    def _close(self, predictor: PredictorLike) -> None:
        """See to it that nothing is left of one that has ended."""
        task = asyncio.create_task(predictor.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def chosen(idle: Sequence[PredictorLike], key: str) -> PredictorLike:
    """The predictor to compute with: one that has the network loaded or, if none has, the one with the fewest loaded;
    of several the first."""
    return min(idle, key=lambda predictor: (key not in predictor.held, len(predictor.held)))
