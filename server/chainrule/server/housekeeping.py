"""What a service tidies up by itself: blobs that nothing refers to, and what is old of grants, tokens and records."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from chainrule.server import audit
from chainrule.server.access import TokenCatalog
from chainrule.server.blobs import BlobStore
from chainrule.server.errors import StoreUnavailableError
from chainrule.server.store import Store, requests

GRACE_S = 24 * 3600.0
"""How long a blob stays that nothing refers to: it may have been uploaded for something that is yet to be created."""
INTERVAL_S = 3600.0
"""Time between two looks."""

logger = logging.getLogger(__name__)


class Housekeeping:
    """Looks for what may go at the start and every hour, as an async context manager."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        tokens: TokenCatalog,
        *,
        interval_s: float = INTERVAL_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._tokens = tokens
        self._interval_s = interval_s
        self._grace_s = grace_s

    async def __aenter__(self) -> Self:
        self._over = asyncio.Event()
        self._stopping = threading.Event()
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._over.set()
        await self._task  # nothing is looked for, or removed, once this has ended

    async def _work(self) -> None:
        while not self._over.is_set():
            try:
                await asyncio.to_thread(self._look)
            except StoreUnavailableError as error:
                logger.warning("cannot look for blobs that may go: %s", error)
            except Exception:  # the next look may do better, and the service goes on without
                logger.exception("cannot look for blobs that may go")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._over.wait()

    def _look(self) -> None:
        found = self._blobs.collect(self._store.unreferenced, grace_s=self._grace_s, stopped=self._stopping.is_set)
        if found.blobs:
            logger.info("removed %d blobs, %d bytes, that nothing referred to", found.blobs, found.size_bytes)
        self._store.drop_grants(older_than_s=self._grace_s)
        self._store.drop_audit_entries(older_than_s=audit.KEPT_S, most=audit.MAX_ENTRIES)
        self._tokens.forget()
        self._store.drop_requests(older_than_s=requests.KEPT_S)
