"""Small programs that give here what they give in PyTorch, or raise here what they raise there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr

Program = Callable[[Any], Any]
PROGRAMS: list[Program] = []


def program(run: Program) -> Program:
    """Has the tests run this; a program gets the module to run it with."""
    PROGRAMS.append(run)
    return run


def leaf(m: Any, n: int = 4) -> Any:
    return m.tensor([1 + 0.5 * i for i in range(n)], dtype=m.float64, requires_grad=True)


def function(m: Any, forward: Callable[..., Any], backward: Callable[..., Any]) -> Any:
    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    made: Any = type("Made", (m.autograd.Function,), methods)
    return made.apply


def doubled_in_place(ctx: Any, x: Any) -> Any:
    x.mul_(2)
    ctx.mark_dirty(x)
    return x


# ---- Views made where autograd cannot follow ----


@program
def views_made_in_no_grad_are_not_used_after_their_base_was_written_to(m: Any) -> Any:
    x = leaf(m) * 1
    with m.no_grad():
        part = x[:2]
    x.mul_(2)
    return part.requires_grad, part * 2


@program
def views_made_in_no_grad_are_not_used_after_no_grad_wrote_to_their_base(m: Any) -> Any:
    x = leaf(m)
    with m.no_grad():
        part = x[:2]
        x.mul_(2)
    return part * 2, part.is_leaf


@program
def views_made_in_no_grad_of_what_requires_nothing_are_not_written_to_with_what_does(m: Any) -> Any:
    x = m.ones(4, dtype=m.float64)
    with m.no_grad():
        part = x[1:]
    part.mul_(leaf(m, 3))


@program
def views_of_views_made_in_no_grad_are_not_written_to(m: Any) -> Any:
    x = leaf(m) * 1
    with m.no_grad():
        part = x[1:]
    part[1:].mul_(2)


@program
def one_of_many_views_is_not_used_after_the_base_was_written_to(m: Any) -> Any:
    x = leaf(m) * 1
    first, *_ = x.unbind()
    x.mul_(2)
    return first * 2


@program
def views_of_one_of_many_views_are_not_written_to(m: Any) -> Any:
    x = leaf(m) * 1
    x.split(2)[0][1:].mul_(2)


@program
def one_of_many_views_of_what_requires_nothing_is_not_written_to_with_what_does(m: Any) -> Any:
    first, *_ = m.ones(4, dtype=m.float64).unbind()
    first.mul_(leaf(m, 1)[0])


@program
def views_that_are_leaves_are_not_written_to(m: Any) -> Any:
    part = m.ones(3, dtype=m.float64)[:2].requires_grad_()
    part.add_(1)


@program
def views_with_a_history_their_base_forgot_are_not_written_to(m: Any) -> Any:
    x = leaf(m) * 1
    part = x[:2]
    x.detach_()
    part.mul_(2)


@program
def a_tensor_is_written_to_with_itself_through_a_view(m: Any) -> Any:
    x = leaf(m) * 1
    x.mul_(x[:])
    x.sum().backward()


# ---- Gradients that are kept ----


@program
def kept_gradients_are_their_own_memory(m: Any) -> Any:
    a, weight = leaf(m), m.ones(4, dtype=m.float64)
    x = a * 1
    y = x + 0
    x.retain_grad()
    y.retain_grad()
    y.backward(weight)
    y.grad.zero_()
    return x.grad, a.grad, weight


@program
def views_keep_their_gradient_after_their_base_was_written_to(m: Any) -> Any:
    a = leaf(m)
    x = a * 1
    part = x[:2]
    part.retain_grad()
    x.mul_(2)
    (part * 3).sum().backward()
    return part.grad, part.retains_grad, a.grad


@program
def views_keep_their_gradient_after_they_were_written_to(m: Any) -> Any:
    a = leaf(m)
    part = (a * 1)[:2]
    part.retain_grad()
    part.mul_(2)
    (part * 3).sum().backward()
    return part.grad, part.retains_grad, a.grad


@program
def bases_keep_the_gradient_of_what_a_view_wrote_to_them(m: Any) -> Any:
    a = leaf(m)
    x = a * 1
    x.retain_grad()
    x[:2].mul_(2)
    (x * 3).sum().backward()
    return x.grad, x.retains_grad, a.grad


@program
def inputs_of_backward_that_are_no_leaves_keep_their_gradient(m: Any) -> Any:
    a = leaf(m)
    x = a * 2
    (x * x).sum().backward(inputs=[x])
    return a.grad, x.grad, x.retains_grad


@program
def inputs_of_backward_may_be_leaves_and_others(m: Any) -> Any:
    a = leaf(m)
    x = a * 2
    (x * x).sum().backward(inputs=[x, a, a])
    return a.grad, x.grad


@program
def backward_takes_at_least_one_input(m: Any) -> Any:
    leaf(m).sum().backward(inputs=[])


@program
def backward_takes_inputs_that_require_a_gradient(m: Any) -> Any:
    leaf(m).sum().backward(inputs=[m.ones(3)])


@program
def zeros_for_unused_inputs_are_not_refused_and_asked_for_at_once(m: Any) -> Any:
    return m.autograd.grad(leaf(m).sum(), [leaf(m)], materialize_grads=True, allow_unused=False)


@program
def recorded_gradients_are_added_to_where_they_are(m: Any) -> Any:
    a = leaf(m)
    (a * a).sum().backward(create_graph=True)
    kept = a.grad
    (a * 3).sum().backward()
    return a.grad is kept, a.grad, a.grad.requires_grad


@program
def leaves_own_a_recorded_gradient_they_were_handed(m: Any) -> Any:
    a, weight = leaf(m), leaf(m)
    a.backward(weight, create_graph=True)
    return a.grad is weight, a.grad, a.grad.requires_grad


@program
def gradients_have_the_shape_of_their_tensor(m: Any) -> Any:
    leaf(m).grad = m.ones(3, dtype=m.float64)


@program
def gradients_are_tensors(m: Any) -> Any:
    leaf(m).grad = 3.0


@program
def a_tensor_is_not_its_own_gradient(m: Any) -> Any:
    x = leaf(m)
    x.grad = x


# ---- Hooks ----


@program
def hooks_of_nodes_see_none_for_inputs_that_require_nothing(m: Any) -> Any:
    a, seen = leaf(m), []
    y = m.ones(4, dtype=m.float64) * a
    y.grad_fn.register_hook(lambda inputs, outputs: seen.append((inputs, outputs)))
    y.grad_fn.register_hook(lambda inputs, outputs: (None, inputs[1] * 2))
    y.sum().backward()
    return seen, a.grad


@program
def hooks_of_nodes_see_each_output(m: Any) -> Any:
    a, seen = leaf(m), []
    both = function(m, lambda ctx, x, k: (x * 2, x * k), lambda ctx, g, h: (g * 2 + h * 3, None))
    y, z = both(a, 3.0)
    y.grad_fn.register_hook(lambda inputs, outputs: seen.append((inputs, outputs)))
    y.grad_fn.register_prehook(lambda outputs: seen.append(outputs))
    y.grad_fn.register_prehook(lambda outputs: (outputs[0] * 10, outputs[1]))
    y.sum().backward(retain_graph=True)
    (y * z).sum().backward()
    return seen, a.grad


@program
def hooks_of_the_node_of_a_leaf_run(m: Any) -> Any:
    a, seen = leaf(m), []
    y = a * 2
    node = y.grad_fn.next_functions[0][0]
    node.register_prehook(lambda outputs: (outputs[0] * 2,))
    node.register_hook(lambda inputs, outputs: seen.append((inputs, outputs)))
    y.sum().backward()
    return a.grad, seen


@program
def hooks_return_tensors(m: Any) -> Any:
    a = leaf(m)
    a.register_hook(lambda g: 3)
    a.sum().backward()


@program
def hooks_keep_the_dtype(m: Any) -> Any:
    a = leaf(m)
    a.register_hook(lambda g: g.float())
    a.sum().backward()


@program
def hooks_may_remove_themselves_and_others_while_they_run(m: Any) -> Any:
    a, calls = leaf(m), []

    def first(g: Any) -> Any:
        calls.append("first")
        for handle in handles[:2]:
            handle.remove()
        return g * 2

    handles = [a.register_hook(first), a.register_hook(lambda g: calls.append("second"))]
    (a * 2).sum().backward()
    (a * 2).sum().backward()
    return a.grad, calls.count("first")


# ---- Functions ----


@program
def functions_write_to_views(m: Any) -> Any:
    a = leaf(m)
    x = a * 1
    part = x[1:3]
    y = function(m, doubled_in_place, lambda ctx, g: g * 2)(part)
    (x * x).sum().backward()
    return y is part, a.grad, x


@program
def functions_return_what_they_wrote_to(m: Any) -> Any:
    def forward(ctx: Any, x: Any) -> Any:
        ctx.mark_dirty(x)
        return x * 1

    return function(m, forward, lambda ctx, g: g)(leaf(m) * 1)


@program
def functions_that_return_an_input_give_a_view_of_it(m: Any) -> Any:
    a = leaf(m)
    y = function(m, lambda ctx, x: x, lambda ctx, g: g * 3)(a)
    y.sum().backward()
    return y is a, y._is_view(), y.is_leaf, a.grad


@program
def functions_that_return_an_input_leave_that_as_it_is(m: Any) -> Any:
    buffer = m.ones(4, dtype=m.float64)
    y = function(m, lambda ctx, x, w: x, lambda ctx, g: (None, g))(buffer, leaf(m))
    return y is buffer, buffer.requires_grad, y.requires_grad


@program
def functions_that_return_an_input_unrecorded_give_another_tensor(m: Any) -> Any:
    a = leaf(m)
    with m.no_grad():
        y = function(m, lambda ctx, x: x, lambda ctx, g: g * 3)(a)
    return y is a, y.requires_grad


@program
def views_that_functions_return_are_not_written_to(m: Any) -> Any:
    y = function(m, lambda ctx, x: x[:2], lambda ctx, g: m.cat([g, g]))(leaf(m) * 1)
    y.mul_(2)


@program
def inputs_that_functions_return_are_not_written_to(m: Any) -> Any:
    y = function(m, lambda ctx, x: x, lambda ctx, g: g)(leaf(m) * 1)
    y.mul_(2)


@program
def views_that_functions_return_are_not_used_after_the_input_was_written_to(m: Any) -> Any:
    x = leaf(m) * 1
    y = function(m, lambda ctx, x: x[:2], lambda ctx, g: m.cat([g, g]))(x)
    x.mul_(2)
    return y * y


@program
def several_views_that_functions_return_are_not_written_to(m: Any) -> Any:
    y, _ = function(m, lambda ctx, x: (x[:2], x[2:]), lambda ctx, g, h: m.cat([g, h]))(leaf(m) * 1)
    y.mul_(2)


@program
def what_a_function_returns_twice_is_its_last_output(m: Any) -> Any:
    def forward(ctx: Any, x: Any) -> Any:
        y = x * 2
        return y, y

    a = leaf(m)
    y, z = function(m, forward, lambda ctx, g, h: g * 2 + h * 5)(a)
    (y + 3 * z).sum().backward()
    return y is z, a.grad


@program
def an_input_that_a_function_returns_twice_is_two_outputs(m: Any) -> Any:
    a = leaf(m)
    y, z = function(m, lambda ctx, x: (x, x), lambda ctx, g, h: g * 2 + h * 5)(a)
    (y + 3 * z).sum().backward()
    return y is z, a.grad


# ---- The comparison ----


def _plain(value: Any) -> Any:
    """Tensors as their dtype and numbers, so that what the two give can be compared."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "detach"):
        array = value.detach().numpy()
        return str(array.dtype), array.tolist()
    return value


