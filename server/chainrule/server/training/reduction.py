"""The sum over shards, in one fixed binary tree over shard index, whoever computes which part of it.

Floating-point addition is not associative, so a sum has the same bits only if it has the same shape. The tree here is
that of the shard indices 0 … K−1, padded to a power of two: a node is an aligned block of 2^n shards, and its value is
left + right. A worker that holds a whole block adds it up itself and sends one value; the server finishes the tree.
Arrival order, worker count and assignment do not appear in it, and a block has one value, whoever computes it: what
comes twice is the same, and a value may stand for those of the blocks inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Generic, TypeVar

from chainrule.engine import ChainruleError

T = TypeVar("T")


class ReductionError(ChainruleError):
    """A block outside the tree, or a sum that is not complete."""


@dataclass(frozen=True, order=True)
class Block:
    """The shards start … start + size − 1, where size is a power of two and start a multiple of it."""

    start: int
    size: int = 1

    @property
    def halves(self) -> tuple[Block, Block]:
        half = self.size // 2
        return Block(self.start, half), Block(self.start + half, half)

    def __contains__(self, other: Block) -> bool:
        return self.start <= other.start and other.start + other.size <= self.start + self.size


def root(num_shards: int) -> Block:
    """The block of all shards."""
    return Block(0, 1 << (num_shards - 1).bit_length())


def blocks_of(shards: Iterable[int]) -> list[Block]:
    """The fewest aligned blocks that are exactly these shards, in order."""
    left = sorted(set(shards))
    blocks = []
    while left:
        start, size = left[0], 1
        while start % (2 * size) == 0 and left[: 2 * size] == list(range(start, start + 2 * size)):
            size *= 2
        blocks.append(Block(start, size))
        del left[:size]
    return blocks


class Cover(Generic[T]):
    """The values of blocks that have come in, until they cover all shards."""

    def __init__(self, num_shards: int) -> None:
        self.num_shards = num_shards
        self.values: dict[Block, T] = {}

    def add(self, block: Block, value: T) -> bool:
        """Put in the value of a block; False if it is known already, itself or as the sum of its parts. Raises
        ReductionError outside the tree."""
        if not (0 <= block.start < self.num_shards and block.start % block.size == 0):
            raise ReductionError(f"{block} is no block of a tree over {self.num_shards} shards")
        if any(block in held for held in self.values):
            return False
        parts = [held for held in self.values if held in block]
        if parts and sum(map(self._occupied, parts)) == self._occupied(block):
            return False
        for inside in parts:
            del self.values[inside]
        self.values[block] = value
        return True

    def _occupied(self, block: Block) -> int:
        """How many shards of a block there are."""
        return min(block.size, self.num_shards - block.start)

    @property
    def missing(self) -> list[int]:
        """The shards that have not come in."""
        found = {shard for block in self.values for shard in range(block.start, block.start + block.size)}
        return [shard for shard in range(self.num_shards) if shard not in found]

    @property
    def complete(self) -> bool:
        return sum(map(self._occupied, self.values)) == self.num_shards

    def sum(self, add: Callable[[T, T], T]) -> T:
        """The sum over all shards. Raises ReductionError before it is complete."""
        if not self.complete:
            raise ReductionError(f"the sum over {self.num_shards} shards lacks {self.missing}")
        return tree_sum(self.values, root(self.num_shards), add)


def tree_sum(values: Mapping[Block, T], node: Block, add: Callable[[T, T], T]) -> T:
    """The value of a node, from those of blocks that cover it. A block beyond the last shard adds nothing."""
    blocks = tuple(sorted(block for block in values if block in node))
    held: list[T] = [values[block] for block in blocks]
    for left, right in additions(blocks, node):
        held.append(add(held[left], held[right]))
    return held[-1]


@lru_cache(maxsize=256)
def additions(blocks: tuple[Block, ...], node: Block) -> tuple[tuple[int, int], ...]:
    """How to add up the values of sorted blocks to that of a node: pairs of places, each of which appends its sum."""
    steps: list[tuple[int, int]] = []

    def place(at: Block) -> int | None:
        if at in known:
            return known[at]
        if at.size == 1:
            return None  # padding
        left, right = (place(half) for half in at.halves)
        if left is None or right is None:
            return right if left is None else left
        steps.append((left, right))
        return len(blocks) + len(steps) - 1

    known = {block: index for index, block in enumerate(blocks)}
    last = place(node)
    if last != len(blocks) + len(steps) - 1:
        raise ReductionError(f"{blocks} do not add up to {node}")
    return tuple(steps)


def carries(size: int) -> Iterator[int]:
    """For each shard of a block, in order, how many finished sums on its left it completes: the trailing ones of its
    index. Whoever adds up a block shard by shard keeps one value for each level, as a binary counter does."""
    for index in range(size):
        yield (~index & (index + 1)).bit_length() - 1


def assign(num_shards: int, workers: Sequence[T]) -> dict[T, range]:
    """Contiguous shards for each worker, as even as can be."""
    bounds = [num_shards * place // len(workers) for place in range(len(workers) + 1)]
    return {worker: range(start, stop) for worker, (start, stop) in zip(workers, pairwise(bounds), strict=True)}
