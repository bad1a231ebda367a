"""Checksums of the blocks of blobs that were found right: they tell of a block that it still is, without the rest."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from threading import Lock

BLOCK_BYTES = 1024**2
MAX_BLOCKS = 2**20
"""Blocks of which checksums are kept, 4 bytes each: of the blobs that were asked for last, a TiB of them."""


class Checksums:
    """The CRC-32C of every block of some blobs, by digest. It may be shared by threads."""

    def __init__(self, *, max_blocks: int = MAX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._known: OrderedDict[str, array[int]] = OrderedDict()
        self._blocks = 0
        self._lock = Lock()

    def of(self, digest: str) -> Sequence[int] | None:
        """Those of a blob, if they are known."""
        with self._lock:
            if digest in self._known:
                self._known.move_to_end(digest)
            return self._known.get(digest)

    def keep(self, digest: str, checksums: Iterable[int]) -> None:
        """Remember those of a blob that has its digest, in place of those that nobody has asked for longest."""
        kept = array("I", checksums)
        with self._lock:
            self._blocks += len(kept) - len(self._known.pop(digest, ()))
            self._known[digest] = kept
            while self._blocks > self._max_blocks:
                _, dropped = self._known.popitem(last=False)
                self._blocks -= len(dropped)
