"""How long to keep trying when the server cannot be reached, and how long to wait in between."""

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from chainrule.client.errors import DeadlineExceeded, RpcError

LOGGER = logging.getLogger("chainrule.client")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Bounds of the waiting after a transport break."""

    window_s: float = 60.0
    """Time without any sign of life after which the break is reported. 0 never tries again."""
    first_delay_s: float = 0.1
    """Wait before the second try; it doubles with every further one."""
    max_delay_s: float = 5.0
    """The longest single wait."""

    def delay_s(self, retries: int) -> float:
        """Wait after the `retries`-th failure in a row (from 1), before jitter."""
        return float(min(self.first_delay_s * 2.0 ** min(retries - 1, 32), self.max_delay_s))


class Patience:
    """The waits of one operation under a policy; each sign of life of the server gives it a fresh window.

    That the server does not answer, and that it is back, are warnings of the logger "chainrule.client", once each.

    Args:
        closed: set when the client closes; ends a wait at once.
        clock: seconds from any origin, never going back.
        jitter: factor in [0.5, 1] of each wait, so that many clients do not come back in step.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        closed: threading.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),
    ) -> None:
        self._policy = policy
        self._closed = closed
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

    def spend(self, error: RpcError, *, at_most_s: float | None = None) -> None:
        """Wait before the next try, `at_most_s` seconds; raises `error` once the window is over.

        Returns at once when the client is closed: the next try says so.
        """
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
        self._closed.wait(min(delay_s, left_s))

    def _warn(self, error: RpcError, left_s: float) -> None:
        is_gone = self._failures > 1 or isinstance(error, DeadlineExceeded)  # one cut connection is not worth a word
        if is_gone and not self._warned and left_s > 0 and not self._closed.is_set():
            self._warned = True
            LOGGER.warning("the server does not answer; trying again for up to %d s", math.ceil(left_s))
