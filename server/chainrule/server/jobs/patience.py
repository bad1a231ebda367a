"""Work that is not given up half way: tried until the store answers, and seen through whoever is cancelled."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from chainrule.server.errors import StoreUnavailableError
from chainrule.server.jobs import policies

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)


async def until_stored(what: str, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The result of a call of the store, however long the store takes to answer. `what` it does is for the log."""
    for tries in itertools.count(1):
        try:
            return await to_the_end(call, *args, **kwargs)
        except StoreUnavailableError as error:
            logger.error("cannot %s yet: %s", what, error)
            await asyncio.sleep(policies.delay(tries))
    raise AssertionError("itertools.count has no end")


async def to_the_end(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The result of a blocking call, made in a thread. A cancellation waits for it: once a job has been stopped,
    nothing of it is written any more."""
    work = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():  # however often it is cancelled
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        _log_failure(work)
        raise


class Undertakings:
    """What is seen through once it has begun, though who asked for it may give up. Lives in one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def see_through(self, what: Coroutine[Any, Any, R]) -> R:
        """Its result. Who is cancelled while it waits for that gives up the waiting alone."""
        task = asyncio.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise

    async def done(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _log_failure(work: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more who could be told."""
    if not work.cancelled() and (error := work.exception()) is not None:
        logger.warning("cancelled, and failed: %s", error)
