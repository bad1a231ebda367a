"""Functions that make tensors choose dtypes as PyTorch does, and copy or share as they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, "float32"),
        (1, "int64"),
        (True, "bool"),
        ([1.0, 2.0], "float32"),
        ([[1, 2], [3, 4]], "int64"),
        ([1, 2.5], "float32"),
        ([], "float32"),
        (np.ones(2), "float64"),
        (np.float64(1), "float64"),
        (np.ones(2, np.int32), "int32"),
        ([np.float64(1.0)], "float64"),
    ],
)
def test_data_decides_the_dtype(data: Any, dtype: str) -> None:
    assert str(cr.tensor(data).dtype) == dtype


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones(2, np.uint32), "uint32 is not supported"),
        ("abc", "cannot make a tensor of str"),
        ([1j], "complex128"),
        ([[1], [1, 2]], "cannot make a tensor of list"),
    ],
)
def test_what_is_no_number_is_refused(data: Any, message: str) -> None:
    with pytest.raises(cr.DTypeError, match=message):
        cr.tensor(data)


def test_tensor_copies_and_from_numpy_shares() -> None:
    array = np.zeros(2, np.float32)
    copied, shared, taken = cr.tensor(array), cr.from_numpy(array), cr.as_tensor(array)
    array[0] = 1
    assert copied.tolist() == [0.0, 0.0]
    assert shared.tolist() == taken.tolist() == [1.0, 0.0]
    assert cr.as_tensor(shared) is shared


def test_tensors_in_lists_are_taken_by_value() -> None:
    assert cr.tensor([cr.tensor(1.0), cr.tensor(2.0)]).tolist() == [1.0, 2.0]


def test_filled_tensors() -> None:
    assert cr.zeros(2, 1).tolist() == [[0.0], [0.0]]
    assert cr.ones((1, 2), dtype=cr.int64).tolist() == [[1, 1]]
    assert cr.full((2,), 7).dtype == cr.int64
    assert cr.full((2,), 0.5).dtype == cr.float32
    assert cr.empty(3).shape == (3,)
    assert cr.eye(2).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert cr.linspace(0, 1, 3).tolist() == [0.0, 0.5, 1.0]


def test_arange_counts_in_the_dtype_of_its_bounds() -> None:
    assert (cr.arange(3).tolist(), cr.arange(3).dtype) == ([0, 1, 2], cr.int64)
    assert (cr.arange(1, 2, 0.5).tolist(), cr.arange(1, 2, 0.5).dtype) == ([1.0, 1.5], cr.float32)


def test_likes_take_shape_and_dtype() -> None:
    x = cr.ones(2, 3, dtype=cr.float64)
    for y in (cr.zeros_like(x), cr.ones_like(x), cr.empty_like(x), cr.full_like(x, 2)):
        assert (y.shape, y.dtype) == ((2, 3), cr.float64)
    assert cr.zeros_like(x, dtype=cr.int64).dtype == cr.int64
