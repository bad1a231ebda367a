"""Tensors print as PyTorch prints them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr

ARRAYS = [
    np.array([36.0, 81.0]),
    np.array([-12.0, 8.0, 0.5]),
    np.array(2.0),
    np.array([[1.5, -2.25], [1e-3, 7.0]]),
    np.array([1e-8, 1.0]),
    np.array([1e9, 1.0]),
    np.array([0.0, 0.0]),
    np.array([np.nan, 1.0, np.inf, -np.inf]),
    np.array([np.nan, 1.5]),
    np.array([[1, -20], [300, 4]]),
    np.array([True, False]),
    np.array([]),
    np.zeros((0, 3)),
    np.arange(24.0).reshape(2, 3, 4),
    np.arange(60) * 1000,
    np.random.default_rng(0).standard_normal((3, 30)),
    np.arange(2000.0),
    np.random.default_rng(0).standard_normal((50, 40)),
    np.random.default_rng(0).standard_normal((3, 20, 20)),
]


@pytest.mark.torch
@pytest.mark.parametrize("array", ARRAYS, ids=range(len(ARRAYS)))
def test_repr_is_pytorchs(array: np.ndarray[Any, Any], torch: Any) -> None:
    array = array.astype(np.float32) if array.dtype.kind == "f" else array
    assert repr(cr.tensor(array)) == repr(torch.tensor(array))
    if array.dtype.kind == "f":
        ours, theirs = cr.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
        assert repr(ours) == repr(theirs)
        assert repr(ours * 1) == repr(theirs * 1)


def test_history_and_unusual_dtypes_are_shown() -> None:
    x = cr.tensor([1.0, 2.0], requires_grad=True)
    assert repr(x) == "tensor([1., 2.], requires_grad=True)"
    assert repr(x * 2) == "tensor([2., 4.], grad_fn=<MulBackward0>)"
    assert repr(cr.tensor([1, 2], dtype=cr.int32)) == "tensor([1, 2], dtype=int32)"
    assert repr(cr.nn.Parameter(cr.ones(1))) == "Parameter containing:\ntensor([1.], requires_grad=True)"
