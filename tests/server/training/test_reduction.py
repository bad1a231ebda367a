"""The reduction tree: one shape for any assignment and any order of arrival."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from chainrule.server.training.reduction import Block, ReductionError, TreeSum, assign


@dataclass(frozen=True)
class Term:
    """Records the shape of the sum instead of computing it."""

    text: str

    def __add__(self, other: Term) -> Term:
        return Term(f"({self.text}+{other.text})")


def sum_of(num_shards: int, order: list[int]) -> str:
    tree = TreeSum[Term](num_shards)
    for shard in order:
        tree.add(Block(shard), Term(str(shard)))
    return tree.total().text


@pytest.mark.parametrize(
    ("num_shards", "shape"),
    [
        (1, "0"),
        (2, "(0+1)"),
        (3, "((0+1)+2)"),
        (4, "((0+1)+(2+3))"),
        (5, "(((0+1)+(2+3))+4)"),
        (7, "(((0+1)+(2+3))+((4+5)+6))"),
    ],
)
def test_shape_is_the_binary_tree_over_shard_index(num_shards: int, shape: str) -> None:
    assert sum_of(num_shards, list(range(num_shards))) == shape


@pytest.mark.parametrize("num_shards", [3, 4, 5])
def test_shape_does_not_depend_on_the_order_of_arrival(num_shards: int) -> None:
    shapes = {sum_of(num_shards, list(order)) for order in itertools.permutations(range(num_shards))}
    assert len(shapes) == 1


@pytest.mark.parametrize("num_shards", range(1, 18))
def test_shape_does_not_depend_on_who_adds_what(num_shards: int) -> None:
    shapes = set()
    for num_workers in range(1, num_shards + 1):
        server = TreeSum[Term](num_shards)
        for shards in reversed(assign(num_shards, num_workers)):
            worker = TreeSum[Term](num_shards)
            for shard in shards:
                worker.add(Block(shard), Term(str(shard)))
            for block, value in worker.blocks():
                server.add(block, value)
        shapes.add(server.total().text)
    assert len(shapes) == 1


def test_sum_of_floats_has_one_value_where_plain_orders_have_many() -> None:
    values = (np.random.default_rng(0).normal(size=8) * 10.0 ** np.arange(8)).astype(np.float32)
    plain, tree = set(), set()
    for order in itertools.islice(itertools.permutations(range(8)), 0, 40320, 997):
        plain.add(float(sum((values[i] for i in order), np.float32(0))))
        total = TreeSum[np.float32](8)
        for shard in order:
            total.add(Block(shard), values[shard])
        tree.add(float(total.total()))
    assert len(plain) > 1
    assert len(tree) == 1


def test_a_worker_with_a_whole_block_sends_one_value() -> None:
    tree = TreeSum[Term](8)
    for shard in range(4, 8):
        tree.add(Block(shard), Term(str(shard)))
    assert tree.blocks() == [(Block(4, 4), Term("((4+5)+(6+7))"))]


def test_a_shard_that_comes_twice_is_refused() -> None:
    tree = TreeSum[Term](4)
    tree.add(Block(0), Term("0"))
    tree.add(Block(1), Term("1"))
    with pytest.raises(ReductionError, match=r"Block\(start=1, size=1\) came twice"):
        tree.add(Block(1), Term("1"))


@pytest.mark.parametrize("block", [Block(4), Block(-1), Block(1, 2)])
def test_a_block_outside_the_tree_is_refused(block: Block) -> None:
    with pytest.raises(ReductionError, match="no block of a tree over 4 shards"):
        TreeSum[Term](4).add(block, Term("x"))


def test_total_before_all_shards_are_there_is_refused() -> None:
    tree = TreeSum[Term](3)
    tree.add(Block(2), Term("2"))
    assert not tree.complete
    with pytest.raises(ReductionError, match="sum over 3 shards has only"):
        tree.total()


@pytest.mark.parametrize(("num_shards", "num_workers"), [(1, 1), (4, 3), (8, 3), (8, 7), (5, 5)])
def test_assignment_covers_each_shard_once_and_evenly(num_shards: int, num_workers: int) -> None:
    ranges = assign(num_shards, num_workers)
    assert [shard for part in ranges for shard in part] == list(range(num_shards))
    sizes = [len(part) for part in ranges]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
