"""The checker of gradients finds gradients that are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.autograd import GradcheckError, gradcheck, gradgradcheck
from chainrule.engine.ops.op import op


@op("WrongSquare", x=lambda g, x: 3 * g * x)
def wrong_square(x: Any) -> Any:
    return x * x


@op("SquareOnce", x=lambda g, x: g * 2 * (x.detach() if isinstance(x, cr.Tensor) else x))
def square_once(x: Any) -> Any:
    return x * x


@pytest.fixture
def x() -> cr.Tensor:
    return cr.tensor([1.0, 2.0], dtype=cr.float64, requires_grad=True)


def test_a_wrong_gradient_is_found(x: cr.Tensor) -> None:
    with pytest.raises(GradcheckError, match="Jacobian mismatch for output 0 with respect to input 0"):
        gradcheck(wrong_square, x)
    assert not gradcheck(wrong_square, x, raise_exception=False)


def test_a_wrong_second_derivative_is_found(x: cr.Tensor) -> None:
    assert gradcheck(square_once, x)
    assert not gradgradcheck(square_once, x, raise_exception=False)


def test_several_outputs_are_checked(x: cr.Tensor) -> None:
    assert gradcheck(lambda x: (x * 2, x.exp()), x)
    assert not gradcheck(lambda x: (x * 2, wrong_square(x)), x, raise_exception=False)


def test_nothing_to_check_is_refused() -> None:
    with pytest.raises(cr.AutogradError, match="an input and an output that require gradients"):
        gradcheck(lambda x: x * 2, cr.ones(1))


def test_a_backward_that_leaves_out_the_gradient_it_is_given_is_found_out() -> None:
    class Constant(cr.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 0 + 2

    x = cr.Tensor(np.array([1.0]), requires_grad=True)
    with pytest.raises(cr.autograd.GradcheckError, match="backward not multiplied by grad_output"):
        cr.autograd.gradcheck(Constant.apply, (x,))
    assert not cr.autograd.gradcheck(Constant.apply, (x,), raise_exception=False)
