"""The number of threads is that of the whole process, from when it is chosen on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import threads
from chainrule.engine.dtypes import Array
from chainrule.engine.kernels import onednn
from chainrule.engine.kernels.geometry import ConvGeometry
from tests.engine.kernels.agreement import draws, needs_onednn

_T = TypeVar("_T")


@pytest.fixture(autouse=True)
def afterwards_as_before() -> Iterator[None]:
    """The number of threads does not outlive a test."""
    before = cr.get_num_threads()
    yield
    cr.set_num_threads(before)


def in_another_thread(function: Callable[[], _T]) -> _T:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result()


def of_openmp() -> set[int]:
    """How many threads oneDNN would use if it was called now, in this thread."""
    return {library.num_threads for library in threads._controller().lib_controllers if library.user_api == "openmp"}


def computed() -> list[Array]:
    """A convolution, normalised, with its gradients: sums whose order the number of threads decides."""
    x, w, geometry = draws((4, 8, 20, 20)), draws((16, 8, 3, 3), seed=1), ConvGeometry()
    y = onednn.conv2d(x, w, None, geometry)
    z, mean, variance, mask = onednn.batch_norm_relu(y, None, None, 1e-5)
    dy, dw, db = onednn.batch_norm_gradients(z, y, None, mean, variance, 1e-5, mask)
    return [y, z, mean, variance, dy, dw, db, onednn.conv2d_weight(dy, x, w.shape, geometry, np.dtype(np.float32))]


def same_bits(results: list[Array], expected: list[Array]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(results, expected, strict=True))


@pytest.mark.parametrize("number", [1, 2])
def test_a_number_chosen_here_is_that_of_other_threads(number: int) -> None:
    cr.set_num_threads(number)
    assert in_another_thread(cr.get_num_threads) == cr.get_num_threads() == number


@needs_onednn
@pytest.mark.parametrize("number", [1, 2])
def test_kernels_in_other_threads_use_as_many(number: int) -> None:
    def compute() -> set[int]:
        computed()
        return of_openmp()

    cr.set_num_threads(number)
    assert in_another_thread(compute) == {number}
    assert compute() == {number}
    cr.set_num_threads(3 - number)  # which nothing is computed with
    in_another_thread(lambda: cr.set_num_threads(number))
    assert compute() == {number}


@needs_onednn
def test_results_are_the_same_bits_in_every_thread() -> None:
    cr.set_num_threads(1)
    assert same_bits(in_another_thread(computed), computed())


@needs_onednn
def test_what_was_computed_with_another_number_of_threads_leaves_no_trace() -> None:
    cr.set_num_threads(1)
    expected = in_another_thread(computed)
    cr.set_num_threads(2)
    with_two = computed()
    assert not same_bits(with_two, expected), "nothing here depends on the number of threads"
    cr.set_num_threads(1)
    assert same_bits(computed(), expected)
    cr.set_num_threads(2)
    assert same_bits(computed(), with_two)
