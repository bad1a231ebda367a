"""What the updates share does as it says, and leaves alone what it should."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.engine.optim.arithmetic import direction, move_average


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
