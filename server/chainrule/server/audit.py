"""The audit log: who has asked for what, as far as it changes something or was refused."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from chainrule.server.callers import AuditEntry
from chainrule.server.limits import Rate, RateLimit
from chainrule.server.store import Store

KEPT_S = 90 * 24 * 3600.0
"""How long entries are kept."""
MAX_ENTRIES = 5_000_000
"""How many entries are kept of calls that did something, and how many of others: these do not drive those out."""
FAILURES = Rate(per_s=10, burst=10)
"""How many calls that came to nothing are recorded, of each token and of all who have none: nobody fills the disk."""
TELLING_DELAY_S = 60.0
"""After how long the log tells how many were left out."""

logger = logging.getLogger(__name__)


class AuditLog:
    """Writes the audit log.

    Args:
        clock: seconds from any origin, never going back.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._failures = RateLimit(FAILURES)
        self._left_out = 0

    async def record(self, entry: AuditEntry) -> None:
        """Add an entry, unless there are too many of its kind. A store that fails is logged, and no error."""
        if entry.code != "OK" and self._failures.take(entry.token, now_s=self._clock()):
            if not self._left_out:
                asyncio.get_running_loop().call_later(TELLING_DELAY_S, self.tell)
            self._left_out += 1
            return
        try:
            await asyncio.to_thread(self._store.add_audit_entry, entry)
        except Exception:  # the call has been answered for, and is not undone by this
            logger.exception("cannot record in the audit log: %s", entry)

    def tell(self) -> None:
        """Log how many entries were left out since this was last told."""
        if self._left_out:
            logger.warning("%d calls that were refused or failed are not in the audit log", self._left_out)
        self._left_out = 0
