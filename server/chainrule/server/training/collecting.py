"""Puts together what each partition contributes to a checkpoint, a receipt, or the end."""

from __future__ import annotations

from typing import Any

from chainrule.server.training import checkpoint
from chainrule.server.training.checkpoint import Packed
from chainrule.server.training.partition import merged
from chainrule.server.training.state import combined_digest


class Collector:
    """The shares that have come in, of partitions that go through the same steps."""

    def __init__(self) -> None:
        self._snapshots: dict[int, dict[int, memoryview]] = {}
        self._receipts: dict[int, dict[int, dict[str, Any]]] = {}
        self._done: set[int] = set()

    def snapshot(self, message: dict[str, Any], blob: memoryview, partitions: int) -> Packed | None:
        """A partition's share in the state after a step; all of it, packed, once the last has come."""
        shares = self._snapshots.setdefault(message["step"], {})
        shares[message["index"]] = blob
        if len(shares) < partitions:
            return None
        del self._snapshots[message["step"]]
        if partitions == 1:
            return Packed(blob)
        return Packed(checkpoint.pack(merged({index: checkpoint.unpacked(share) for index, share in shares.items()})))

    def receipt(self, message: dict[str, Any], partitions: int) -> str | None:
        """A partition's share in the digests of a step; the digest of the whole state, once the last has come."""
        shares = self._receipts.setdefault(message["step"], {})
        shares[message["index"]] = message["digests"]
        if len(shares) < partitions:
            return None
        del self._receipts[message["step"]]
        digests = {name: digest for share in shares.values() for name, digest in share.items()}
        return combined_digest(message["step"], message["updates"], digests)

    def done(self, index: int, partitions: int) -> bool:
        """A partition is done; whether all are."""
        self._done.add(index)
        return len(self._done) == partitions
