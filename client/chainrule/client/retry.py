"""How long to keep trying when the server cannot be reached, and how long to wait in between."""

import asyncio
import contextlib
import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from chainrule.client.errors import DeadlineExceeded, ResourceExhausted, RpcError

LOGGER = logging.getLogger("chainrule.client")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Bounds of the waiting after a transport break."""

    window_s: float = 60.0
    """Time without an answer but refusals after which the break is reported. 0 never tries again."""
    first_delay_s: float = 0.1
    """Wait before the second try; it doubles with every further one."""
    max_delay_s: float = 5.0
    """The longest single wait."""

    def delay_s(self, retries: int) -> float:
        """Wait after the `retries`-th failure in a row (from 1), before jitter."""
        return float(min(self.first_delay_s * 2.0 ** min(retries - 1, 32), self.max_delay_s))


REFUSED = ("STOPPING", "TOO_MANY_CALLS")
"""Reasons of errors that a call is refused with before any of it is done."""


def was_refused(error: RpcError) -> bool:
    """Whether a call was refused before it began, and may be made again, whatever it asks for."""
    return error.reason in REFUSED and error.retry_after_s is not None


def _jitter() -> float:
    return random.uniform(0.5, 1.0)


class _Waits:
    """The waits of one operation under a policy; each sign of life of the server gives it a fresh window.

    That the server does not answer, and that it is back, are warnings of the logger "chainrule.client", once each.

    Args:
        is_closed: whether the client is closed.
        clock: seconds from any origin, never going back.
        jitter: factor in [0.5, 1] of each wait, so that many clients do not come back in step.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        is_closed: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = _jitter,
    ) -> None:
        self._policy = policy
        self._is_closed = is_closed
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._silent_since: float | None = None
        self._warned = False

    def restore(self) -> None:
        """The server is there: the next break has the whole window again."""
        if self._warned:
            LOGGER.warning("the server answers again")
        self._warned = False
        self._failures = 0
        self._silent_since = None

    def _delay_s(self, error: RpcError, at_most_s: float | None) -> float:
        """The next wait, at least as long as the server asks for; raises `error` once the window is over."""
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
        self._failures += 1
        left_s = self._silent_since + self._policy.window_s - now
        if left_s <= 0:
            raise error
        left_s = left_s if at_most_s is None else min(left_s, at_most_s)
        self._warn(error, left_s)
        delay_s = self._policy.delay_s(self._failures) * self._jitter()
        return min(max(delay_s, error.retry_after_s or 0.0), left_s)

    def _warn(self, error: RpcError, left_s: float) -> None:
        if isinstance(error, ResourceExhausted):  # it does answer
            return
        is_silent = isinstance(error.__cause__, DeadlineExceeded)
        is_gone = self._failures > 1 or is_silent  # one cut connection is not worth a word
        if is_gone and not self._warned and left_s > 0 and not self._is_closed():
            self._warned = True
            LOGGER.warning("the server does not answer; trying again for up to %d s", math.ceil(left_s))


class Patience(_Waits):
    """The waits of one operation in a thread; `closed` is set when the client closes, and ends a wait at once."""

    def __init__(
        self,
        policy: RetryPolicy,
        closed: threading.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = _jitter,
    ) -> None:
        super().__init__(policy, closed.is_set, clock=clock, jitter=jitter)
        self._closed = closed

    def spend(self, error: RpcError, *, at_most_s: float | None = None) -> None:
        """Wait before the next try, `at_most_s` seconds; raises `error` once the window is over.

        Returns at once when the client is closed: the next try says so.
        """
        self._closed.wait(self._delay_s(error, at_most_s))


class AsyncPatience(_Waits):
    """The waits of one operation in a coroutine; `closed` as in `Patience`."""

    def __init__(
        self,
        policy: RetryPolicy,
        closed: asyncio.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = _jitter,
    ) -> None:
        super().__init__(policy, closed.is_set, clock=clock, jitter=jitter)
        self._closed = closed

    async def spend(self, error: RpcError, *, at_most_s: float | None = None) -> None:
        """Wait before the next try, as `Patience.spend` does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._delay_s(error, at_most_s)):
                await self._closed.wait()
