"""The sum over shards, in one fixed binary tree over shard index, whoever computes which part of it.

Floating-point addition is not associative, so a sum has the same bits only if it has the same shape. The tree here is
that of the shard indices 0 … K−1, padded to a power of two: a node is an aligned block of 2^n shards, and its value is
left + right. A worker that holds a whole block can add it up itself and send one value; the server finishes the tree.
Arrival order, worker count and assignment do not appear in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, Protocol, Self, TypeVar

from chainrule.engine import ChainruleError


class ReductionError(ChainruleError):
    """A shard outside the tree, or one that came twice."""


class Addable(Protocol):
    def __add__(self, other: Self, /) -> Self: ...


T = TypeVar("T", bound=Addable)


@dataclass(frozen=True, order=True)
class Block:
    """The shards start … start + size − 1, where size is a power of two and start a multiple of it."""

    start: int
    size: int = 1

    @property
    def sibling(self) -> Block:
        return Block(self.start ^ self.size, self.size)

    @property
    def parent(self) -> Block:
        return Block(self.start & ~self.size, 2 * self.size)

    def overlaps(self, other: Block) -> bool:
        return self.start < other.start + other.size and other.start < self.start + self.size


class TreeSum(Generic[T]):
    """Adds values of blocks as they come and keeps what cannot be joined yet."""

    def __init__(self, num_shards: int) -> None:
        self.num_shards = num_shards
        self.root = Block(0, 1 << (num_shards - 1).bit_length())
        self._pending: dict[Block, T] = {}

    def add(self, block: Block, value: T) -> None:
        """Put in the value of one block. Raises ReductionError if it lies outside the tree or came before."""
        if not (0 <= block.start < self.num_shards and block.start % block.size == 0):
            raise ReductionError(f"{block} is no block of a tree over {self.num_shards} shards")
        if any(block.overlaps(held) for held in self._pending):
            raise ReductionError(f"{block} came twice: pending are {sorted(self._pending)}")
        while block != self.root:
            sibling = block.sibling
            if sibling.start >= self.num_shards:  # padding: nothing to add
                block = block.parent
            elif sibling in self._pending:
                other = self._pending.pop(sibling)
                value = other + value if sibling < block else value + other
                block = block.parent
            else:
                break
        self._pending[block] = value

    @property
    def complete(self) -> bool:
        return self.root in self._pending

    def total(self) -> T:
        """The sum over all shards. Raises ReductionError before it is complete."""
        if not self.complete:
            raise ReductionError(f"the sum over {self.num_shards} shards has only {sorted(self._pending)}")
        return self._pending[self.root]

    def blocks(self) -> list[tuple[Block, T]]:
        """What is held, in order of shard index: the fewest values that stand for all that was put in."""
        return sorted(self._pending.items(), key=lambda item: item[0])


def assign(num_shards: int, num_workers: int) -> list[range]:
    """Contiguous shards for each worker, as even as can be."""
    bounds = [num_shards * worker // num_workers for worker in range(num_workers + 1)]
    return [range(start, stop) for start, stop in pairwise(bounds)]
