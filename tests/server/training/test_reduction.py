"""The sum over shards has one shape, whoever adds which part of it, and in whatever order it comes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.server.training.reduction import (
    Block,
    Cover,
    ReductionError,
    additions,
    assign,
    blocks_of,
    carries,
    root,
    tree_sum,
)

MAX_SHARDS = 19
Floats = np.ndarray[tuple[int], np.dtype[np.float32]]


def add(left: str, right: str) -> str:
    """Records the shape of the sum instead of computing it."""
    return f"({left}+{right})"


def shape(node: Block, num_shards: int) -> str:
    """The value of a node by the definition of the tree: left + right, where there are shards."""
    if node.size == 1:
        return str(node.start)
    left, right = node.halves
    if right.start >= num_shards:
        return shape(left, num_shards)
    return add(shape(left, num_shards), shape(right, num_shards))


def floats(node: Block, shards: Sequence[Floats]) -> Floats:
    """The same with numbers."""
    if node.size == 1:
        return shards[node.start]
    left, right = node.halves
    if right.start >= len(shards):
        return floats(left, shards)
    return floats(left, shards) + floats(right, shards)


def cut(node: Block, num_shards: int, draw: random.Random) -> list[Block]:
    """A decomposition of a node into blocks, some of which may reach beyond the last shard."""
    if node.start >= num_shards:
        return []
    if node.size == 1 or draw.random() < 0.3:
        return [node]
    return [block for half in node.halves for block in cut(half, num_shards, draw)]


def contribution(block: Block) -> str:
    """What a worker makes of a block shard by shard, with one value for each level."""
    pending: list[str] = []
    for place, carry in enumerate(carries(block.size)):
        value = str(block.start + place)
        for _ in range(carry):
            value = add(pending.pop(), value)
        pending.append(value)
    [total] = pending
    return total


shard_counts = st.integers(1, MAX_SHARDS)

# --- the shape -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_shards", "expected"),
    [
        (1, "0"),
        (2, "(0+1)"),
        (3, "((0+1)+2)"),
        (4, "((0+1)+(2+3))"),
        (5, "(((0+1)+(2+3))+4)"),
        (7, "(((0+1)+(2+3))+((4+5)+6))"),
    ],
)
def test_the_shape_is_the_binary_tree_over_shard_index(num_shards: int, expected: str) -> None:
    cover = Cover[str](num_shards)
    for shard in range(num_shards):
        assert cover.add(Block(shard), str(shard))
    assert cover.sum(add) == expected


@pytest.mark.parametrize("num_shards", [3, 4, 5])
def test_no_order_of_arrival_changes_it(num_shards: int) -> None:
    for order in itertools.permutations(range(num_shards)):
        cover = Cover[str](num_shards)
        for shard in order:
            cover.add(Block(shard), str(shard))
        assert cover.sum(add) == shape(root(num_shards), num_shards)


@given(shard_counts, st.randoms())
def test_no_decomposition_into_blocks_changes_it(num_shards: int, draw: random.Random) -> None:
    blocks = cut(root(num_shards), num_shards, draw)
    draw.shuffle(blocks)
    cover = Cover[str](num_shards)
    for block in blocks:
        assert not cover.complete
        assert cover.add(block, shape(block, num_shards))
    assert cover.sum(add) == shape(root(num_shards), num_shards)


@given(shard_counts, st.randoms())
def test_what_comes_twice_or_within_something_else_does_not_change_it(num_shards: int, draw: random.Random) -> None:
    def occupied(block: Block) -> int:
        return min(block.size, num_shards - block.start)

    blocks = [block for _ in range(3) for block in cut(root(num_shards), num_shards, draw)]
    draw.shuffle(blocks)
    cover = Cover[str](num_shards)
    for block in blocks:
        parts = [held for held in cover.values if held in block]
        known = any(block in held for held in cover.values) or sum(map(occupied, parts)) == occupied(block)
        assert cover.add(block, shape(block, num_shards)) is not known
    assert cover.sum(add) == shape(root(num_shards), num_shards)


@given(shard_counts, st.integers(1, 25), st.randoms())
def test_no_assignment_changes_it(num_shards: int, num_workers: int, draw: random.Random) -> None:
    """Each worker adds up the blocks of its shards, which need not be those that `assign` gives."""
    owners = [draw.randrange(num_workers) for _ in range(num_shards)]
    even = assign(num_shards, range(num_workers))
    by_chance = {worker: [k for k in range(num_shards) if owners[k] == worker] for worker in range(num_workers)}
    for shards_of in (even, by_chance):
        cover = Cover[str](num_shards)
        for shards in shards_of.values():
            for block in blocks_of(shards):
                cover.add(block, contribution(block))
        assert cover.sum(add) == shape(root(num_shards), num_shards)


@given(st.integers(2, 12), st.integers(0, 2**32 - 1), st.randoms())
def test_numbers_have_the_bits_of_the_one_tree(num_shards: int, seed: int, draw: random.Random) -> None:
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-6, 7, size=(num_shards, 5))
    shards: list[Floats] = list((rng.normal(size=(num_shards, 5)) * scale).astype(np.float32))
    blocks = cut(root(num_shards), num_shards, draw)
    draw.shuffle(blocks)
    cover = Cover[Floats](num_shards)
    for block in blocks:
        cover.add(block, floats(block, shards))
    assert cover.sum(np.add).tobytes() == floats(root(num_shards), shards).tobytes()


def test_plain_orders_would_have_other_bits() -> None:
    values = (np.random.default_rng(0).normal(size=8) * 10.0 ** np.arange(8)).astype(np.float32)
    orders = itertools.islice(itertools.permutations(range(8)), 0, 40320, 997)
    assert len({float(sum((values[k] for k in order), np.float32(0))) for order in orders}) > 1


# --- what has come in ------------------------------------------------------------------------------------------


def test_a_larger_block_takes_the_place_of_those_inside_it() -> None:
    cover = Cover[str](4)
    cover.add(Block(1), "1")
    cover.add(Block(3), "3")
    assert cover.add(Block(0, 2), "(0+1)")
    assert cover.values == {Block(3): "3", Block(0, 2): "(0+1)"}
    assert not cover.add(Block(0), "another 0")
    assert cover.values == {Block(3): "3", Block(0, 2): "(0+1)"}


def test_it_says_which_shards_are_missing() -> None:
    cover = Cover[str](5)
    assert cover.missing == [0, 1, 2, 3, 4]
    cover.add(Block(4), "4")
    cover.add(Block(0, 2), "(0+1)")
    assert (cover.missing, cover.complete) == ([2, 3], False)
    cover.add(Block(2, 2), "(2+3)")
    assert (cover.missing, cover.complete) == ([], True)


def test_a_sum_before_all_are_there_is_refused() -> None:
    cover = Cover[str](3)
    cover.add(Block(2), "2")
    with pytest.raises(ReductionError, match=r"the sum over 3 shards lacks \[0, 1\]"):
        cover.sum(add)


@pytest.mark.parametrize("block", [Block(4), Block(-1), Block(-2, 2), Block(1, 2), Block(2, 4)])
def test_a_block_outside_the_tree_is_refused(block: Block) -> None:
    with pytest.raises(ReductionError, match="is no block of a tree over 4 shards"):
        Cover[str](4).add(block, "x")


def test_blocks_that_leave_gaps_do_not_add_up() -> None:
    with pytest.raises(ReductionError, match="do not add up to"):
        additions((), Block(0, 4))


def test_the_value_of_an_inner_node_is_that_of_the_tree() -> None:
    values = {Block(shard): str(shard) for shard in range(7)}
    assert tree_sum(values, Block(4, 4), add) == "((4+5)+6)"
    assert tree_sum(values, Block(2, 2), add) == "(2+3)"
    assert tree_sum(values, Block(6), add) == "6"


# --- blocks and who computes them ------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_shards", "size"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16)])
def test_the_root_is_padded_to_a_power_of_two(num_shards: int, size: int) -> None:
    assert root(num_shards) == Block(0, size)


@pytest.mark.parametrize(
    ("shards", "blocks"),
    [
        ([], []),
        ([3], [Block(3)]),
        (range(8), [Block(0, 8)]),
        (range(1, 8), [Block(1), Block(2, 2), Block(4, 4)]),
        (range(3, 6), [Block(3), Block(4, 2)]),
        ([6, 1, 0, 7, 3, 0], [Block(0, 2), Block(3), Block(6, 2)]),
        (range(2, 10), [Block(2, 2), Block(4, 4), Block(8, 2)]),
    ],
)
def test_shards_make_up_the_fewest_blocks(shards: Sequence[int], blocks: list[Block]) -> None:
    assert blocks_of(shards) == blocks


@given(st.sets(st.integers(0, 40)))
def test_blocks_are_exactly_their_shards(shards: set[int]) -> None:
    blocks = blocks_of(shards)
    assert [shard for block in blocks for shard in range(block.start, block.start + block.size)] == sorted(shards)
    assert all(block.start % block.size == 0 for block in blocks)
    for left, right in itertools.pairwise(blocks):  # no two of them are the halves of one
        assert Block(left.start, 2 * left.size).halves != (left, right) or left.start % (2 * left.size)


@pytest.mark.parametrize(
    ("size", "expected"), [(1, [0]), (2, [0, 1]), (4, [0, 1, 0, 2]), (8, [0, 1, 0, 2, 0, 1, 0, 3])]
)
def test_carries_are_those_of_a_binary_counter(size: int, expected: list[int]) -> None:
    assert list(carries(size)) == expected


@given(shard_counts, st.integers(1, 25))
def test_every_shard_is_assigned_once_and_evenly(num_shards: int, num_workers: int) -> None:
    ranges = assign(num_shards, [f"worker {number}" for number in range(num_workers)])
    assert [shard for shards in ranges.values() for shard in shards] == list(range(num_shards))
    sizes = [len(shards) for shards in ranges.values()]
    assert max(sizes) - min(sizes) <= 1
    assert len(ranges) == num_workers


def test_blocks_contain_what_lies_within_them() -> None:
    assert Block(4) in Block(4, 4)
    assert Block(4, 4) in Block(0, 8)
    assert Block(0, 8) not in Block(4, 4)
    assert Block(3) not in Block(4, 4)
