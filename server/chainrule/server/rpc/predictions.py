"""PredictService."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from chainrule.server.errors import InvalidRequestError, StoppingError, Violation
from chainrule.server.predictions.dispatch import Prediction, Predictions
from chainrule.server.predictions.messages import Asked, Predicted
from chainrule.server.rpc.caller import caller
from chainrule.server.rpc.tensors import named_arrays, tensor
from chainrule.server.rpc.wrapping import Context
from chainrule.v1 import predict_pb2, predict_pb2_grpc

MAX_TOP_K = 100
"""Most classes that are named of an example."""
MAX_RANKED = 100_000
"""Most classes that are named in one answer."""
AHEAD = 64
"""How many requests of a stream are computed at a time."""

AHEAD_BYTES = 32 * 1024**2
"""Of those requests: beyond it no more are read."""

Read = asyncio.Task[predict_pb2.StreamPredictRequest | None]
Answering = asyncio.Task[tuple[predict_pb2.PredictResponse, int]]


class PredictServicer(predict_pb2_grpc.PredictServiceServicer):
    """Translates between PredictService and the predictions."""

    def __init__(self, predictions: Predictions) -> None:
        self._predictions = predictions

    async def Predict(self, request: predict_pb2.PredictRequest, context: Context) -> predict_pb2.PredictResponse:
        return await self._answer(request, caller().tenant)

    async def StreamPredict(
        self, request_iterator: AsyncIterator[predict_pb2.StreamPredictRequest], context: Context
    ) -> AsyncIterator[predict_pb2.PredictResponse]:
        tenant = caller().tenant
        answers: deque[Answering] = deque()
        reading = _Reading(request_iterator, self._predictions.draining)
        try:
            while answers or not reading.is_over:
                if (read := reading.taken()) is not None:
                    answers.append(asyncio.create_task(self._answer_read(read, tenant)))
                elif answers and answers[0].done():
                    response, size_bytes = answers.popleft().result()
                    reading.ahead_bytes -= size_bytes
                    yield response
                elif answers or not reading.is_over:
                    await reading.wait(answers[0] if answers else None, ahead=len(answers))
            if reading.was_stopped:
                raise StoppingError("the service is being stopped; try again from here on, it may be back soon")
        finally:
            reading.close()
            for answer in answers:
                answer.cancel()
            await asyncio.gather(*answers, return_exceptions=True)

    async def _answer_read(self, read: Read, tenant: str) -> tuple[predict_pb2.PredictResponse, int]:
        """The answer to a request of a stream, and the request's size. Raises what reading it raised."""
        message = read.result()
        assert message is not None
        try:
            return await self._answer(message.request, tenant), message.ByteSize()
        except InvalidRequestError as error:
            within = [Violation(f"request.{violation.field}", violation.description) for violation in error.violations]
            raise InvalidRequestError(within) from error

    async def _answer(self, request: predict_pb2.PredictRequest, tenant: str) -> predict_pb2.PredictResponse:
        inputs = named_arrays(request.inputs, field="inputs")
        rows = len(inputs[0][1])
        if not 0 <= request.top_k <= MAX_TOP_K or request.top_k * rows > MAX_RANKED:
            raise InvalidRequestError.of(
                "top_k",
                f"is {request.top_k}, of {rows} examples; use 0 to {MAX_TOP_K}, and no more than {MAX_RANKED:,} in all",
            )
        asked = Asked(inputs, top_k=request.top_k, omit_outputs=request.omit_outputs, prepared=request.prepared)
        found = await self._predictions.predict(request.model, asked, tenant=tenant, alone=request.alone)
        return _response(found, with_class_labels=request.with_class_labels)


class _Reading:
    """Reads a stream of requests one ahead, until it ends, or cannot be read, or the service is stopped."""

    def __init__(self, requests: AsyncIterator[predict_pb2.StreamPredictRequest], stopping: asyncio.Event) -> None:
        self._requests = requests
        self._next: Read | None = None
        self._stopping = asyncio.create_task(stopping.wait())
        self.is_over = False
        """Whether nothing more is read."""
        self.ahead_bytes = 0
        """Of the requests that were taken. To be lowered when one is answered."""

    @property
    def was_stopped(self) -> bool:
        """Whether the service stops, rather than the stream."""
        return self._stopping.done()

    def taken(self) -> Read | None:
        """The request that was read, or what reading it raised, if there is one that was not taken before."""
        read = self._next
        if read is None or not read.done() or self.is_over:
            return None
        self._next = None
        if read.exception() is not None:
            self.is_over = True
            return read
        message = read.result()
        if message is None:
            self.is_over = True
            return None
        self.ahead_bytes += message.ByteSize()
        return read

    async def wait(self, answer: Answering | None, *, ahead: int) -> None:
        """Wait until a request was read, if not too many were, or the answer is there, or the service stops.

        Args:
            ahead: how many requests were taken and are not answered.
        """
        if self._next is None and not self.is_over and ahead < AHEAD and self.ahead_bytes < AHEAD_BYTES:
            self._next = asyncio.create_task(self._read())
        waits: list[asyncio.Task[Any]] = [] if self.is_over else [self._stopping]
        if self._next is not None and not self.is_over:
            waits.append(self._next)
        if answer is not None:
            waits.append(answer)
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if self._stopping.done():
            self.is_over = True

    def close(self) -> None:
        """Read no more."""
        self._stopping.cancel()
        if self._next is not None:
            self._next.cancel()

    async def _read(self) -> predict_pb2.StreamPredictRequest | None:
        return await anext(self._requests, None)


def _response(found: Prediction, *, with_class_labels: bool) -> predict_pb2.PredictResponse:
    labels = found.version.class_labels
    return predict_pb2.PredictResponse(
        version=found.version.name,
        outputs=[tensor(name, array) for name, array in found.result.outputs],
        rankings=_rankings(found.result, labels),
        class_labels=labels if with_class_labels else (),
    )


def _rankings(result: Predicted, labels: tuple[str, ...]) -> list[predict_pb2.Ranking]:
    if result.classes is None or result.probabilities is None:
        return []
    return [
        predict_pb2.Ranking(
            classes=[
                predict_pb2.RankedClass(
                    index=index, label=labels[index] if index < len(labels) else "", probability=probability
                )
                for index, probability in zip(classes, probabilities, strict=True)
            ]
        )
        for classes, probabilities in zip(result.classes.tolist(), result.probabilities.tolist(), strict=True)
    ]
