"""What the updates share does as it says, and leaves alone what it should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chainrule.engine.optim.arithmetic import BLOCK, SMALL, direction, in_blocks, move_average


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_the_direction_is_the_gradient_or_against_it_with_the_decay(maximize: bool, weight_decay: float) -> None:
    g, p = np.array([1.0, -2.0]), np.array([4.0, 8.0])
    found = direction(g, p, weight_decay, maximize, np.empty(2))
    np.testing.assert_array_equal(found, (-g if maximize else g) + weight_decay * p)
    assert (found is g) == (not maximize and weight_decay == 0)
    assert (g.tolist(), p.tolist()) == ([1.0, -2.0], [4.0, 8.0])


@pytest.mark.parametrize("keep", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_an_average_moves_towards_the_new(keep: float) -> None:
    average, x = np.array([1.0, -3.0]), np.array([5.0, 7.0])
    expected = keep * average + (1 - keep) * x
    move_average(average, x, keep, np.empty(2))
    np.testing.assert_allclose(average, expected, rtol=1e-15)


def test_an_average_that_keeps_nothing_is_the_new_to_the_bit() -> None:
    average, x = np.array([1e8], np.float32), np.array([0.1], np.float32)
    move_average(average, x, 0.0, np.empty(1, np.float32))
    assert average.tobytes() == x.tobytes()


def laid_out(order: tuple[int, ...], size: tuple[int, ...]) -> Any:
    """Numbers of that size, which lie in memory with the dimensions in that order."""
    lengths = [size[axis] for axis in order]
    numbers = np.random.default_rng(0).standard_normal(lengths, np.float32)
    return numbers.transpose([order.index(axis) for axis in range(len(size))])


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0)], ids=["rows", "channels-last", "columns"])
def test_blocks_are_small_and_cover_everything_once_in_place(order: tuple[int, ...]) -> None:
    x, y = laid_out(order, (36, 16, 25, 37)), laid_out(order, (36, 16, 25, 37))
    expected = x * 2 + y
    blocks = list(in_blocks(x, None, y))
    assert x.size > SMALL
    assert len(blocks) == -(-x.size // BLOCK)
    for a, nothing, b in blocks:
        assert (a.size <= BLOCK, nothing) == (True, None)
        a *= 2
        a += b
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((4, 3)), np.zeros((4, 3))),
        (laid_out((0, 1), (700, 800)), laid_out((1, 0), (700, 800))),
        (laid_out((0, 1), (700, 1600))[:, ::2], laid_out((0, 1), (700, 1600))[:, ::2]),
    ],
    ids=["small", "of-two-layouts", "with-gaps"],
)
def test_what_is_small_or_lies_differently_is_one_block(x: Any, y: Any) -> None:
    ((a, b),) = in_blocks(x, y)
    assert a is x
    assert b is y
