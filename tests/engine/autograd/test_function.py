"""Operations that users define."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.autograd import Function, gradcheck, gradgradcheck
from chainrule.engine.autograd.function import once_differentiable


class Cube(Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * x * x * g


class Exp(Function):
    """Saves its output."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (y,) = ctx.saved_tensors
        return g * y


class SumAndProduct(Function):
    @staticmethod
    def forward(x: Any, y: Any, note: str) -> Any:
        return x + y, note, x * y, (x * 10).long()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, y, _ = inputs
        ctx.save_for_backward(x, y, output[2])

    @staticmethod
    def backward(ctx: Any, g: Any, note: Any, h: Any, _: Any) -> Any:
        x, y, _product = ctx.saved_tensors
        return g + h * y, g + h * x, None


def float64(*values: float) -> cr.Tensor:
    return cr.tensor(values, dtype=cr.float64, requires_grad=True)


@pytest.mark.parametrize("function", [Cube, Exp])
def test_gradients_once_and_twice(function: Any) -> None:
    x = float64(0.5, -1.0)
    y = function.apply(x)
    assert y.grad_fn.name() == f"{function.__name__}Backward"
    assert repr(y).endswith(f"grad_fn=<{function.__name__}Backward>)")
    assert gradcheck(function.apply, (x,))
    assert gradgradcheck(function.apply, (x,))


def test_several_outputs_each_with_a_place_in_the_node() -> None:
    x, y = float64(1.0, 2.0), float64(3.0, 4.0)
    total, note, product, whole = SumAndProduct.apply(x, y, "kept")
    assert note == "kept"
    assert (total.output_nr, product.output_nr) == (0, 2)
    assert total.grad_fn is product.grad_fn
    assert not whole.requires_grad
    (total.sum() + (2 * product).sum()).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [7.0, 9.0]
    assert (total * 1).grad_fn.next_functions[0] == (total.grad_fn, 0)
    assert (product * 1).grad_fn.next_functions[0] == (total.grad_fn, 2)


def test_an_output_nobody_used_has_zeros_or_none_as_its_gradient() -> None:
    seen: list[Any] = []

    class Two(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, materialize: bool) -> Any:
            ctx.set_materialize_grads(materialize)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            seen.append(h)
            return 2 * g, None

    for materialize in (True, False):
        Two.apply(float64(1.0), materialize)[0].sum().backward()
    assert seen[0].tolist() == [0.0]
    assert seen[1] is None


