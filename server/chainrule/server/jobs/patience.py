"""Waiting for the store: what a job's life depends on is tried until the store answers."""

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
            return await asyncio.to_thread(call, *args, **kwargs)
        except StoreUnavailableError as error:
            logger.error("cannot %s yet: %s", what, error)
            await asyncio.sleep(policies.delay(tries))
    raise AssertionError("itertools.count has no end")
