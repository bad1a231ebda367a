"""How operations are declared, and what they save."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.autograd.graph import OpNode
from chainrule.engine.ops import elementwise
from chainrule.engine.ops.op import op


def node_of(y: cr.Tensor) -> OpNode:
    assert isinstance(y.grad_fn, OpNode)
    return y.grad_fn


def test_arrays_give_arrays() -> None:
    y: Any = elementwise.mul(np.ones(2, np.float32), 3)
    assert isinstance(y, np.ndarray)
    assert y.tolist() == [3, 3]


def test_mul_saves_only_what_the_needed_gradient_uses() -> None:
    a, b = cr.ones(2, requires_grad=True), cr.ones(2)
    assert node_of(a * b).plan.saved_names == ("b",)
    assert node_of(b * a).plan.saved_names == ("a",)
    assert node_of(a * a).plan.saved_names == ("b", "a")


def test_add_saves_nothing() -> None:
    assert node_of(cr.ones(2, requires_grad=True) + 1).saved == ()


def test_exp_saves_its_output_without_keeping_itself_alive() -> None:
    import gc
    import weakref

    gc.disable()
    try:
        y = cr.ones(2, requires_grad=True).exp()
        assert node_of(y).plan.saved_names == ("y",)
        gone = weakref.ref(y)
        del y
        assert gone() is None
    finally:
        gc.enable()


def test_nothing_is_recorded_without_a_tensor_that_requires_a_gradient() -> None:
    assert (cr.ones(2) * cr.ones(2)).grad_fn is None


def test_a_gradient_that_uses_an_unknown_name_is_refused_at_declaration() -> None:
    with pytest.raises(TypeError, match=r"Square: the gradient of x uses \['z'\]"):

        @op("Square", x=lambda g, z: 2 * g * z)
        def square(x: Any) -> Any:
            return x * x


def test_an_attribute_with_a_reserved_name_is_refused_at_declaration() -> None:
    with pytest.raises(TypeError, match="meaning of its own"):

        @op("Odd", x=lambda g: g)
        def odd(x: Any, *, position: int) -> Any:
            return x


def test_a_new_operation_is_differentiable_as_often_as_its_formula() -> None:
    @op("Cube", x=lambda g, x: 3 * g * x * x)
    def cube(x: Any) -> Any:
        return x**3

    x = cr.tensor([2.0], dtype=cr.float64, requires_grad=True)
    assert cr.autograd.gradgradcheck(lambda x: cube(x), x)
    assert repr(cube(x)) == "tensor([8.], dtype=float64, grad_fn=<CubeBackward0>)"


def test_an_operand_that_is_no_number_is_refused() -> None:
    with pytest.raises(cr.DTypeError, match=r"argument 'other' \(position 2\) must be Tensor, not str"):
        cr.add(cr.ones(1), "a")  # type: ignore[arg-type]


# ---- Promotion ----


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (cr.ones(2), cr.ones(2, dtype=cr.int64), "float32"),
        (cr.ones(2), cr.ones(2, dtype=cr.float64), "float64"),
        (cr.ones(2), cr.tensor(1.0, dtype=cr.float64), "float32"),
        (cr.ones(2, dtype=cr.int64), cr.tensor(1.5, dtype=cr.float64), "float64"),
        (cr.ones(2, dtype=cr.int32), cr.ones(2, dtype=cr.int64), "int64"),
        (cr.ones(2, dtype=cr.bool), cr.ones(2, dtype=cr.int32), "int32"),
        (cr.ones(2, dtype=cr.int64), 2.5, "float32"),
        (cr.ones(2, dtype=cr.int32), 2, "int32"),
        (cr.ones(2, dtype=cr.bool), 2, "int64"),
        (cr.ones(2), np.float64(2.5), "float32"),
        (cr.ones(2), np.ones(2), "float64"),
    ],
)
def test_dtypes_promote_by_category(a: cr.Tensor, b: Any, expected: str) -> None:
    assert str((a * b).dtype) == expected
    assert str((b * a).dtype) == expected


def test_true_division_of_integers_is_float32() -> None:
    y = cr.tensor([1, 2]) / cr.tensor([2, 2])
    assert y.dtype == cr.float32
    assert y.tolist() == [0.5, 1.0]


def test_gradients_come_back_in_the_dtype_of_their_input() -> None:
    a = cr.ones(2, requires_grad=True)
    b = cr.ones(2, dtype=cr.float64, requires_grad=True)
    (a * b).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert (a.grad.dtype, b.grad.dtype) == (cr.float32, cr.float64)


def test_float32_stays_float32_through_numbers_and_powers() -> None:
    x = cr.tensor([2.0], requires_grad=True)
    y = (3 * x**2 + 2**x - 1 / x).sum()
    y.backward()
    assert y.dtype == cr.float32
    assert x.grad is not None
    assert x.grad.dtype == cr.float32