def _outcome(run: Program, m: Any) -> tuple[str, Any]:
    try:
        return "gave", _plain(run(m))
    except Exception as error:  # noqa: BLE001 - which one it is is what is compared
        return "raised", error


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("run", PROGRAMS, ids=lambda run: run.__name__)
def test_programs_give_what_pytorch_gives(run: Program, torch: Any) -> None:
    (ours, value), (theirs, expected) = _outcome(run, cr), _outcome(run, torch)
    assert (ours, str(value) if ours != theirs else "") == (theirs, "")
    if theirs == "raised":
        assert isinstance(value, type(expected))
    else:
        assert value == expected


def test_recorded_gradients_of_leaves_with_one_lock_are_added_up() -> None:
    a = cr.ones(1, requires_grad=True)
    total = 0.0
    for number in range(200):  # of 64 locks, one is soon both the leaf's and the weight's
        weight = cr.Tensor(np.array([number], np.float32), requires_grad=True)
        a.backward(weight, create_graph=True)
        total += number
    assert a.grad is not None
    assert a.grad.item() == total


def test_a_tensor_multiplied_by_itself_in_place_has_the_gradient_of_its_square() -> None:
    a = cr.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x = a * 1
    x.mul_(x)
    x.sum().backward()
    assert a.grad is not None
    assert a.grad.tolist() == [2.0, 4.0, 6.0]
