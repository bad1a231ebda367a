"""The order of examples is a function of seed and epoch, and batches cut it without loss."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.data import batch_indices, compact_epoch_order, epoch_order, num_batches, split
from chainrule.engine.data import order as order_module


def test_order_is_a_permutation_and_these_forever() -> None:
    order = epoch_order(10, seed=1, epoch=2)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(10))
    assert order.tolist() == GOLDEN_ORDER


GOLDEN_ORDER = [7, 1, 3, 0, 4, 8, 9, 2, 6, 5]


def test_order_depends_on_seed_and_epoch() -> None:
    orders = {tuple(epoch_order(20, seed=seed, epoch=epoch).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("size", [0, 1, 1000, 2**20, 2**20 + 77])
def test_the_compact_order_is_the_same(size: int) -> None:
    order = compact_epoch_order(size, seed=3, epoch=2)
    assert np.array_equal(order, epoch_order(size, seed=3, epoch=2))
    assert order.dtype == (np.uint32 if size > 2**20 else np.int64)


def test_the_compact_order_is_stable(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.random.default_rng(0).integers(0, 2**64, size=1000, dtype=np.uint64)[np.arange(5000) % 1000]
    keys[:3] = 0, 2**64 - 1, 0
    monkeypatch.setattr(order_module, "raw_blocks", lambda seed, epoch, size, block: np.split(keys, 500))
    monkeypatch.setattr(order_module, "_SORTED_AT_ONCE", 10)
    assert np.array_equal(compact_epoch_order(5000, seed=0, epoch=0), np.argsort(keys, kind="stable"))


def test_the_compact_order_takes_little_memory() -> None:
    size = 2**23
    tracemalloc.start()
    try:
        compact_epoch_order(size, seed=0, epoch=0)
        assert tracemalloc.get_traced_memory()[1] < 4 * size + 2**25  # the result, and a block or part at a time
    finally:
        tracemalloc.stop()


def test_batches_cover_the_order_and_the_last_is_ragged() -> None:
    order = epoch_order(10, seed=0, epoch=0)
    assert num_batches(10, 4) == 3
    batches = [batch_indices(order, 4, index) for index in range(3)]
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert np.concatenate(batches).tolist() == order.tolist()
    assert num_batches(8, 4) == 2
    assert num_batches(0, 4) == 0


@pytest.mark.parametrize(
    ("size", "parts", "lengths"), [(10, 4, [3, 3, 2, 2]), (8, 4, [2, 2, 2, 2]), (2, 4, [1, 1, 0, 0]), (0, 2, [0, 0])]
)
def test_split_gives_the_first_parts_the_remainder(size: int, parts: int, lengths: list[int]) -> None:
    slices = split(size, parts)
    assert [part.stop - part.start for part in slices] == lengths
    assert np.concatenate([np.arange(size)[part] for part in slices]).tolist() == list(range(size))


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(cr.ConfigError, match="batch_size=0: must be at least 1"):
        num_batches(10, 0)
    with pytest.raises(cr.ConfigError, match="num_parts=0"):
        split(3, 0)
    with pytest.raises(cr.ConfigError, match="seed=-1"):
        epoch_order(3, seed=-1, epoch=0)
    with pytest.raises(cr.ConfigError, match="index=3: the epoch has 3 batches"):
        batch_indices(epoch_order(10, seed=0, epoch=0), 4, 3)
