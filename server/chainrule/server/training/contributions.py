"""What workers send, and what comes of results that come twice."""

from __future__ import annotations

import hashlib
import itertools
import struct
from dataclasses import dataclass

import numpy as np

from chainrule.server.training.layout import PartitionLayout, Place
from chainrule.server.training.memory import Slot
from chainrule.server.training.reduction import Block
from chainrule.server.training.state import Array

HEAD = 0xFFFF
"""Part of a push: the statistics and what was measured."""
WHOLE = 0xFFFE
"""All parts of a push together."""


Sums = tuple[tuple[float, ...], ...]
"""What metrics are computed of, in the order and the lengths that the job's objective gives them."""


@dataclass(frozen=True)
class Measured:
    """What a block of shards measured; added up in the tree, as the gradients are."""

    loss: float = 0.0
    """Share in the mean loss."""
    num_correct: int = 0
    """Predictions that were right."""
    num_predictions: int = 0
    """0 where accuracy is not measured."""
    sums: Sums = ()
    """Of the other metrics; empty: none, or nothing measured yet."""

    @property
    def bits(self) -> bytes:
        """What is the same for two results that are, a loss of NaN among them."""
        return struct.pack("<dqq", self.loss, self.num_correct, self.num_predictions) + pack_sums(self.sums)

    def __add__(self, other: Measured) -> Measured:
        return Measured(
            self.loss + other.loss,
            self.num_correct + other.num_correct,
            self.num_predictions + other.num_predictions,
            _added(self.sums, other.sums),
        )


def pack_sums(sums: Sums) -> bytes:
    """Sums as bytes: how many vectors, their lengths, their numbers; none are no bytes."""
    if not sums:
        return b""
    lengths = struct.pack(f"<H{len(sums)}I", len(sums), *map(len, sums))
    return lengths + b"".join(struct.pack(f"<{len(vector)}d", *vector) for vector in sums)


def unpack_sums(content: bytes) -> Sums:
    """The sums again. Raises struct.error if these are no sums."""
    if not content:
        return ()
    [count] = struct.unpack_from("<H", content)
    lengths = struct.unpack_from(f"<{count}I", content, 2)
    numbers = struct.unpack(f"<{sum(lengths)}d", content[2 + 4 * count :])
    ends = list(itertools.accumulate(lengths))
    return tuple(numbers[end - length : end] for end, length in zip(ends, lengths, strict=True))


def _added(left: Sums, right: Sums) -> Sums:
    if not left or not right:
        return left or right
    return tuple(tuple(a + b for a, b in zip(one, other, strict=True)) for one, other in zip(left, right, strict=True))


@dataclass(frozen=True)
class Push:
    """A part of what a worker computed for a block of shards."""

    tick: int
    worker: int
    block: Block
    part: int
    """A bucket, HEAD or WHOLE."""
    measured: Measured
    """For HEAD and WHOLE."""
    memory: memoryview
    """The push region it lies in; it stays as it is until the tick is over."""
    slot: Slot | None = None
    """The slot that the region is of, if what was sent late may be overwritten."""

    @property
    def stands(self) -> bool:
        """Whether what was read from the memory up to now is what was sent."""
        return self.slot is None or int(self.slot.tick[0]) == self.tick


@dataclass(frozen=True)
class Dispute:
    """Two results for the same block that are not the same bits."""

    tick: int
    step: int
    """Number of the step, from 1."""
    block: Block
    workers: tuple[int, ...]
    """Who computed it, in the order in which the results came."""
    resolved: bool = False
    """Whether a further result has told which of them was wrong: then it is `workers[0]`."""
    late: bool = False
    """Whether the step was complete when it was found: what was wrong may be in the weights."""
    bucket: int = 0
    """Where they differ, if it is late."""
    digests: tuple[str, ...] = ()
    """Of the results, in the order of the workers, if it is late."""


@dataclass(frozen=True)
class Verdict:
    """The digest of a block that was disputed and has been computed again."""

    tick: int
    block: Block
    bucket: int
    digest: str


def add_heads(
    left: tuple[Array | None, Measured], right: tuple[Array | None, Measured]
) -> tuple[Array | None, Measured]:
    """The sum of two blocks' statistics, where there are any, and of what they measured."""
    statistics = None if left[0] is None or right[0] is None else left[0] + right[0]
    return statistics, left[1] + right[1]


def same_bytes(one: memoryview, other: memoryview) -> bool:
    """Whether two results have the same bits."""
    return np.array_equal(np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8))


def digest_of(array: Array) -> str:
    """The SHA-256 of a result's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).hexdigest()


def place_of_part(layout: PartitionLayout, part: int) -> tuple[int, int]:
    """The bytes of the push region that a part is."""
    if part == WHOLE:
        return 0, layout.push_bytes
    if part == HEAD:
        return layout.statistics_range if layout.statistics else (0, 0)
    bucket: Place = layout.buckets[part]
    return bucket.offset, bucket.end
