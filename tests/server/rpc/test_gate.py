"""The gate: what is recorded of calls that are refused, given up by their caller, or end with their token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from chainrule.server.access import NewToken, TokenCatalog, digest_of
from chainrule.server.audit import AuditLog
from chainrule.server.errors import StaleEtagError, TooManyCallsError, UnauthenticatedError
from chainrule.server.limits import Rate
from chainrule.server.rpc.authentication import Doorkeeper, Limits
from chainrule.server.rpc.gate import GateInterceptor
from chainrule.server.store import PageRequest, Store
from chainrule.v1 import job_pb2, model_pb2
from tests.server.training.bench import until

DELETE, UPDATE = "/chainrule.v1.ModelService/DeleteModel", "/chainrule.v1.ModelService/UpdateModel"
WATCH = "/chainrule.v1.JobService/WatchJob"


class Context:
    """Of a call, as far as the gate looks at it."""

    def __init__(self, secret: str = "") -> None:
        self._metadata = (("authorization", f"Bearer {secret}"),)

    def peer(self) -> str:
        return "ipv4:127.0.0.1:47000"

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


async def gated(store: Store, method: str, handler: Any, *, tokens: TokenCatalog | None = None, **limits: Any) -> Any:
    """What the gate makes of a method."""
    doorkeeper = Doorkeeper(tokens or TokenCatalog(store), asks=tokens is not None, limits=Limits(**limits))

    async def continuation(_: object) -> Any:
        return handler

    details = cast(grpc.HandlerCallDetails, SimpleNamespace(method=method))
    return await GateInterceptor(doorkeeper, AuditLog(store)).intercept_service(continuation, details)


def recorded(store: Store) -> list[tuple[str, str]]:
    """Resource and code of the entries, oldest first."""
    return [(entry.resource, entry.code) for entry in reversed(store.list_audit_entries(PageRequest(100))[0])]


def raising(error: Exception) -> Callable[..., Any]:
    async def answer(request: Any, context: Any) -> Any:
        raise error

    return answer


@pytest.mark.parametrize("fails", [False, True])
async def test_a_change_whose_caller_has_gone_is_finished_and_what_came_of_it_is_recorded(
    store: Store, fails: bool
) -> None:
    reached, proceed = asyncio.Event(), asyncio.Event()

    async def change(request: Any, context: Any) -> Any:
        reached.set()
        await proceed.wait()
        if fails:
            raise StaleEtagError("it has changed")
        return model_pb2.Model(name="models/m")

    handler = await gated(store, DELETE, grpc.unary_unary_rpc_method_handler(change))
    call = asyncio.create_task(handler.unary_unary(model_pb2.DeleteModelRequest(name="models/m"), Context()))
    await reached.wait()
    for _ in range(2):  # a caller may go, and then the service
        call.cancel()
        await asyncio.sleep(0)
    assert not call.done()
    proceed.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert recorded(store) == [("models/m", "ABORTED" if fails else "OK")]


async def test_a_call_that_changes_nothing_ends_when_its_caller_goes(store: Store) -> None:
    reached = asyncio.Event()

    async def read(request: Any, context: Any) -> Any:
        reached.set()
        await asyncio.Event().wait()

    handler = await gated(store, "/chainrule.v1.ModelService/GetModel", grpc.unary_unary_rpc_method_handler(read))
    call = asyncio.create_task(handler.unary_unary(model_pb2.GetModelRequest(name="models/m"), Context()))
    await reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert recorded(store) == []


async def test_a_change_that_fails_is_recorded_with_what_it_was_to_change(store: Store) -> None:
    refusing: Any = grpc.unary_unary_rpc_method_handler(raising(StaleEtagError("it has changed")))
    handler = await gated(store, UPDATE, refusing)
    with pytest.raises(StaleEtagError):
        await handler.unary_unary(model_pb2.UpdateModelRequest(model=model_pb2.Model(name="models/m")), Context())
    assert recorded(store) == [("models/m", "ABORTED")]


async def test_calls_that_come_too_often_are_recorded(store: Store) -> None:
    reading: Any = grpc.unary_unary_rpc_method_handler(raising(AssertionError("is not asked")))
    handler = await gated(store, "/chainrule.v1.ModelService/GetModel", reading, calls=Rate(per_s=1e-9, burst=0))
    with pytest.raises(TooManyCallsError):
        await handler.unary_unary(model_pb2.GetModelRequest(name="models/m"), Context())
    assert recorded(store) == [("models/m", "RESOURCE_EXHAUSTED")]


async def test_a_stream_that_ends_with_its_token_is_recorded_and_one_too_many_is(store: Store) -> None:
    tokens = TokenCatalog(store)
    tokens.create(NewToken("t", "team", ("read",), digest_of("secret")), tenant="default")
    came = asyncio.Event()

    async def watch(request: Any, context: Any) -> AsyncIterator[Any]:
        yield job_pb2.Job()
        await asyncio.Event().wait()

    handler = await gated(store, WATCH, grpc.unary_stream_rpc_method_handler(watch), tokens=tokens, streams=1)

    async def follow() -> None:
        async for _ in handler.unary_stream(job_pb2.WatchJobRequest(name="jobs/x"), Context("secret")):
            came.set()

    following = asyncio.create_task(follow())
    await until(came.is_set)
    with pytest.raises(TooManyCallsError):
        await follow()
    await asyncio.to_thread(tokens.revoke, "tokens/t")
    with pytest.raises(UnauthenticatedError):
        await following
    assert recorded(store) == [("jobs/x", "RESOURCE_EXHAUSTED"), ("jobs/x", "UNAUTHENTICATED")]


PREDICT = "/chainrule.v1.PredictService/StreamPredict"


class Time:
    """A clock that goes when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


async def test_requests_of_a_stream_count_as_calls_and_wait_for_their_turn(store: Store) -> None:
    time = Time()
    limits = Limits(calls=Rate(per_s=2, burst=3))
    doorkeeper = Doorkeeper(TokenCatalog(store), asks=False, limits=limits, clock=time, sleep=time.sleep)

    async def answered(requests: AsyncIterator[int], _context: Any) -> AsyncIterator[tuple[int, float]]:
        async for request in requests:
            yield request, time.now_s

    async def continuation(_: object) -> Any:
        return grpc.stream_stream_rpc_method_handler(cast(Any, answered))

    async def requests() -> AsyncIterator[int]:
        for number in range(6):
            yield number

    details = cast(grpc.HandlerCallDetails, SimpleNamespace(method=PREDICT))
    handler: Any = await GateInterceptor(doorkeeper, AuditLog(store)).intercept_service(continuation, details)
    answers = [answer async for answer in handler.stream_stream(requests(), Context())]
    assert answers == [(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.5), (4, 1.0), (5, 1.5)]
    with pytest.raises(TooManyCallsError):  # of the same caller's, who has made as many as allowed
        await anext(handler.stream_stream(requests(), Context()))
