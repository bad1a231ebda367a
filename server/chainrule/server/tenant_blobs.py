"""Blobs as a tenant sees them: its own, as if there were no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from chainrule.server.blobs import (
    Announcement,
    Blob,
    BlobStore,
    Chunk,
    Sender,
    WriteStatus,
    check_digest,
    check_digests,
    no_blob,
)
from chainrule.server.errors import NotFoundError, StorageFullError
from chainrule.server.store import Store


class TenantBlobs:
    """What tenants may see of the blobs: those they have uploaded, and those that their models, datasets and jobs refer
    to. Any other is missing, also while it is stored for somebody else: who uploads it sends all of it.

    Args:
        are_apart: whether tenants are kept apart; without, everybody sees everything.
        limit_bytes: most bytes of blobs with which a tenant may upload something more; None: no limit of its own. What
            its jobs store counts, and is never refused for it.
    """

    def __init__(self, blobs: BlobStore, store: Store, *, are_apart: bool, limit_bytes: int | None = None) -> None:
        self._blobs = blobs
        self._store = store
        self._are_apart = are_apart
        self._limit_bytes = limit_bytes

    def check_readable(self, digest: str, *, tenant: str, field: str = "digest") -> None:
        """Raises NotFoundError if a tenant may not read a blob, as if it were not there, or InvalidRequestError naming
        the field."""
        check_digest(digest, field=field)
        if self._are_apart and not self._store.readable_blobs(tenant, [digest]):
            raise no_blob(digest)

    @contextmanager
    def hold(self, digest: str, *, tenant: str, field: str = "digest") -> Iterator[None]:
        """Keep a blob that a tenant may read, as `BlobStore.hold`: until what is about to refer to it does. Raises what
        `check_readable` raises; then the blob is not kept, nor kept for longer."""
        self.check_readable(digest, tenant=tenant, field=field)
        with self._blobs.hold(digest):
            self._store.renew_grants(tenant, [digest])
            yield

    @contextmanager
    def hold_all(self, digests: Sequence[str], *, tenant: str) -> Iterator[None]:
        """Keep many blobs, as `hold`. Raises NotFoundError naming the first that is not there, or that the tenant may
        not read; then none is kept."""
        if self._are_apart:
            readable = self._store.readable_blobs(tenant, digests)
            for digest in digests:
                if digest not in readable:
                    raise no_blob(digest)
        with self._blobs.hold(*digests):
            self._store.renew_grants(tenant, digests)
            yield

    def check_room(self, blob: Blob, *, tenant: str) -> None:
        """Raises StorageFullError if a blob that is about to be stored for a tenant is more than there is room for, on
        the disk or within the limits."""
        self._blobs.check_room(blob, self._sender(tenant))

    def missing(self, digests: list[str], *, tenant: str) -> list[str]:
        """Those that the tenant has to upload, in the order given. Raises InvalidRequestError if they are too many."""
        if not self._are_apart:
            return self._blobs.missing(digests)
        readable = self._store.readable_blobs(tenant, check_digests(digests))
        there = readable.difference(self._blobs.missing(list(readable)))
        if there:
            self._store.renew_grants(tenant, there)
        return [digest for digest in digests if digest not in there]

    def write_status(self, digest: str, *, tenant: str) -> WriteStatus:
        """How much of a blob has arrived from the tenant."""
        return self._blobs.write_status(digest, self._sender(tenant))

    async def receive(self, parts: AsyncIterator[Announcement | Chunk | None], *, tenant: str) -> Blob:
        """Store what comes in parts, as `BlobStore.receive`, and let the tenant read it. Raises what that raises."""
        blob = await self._blobs.receive(parts, self._sender(tenant))
        await asyncio.to_thread(self._grant, blob.digest, tenant)
        return blob

    def download(self, digest: str, *, tenant: str, offset_bytes: int = 0, limit_bytes: int = 0) -> Iterator[Chunk]:
        """A blob's content in chunks, as `BlobStore.download`. Raises what that raises."""
        self.check_readable(digest, tenant=tenant)
        yield from self._blobs.download(digest, offset_bytes=offset_bytes, limit_bytes=limit_bytes)

    def _grant(self, digest: str, tenant: str) -> None:
        with self._blobs.hold(digest):
            self._store.grant_blob(tenant, digest)

    def _sender(self, tenant: str) -> Sender:
        if not self._are_apart:
            return Sender()
        return _Tenant(tenant, self._blobs, self._store, self._limit_bytes)


class _Tenant(Sender):
    """A tenant that uploads."""

    def __init__(self, name: str, blobs: BlobStore, store: Store, limit_bytes: int | None) -> None:
        self.name = name
        self._blobs = blobs
        self._store = store
        self._limit_bytes = limit_bytes

    def knows(self, digest: str) -> bool:
        return bool(self._store.readable_blobs(self.name, [digest]))

    def check_room(self, blob: Blob, arriving_bytes: int) -> None:
        if self._limit_bytes is None:
            return
        stored_bytes = sum(map(self._size, self._store.blobs_of(self.name)))
        if stored_bytes + arriving_bytes > self._limit_bytes:
            raise StorageFullError(
                f'there is no room for the {blob.size_bytes:,} bytes of blob "{blob.digest}": tenant "{self.name}" has '
                f"{stored_bytes + arriving_bytes - blob.size_bytes:,} of its {self._limit_bytes:,} bytes taken, or "
                "being uploaded; delete models, datasets and jobs that are not needed (what nothing refers to goes "
                "after a day), or have the server serve with a larger --tenant-storage-limit",
                tenant=self.name,
            )

    def _size(self, digest: str) -> int:
        try:
            return self._blobs.size(digest)
        except NotFoundError:
            return 0
