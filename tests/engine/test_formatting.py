"""Tensors print as PyTorch prints them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.formatting import get_printoptions, printoptions

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


MAGNITUDES: dict[str, Any] = {
    "normal": lambda x, draws: x,
    "mixed": lambda x, draws: x * 10.0 ** draws.integers(-12, 12, x.shape),
    "integral": lambda x, draws: np.round(x * 100),
    "large-integral": lambda x, draws: np.round(x * 1e9),
    "small": lambda x, draws: x * 1e-5,
    "large": lambda x, draws: x * 1e7,
    "special": lambda x, draws: np.where(
        draws.random(x.shape) < 0.3, draws.choice([np.nan, np.inf, -np.inf, 0.0, -0.0]), x
    ),
}
SHAPES = [
    (),
    (0,),
    (1,),
    (7,),
    (30,),
    (2, 0, 3),
    (3, 5),
    (1, 1, 4),
    (2, 3, 2, 3),
    (1001,),
    (40, 40),
    (2, 600),
    (7,) * 4,
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"precision": 2, "sci_mode": True},
    {"precision": 6, "linewidth": 40},
    {"threshold": 10, "edgeitems": 1},
    {"profile": "short", "sci_mode": False},
    {"profile": "full", "linewidth": 120},
]


@pytest.fixture
def both_options(torch: Any) -> Any:
    """Sets the options of both, and sets them back."""

    def choose(**options: Any) -> None:
        torch.set_printoptions(**options)
        cr.set_printoptions(**options)

    yield choose
    choose(profile="default")


@pytest.mark.torch
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int8", "uint8", "int64", "bool"])
def test_tensors_of_any_shape_dtype_and_magnitude_print_as_in_pytorch(
    dtype: str, options: dict[str, Any], torch: Any, both_options: Any
) -> None:
    draws = np.random.default_rng(0)
    both_options(**options)
    for shape in SHAPES:
        for change in MAGNITUDES.values():
            array = np.asarray(change(draws.standard_normal(shape), draws))
            if "float" not in dtype:
                array = np.abs(np.nan_to_num(array)).clip(0, 100).round()
            with np.errstate(over="ignore"):
                ours = cr.tensor(array.astype(np.float32) if dtype != "float64" else array).to(getattr(cr, dtype))
            theirs = torch.tensor(ours.double().numpy()).to(getattr(torch, dtype))
            if ours.is_floating_point() and len(shape) % 2:
                ours.requires_grad_(), theirs.requires_grad_()
            assert repr(ours) == repr(theirs).replace("dtype=torch.", "dtype=")


def test_options_hold_for_a_while() -> None:
    with printoptions(precision=2):
        assert repr(cr.tensor([1.2345])) == "tensor([1.23])"
        assert get_printoptions()["precision"] == 2
    assert repr(cr.tensor([1.2345])) == "tensor([1.2345])"
