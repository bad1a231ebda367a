"""What a service tidies up by itself: blobs that nothing refers to."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from types import TracebackType
from typing import Self

from chainrule.server.blobs import BlobStore
from chainrule.server.errors import StoreUnavailableError
from chainrule.server.store import Store

GRACE_S = 24 * 3600.0
"""How long a blob stays that nothing refers to: it may have been uploaded for something that is yet to be created."""
INTERVAL_S = 3600.0
"""Time between two looks."""

logger = logging.getLogger(__name__)


class Housekeeping:
    """Looks for what may go at the start and every hour, as an async context manager."""

    def __init__(self, store: Store, blobs: BlobStore, *, interval_s: float = INTERVAL_S, grace_s: float = GRACE_S):
        self._store = store
        self._blobs = blobs
        self._interval_s = interval_s
        self._grace_s = grace_s

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _work(self) -> None:
        while True:
            try:
                found = await asyncio.to_thread(self._blobs.collect, self._store.unreferenced, grace_s=self._grace_s)
            except (StoreUnavailableError, OSError) as error:
                logger.warning("cannot look for blobs that may go: %s", error)
            else:
                if found.blobs:
                    logger.info("removed %d blobs, %d bytes, that nothing referred to", found.blobs, found.size_bytes)
            await asyncio.sleep(self._interval_s)
