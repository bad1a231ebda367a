"""Blocking work of a job: tried until the store answers, and waited for even by who is cancelled."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

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
        await asyncio.wait([work])
        if not work.cancelled() and (error := work.exception()) is not None:
            logger.warning("cancelled, and failed: %s", error)
        raise