def test_what_is_marked_has_no_gradient_and_what_is_dirty_is_written_to() -> None:
    class Sign(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            sign = x.sign()
            ctx.mark_non_differentiable(sign)
            return x * 2, sign

        @staticmethod
        def backward(ctx: Any, g: Any, _: Any) -> Any:
            return 2 * g

    class Double(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return 2 * g

    y, sign = Sign.apply(float64(-3.0))
    assert (y.requires_grad, sign.requires_grad) == (True, False)
    a = float64(1.0, 2.0, 3.0)
    x = a * 1
    assert Double.apply(x) is x
    Double.apply(x[1:])
    x.sum().backward()
    assert x.tolist() == [2.0, 8.0, 12.0]
    assert a.grad is not None
    assert a.grad.tolist() == [2.0, 4.0, 4.0]
    with pytest.raises(RuntimeError, match="leaf"):
        Double.apply(float64(1.0))


def test_an_input_returned_as_it_is_gets_a_history_of_its_own() -> None:
    class Same(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return -g

    x = float64(1.0)
    y = Same.apply(x)
    assert y is not x
    assert x.is_leaf
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-1.0]


def test_gradients_of_the_wrong_number_or_shape_are_refused_and_broadcast_ones_summed() -> None:
    def returning(gradient: Any) -> Any:
        class Given(Function):
            @staticmethod
            def forward(ctx: Any, x: Any, y: Any) -> Any:
                return x + y

            @staticmethod
            def backward(ctx: Any, g: Any) -> Any:
                return gradient

        x = float64(1.0, 2.0)
        Given.apply(x, x.detach()).sum().backward()
        assert x.grad is not None
        return x.grad.tolist()

    assert returning((cr.ones(3, 2), None)) == [3.0, 3.0]
    with pytest.raises(RuntimeError, match=r"incorrect number of gradients \(expected 2, got 1\)"):
        returning(cr.ones(2))
    with pytest.raises(
        RuntimeError, match=r"invalid gradient at index 0 - got \[3\] but expected shape compatible with"
    ):
        returning((cr.ones(3), None))
    with pytest.raises(RuntimeError, match="expected a Tensor or None"):
        returning((1.0, None))


def test_once_differentiable_can_not_be_differentiated_twice() -> None:
    class Once(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return 2 * g * x

    x, w = float64(3.0), float64(1.0)
    (g,) = cr.autograd.grad(Once.apply(x) * w, x, create_graph=True)
    assert g is not None
    assert g.tolist() == [6.0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


def test_a_second_backward_and_writing_to_what_was_saved_are_errors() -> None:
    x = float64(2.0)
    y = Cube.apply(x)
    y.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()
    a = x * 1
    z = Cube.apply(a)
    a.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_misuse_is_explained() -> None:
    with pytest.raises(RuntimeError, match=r"Call Cube.apply"):
        Cube()
    with pytest.raises(NotImplementedError, match="forward"):
        Function.apply(cr.ones(1))

    class Wrong(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(3)
            return x

    with pytest.raises(RuntimeError, match="can only save variables"):
        Wrong.apply(cr.ones(1))


def test_nothing_is_recorded_where_nothing_is_needed() -> None:
    assert Cube.apply(cr.ones(2)).grad_fn is None
    with cr.no_grad():
        assert Cube.apply(float64(1.0)).grad_fn is None


def test_needs_input_grad_says_for_which_arguments_a_gradient_is_wanted() -> None:
    seen: list[Any] = []

    class Product(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, factor: float, y: Any) -> Any:
            seen.append(ctx.needs_input_grad)
            return x * factor * y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g, None, None

    Product.apply(float64(1.0), 2.0, cr.ones(1)).backward()
    assert seen == [(True, False, False)]


@pytest.mark.torch
def test_values_and_gradients_are_those_of_pytorch(torch: Any) -> None:
    class Theirs(torch.autograd.Function):  # type: ignore[misc]
        forward = Cube.forward
        backward = Cube.backward

    values = np.linspace(-2, 2, 7)
    x, t = cr.Tensor(values.copy(), requires_grad=True), torch.tensor(values, requires_grad=True)
    (Cube.apply(x) * x).sum().backward()
    (Theirs.apply(t) * t).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-14)


class FirstOfTwo(Function):
    @staticmethod
    def forward(ctx: Any, x: cr.Tensor) -> tuple[cr.Tensor, cr.Tensor]:
        return x * 1, x * 2

    @staticmethod
    def backward(ctx: Any, g: cr.Tensor, _: cr.Tensor) -> cr.Tensor:
        return g


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_leaf_has_a_copy_of_the_gradient_that_a_function_of_several_outputs_hands_on(create_graph: bool) -> None:
    x, g = cr.tensor([1.0, 2.0], requires_grad=True), cr.tensor([3.0, 4.0])
    FirstOfTwo.apply(x)[0].backward(g, create_graph=create_graph)
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 4.0]
    assert not np.shares_memory(x.grad.data, g.data)


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_tensor_that_a_function_keeps_and_returns_is_not_added_to(create_graph: bool) -> None:
    kept = cr.ones(2)

    class Constant(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, factor: float) -> Any:
            return x * factor

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return kept, None

    x = cr.zeros(2, requires_grad=True)
    Constant.apply(x, 3.0).sum().backward(create_graph=create_graph)
    Constant.apply(x, 3.0).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0]
    assert kept.tolist() == [1.0, 1.0]


def test_a_function_that_wrote_to_a_view_and_saved_that_can_be_differentiated_twice() -> None:
    class Exp(cr.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            x.exp_()
            ctx.mark_dirty(x)
            ctx.save_for_backward(x)
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (y,) = ctx.saved_tensors
            return g * y

    a = cr.zeros(3, requires_grad=True)
    x = a * 1
    Exp.apply(x[1:])
    (g,) = cr.autograd.grad((x * x).sum(), a, create_graph=True)
    assert g is not None
    g.sum().backward()
    assert a.grad is not None
    assert a.grad.tolist() == [2.0, 4.0, 4.0]
