"""The backward pass: what accumulates where, what is freed, what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.autograd import backward, grad
from chainrule.engine.nn import functional as F
from chainrule.engine.nn.utils import clip_grad_norm_


def leaf(*values: float) -> cr.Tensor:
    return cr.tensor(list(values), requires_grad=True)


def values(x: cr.Tensor | None) -> list[float]:
    assert x is not None
    result: list[float] = x.tolist()
    return result


def test_the_tutorial_example() -> None:
    a, b = leaf(2.0, 3.0), leaf(6.0, 4.0)
    q = 3 * a**3 - b**2
    q.backward(gradient=cr.tensor([1.0, 1.0]))
    assert values(a.grad) == [36.0, 81.0]
    assert values(b.grad) == [-12.0, -8.0]


def test_gradients_add_up_over_uses_and_over_passes() -> None:
    x = leaf(3.0)
    (x * x + x).backward()
    assert values(x.grad) == [7.0]
    (2 * x).backward()
    assert values(x.grad) == [9.0]


def test_a_gradient_of_another_dtype_is_converted() -> None:
    x = leaf(1.0, 2.0)
    (x * x).backward(cr.tensor([1, 1]))
    assert values(x.grad) == [2.0, 4.0]


def test_leaves_do_not_share_the_memory_of_their_gradients() -> None:
    x, y, weight = leaf(1.0, 2.0), leaf(3.0, 4.0), cr.ones(2)
    (x + y).backward(weight)
    assert x.grad is not None
    x.grad.zero_()
    assert values(y.grad) == [1.0, 1.0]
    assert weight.tolist() == [1.0, 1.0]


def test_leaves_do_not_share_the_memory_of_recorded_gradients() -> None:
    x, y = leaf(1.0), leaf(3.0)
    (x + y).backward(create_graph=True)
    assert x.grad is not None
    assert y.grad is not None
    assert not np.shares_memory(x.grad.data, y.grad.data)


def test_a_leaf_can_be_the_root() -> None:
    x = leaf(2.0)
    x.backward()
    assert values(x.grad) == [1.0]


def test_a_second_pass_through_a_freed_graph_is_refused() -> None:
    x = leaf(2.0)
    y = x * x
    y.backward()
    with pytest.raises(cr.AutogradError, match="Trying to backward through the graph a second time"):
        y.backward()


def test_a_second_pass_is_possible_where_nothing_was_saved() -> None:
    x = leaf(2.0)
    y = x + 1
    y.backward()
    y.backward()
    assert values(x.grad) == [2.0]


def test_retain_graph_allows_a_second_pass() -> None:
    x = leaf(2.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert values(x.grad) == [8.0]


def test_several_elements_need_a_gradient() -> None:
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        (2 * leaf(1.0, 2.0)).backward()


def test_a_gradient_of_another_shape_is_refused() -> None:
    with pytest.raises(
        cr.ShapeError, match=r"grad_output\[0\] has a shape of \[3\] and output\[0\] has a shape of \[2\]"
    ):
        (2 * leaf(1.0, 2.0)).backward(cr.ones(3))


def test_a_tensor_without_history_is_refused() -> None:
    with pytest.raises(RuntimeError, match="does not require grad and does not have a grad_fn"):
        cr.ones(1).backward()


def test_a_graph_100000_deep_works() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y * 1.0
    y.backward()
    assert values(x.grad) == [1.0]


def test_each_node_is_visited_once() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(60):  # 2⁶⁰ paths
        y = y + y
    y.backward()
    assert values(x.grad) == [2.0**60]


# ---- Saved tensors and in-place operations ----


def test_overwriting_a_saved_input_is_noticed() -> None:
    x, w = leaf(2.0), cr.tensor([3.0])
    y = x * w
    w.zero_()
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation.*version 1; expected version 0"):
        y.backward()


def test_overwriting_through_a_view_is_noticed() -> None:
    x, w = leaf(2.0, 2.0), cr.tensor([[3.0], [4.0]])
    y = (x * w.reshape(2)).sum()
    w[0] = 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_overwriting_a_saved_output_is_noticed() -> None:
    x = leaf(2.0)
    y = x.exp()
    with cr.no_grad():
        y.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_overwriting_what_is_not_used_does_not_matter() -> None:
    x, w = leaf(2.0), cr.tensor([3.0])
    y = x + w
    w.zero_()
    y.backward()
    assert values(x.grad) == [1.0]


def test_writing_to_a_copy_does_not_matter() -> None:
    x, w = leaf(2.0, 3.0), cr.tensor([[1.0, 2.0]])
    y = (x * w).sum()
    w.clone().zero_()
    y.backward()
    assert values(x.grad) == [1.0, 2.0]


# ---- grad ----


def test_grad_returns_and_does_not_accumulate() -> None:
    x, w = leaf(3.0), leaf(2.0)
    (dx,) = grad(w * x * x, x)
    assert values(dx) == [12.0]
    assert x.grad is None
    assert w.grad is None


def test_grad_of_an_intermediate_result() -> None:
    x = leaf(3.0)
    h = x * x
    dh, dx = grad((h * h).sum(), [h, x])
    assert values(dh) == [18.0]
    assert values(dx) == [108.0]


def test_grad_gives_the_gradient_of_its_own_output() -> None:
    y = 2 * leaf(1.0)
    (dy,) = grad(y, y)
    assert values(dy) == [1.0]


def test_grad_of_an_unused_input_needs_consent() -> None:
    x, other = leaf(1.0), leaf(1.0)
    with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
        grad(2 * x, other)
    assert grad(2 * x, [other], allow_unused=True) == (None,)
    assert values(grad(2 * x, [other], materialize_grads=True)[0]) == [0.0]


def test_grad_by_a_tensor_that_needs_none_is_refused() -> None:
    with pytest.raises(RuntimeError, match="does not require grad"):
        grad(leaf(1.0) * 2, cr.ones(1))


def test_second_and_third_derivatives() -> None:
    x = cr.tensor(2.0, dtype=cr.float64, requires_grad=True)
    (d1,) = grad(x**4, x, create_graph=True)
    assert d1 is not None
    (d2,) = grad(d1, x, create_graph=True)
    assert d2 is not None
    (d3,) = grad(d2, x)
    assert d3 is not None
    assert (d1.item(), d2.item(), d3.item()) == (32.0, 48.0, 48.0)


def test_a_gradient_penalty_reaches_the_weights() -> None:
    w, x = leaf(3.0), leaf(2.0)
    (dx,) = grad((w * x**2).sum(), x, create_graph=True)
    assert dx is not None
    (dx**2).sum().backward()  # (2·w·x)² by w is 8·w·x²
    assert values(w.grad) == [96.0]


def test_create_graph_works_inside_no_grad() -> None:
    x = leaf(2.0)
    y = x * x * x
    with cr.no_grad():
        (d1,) = grad(y, x, create_graph=True)
    assert d1 is not None
    assert d1.requires_grad


def test_backward_of_several_tensors() -> None:
    x = leaf(1.0, 2.0)
    backward([x.sum(), x * x], [None, cr.ones(2)])
    assert values(x.grad) == [3.0, 5.0]


def test_backward_into_chosen_leaves_only() -> None:
    x, w = leaf(3.0), leaf(2.0)
    (x * w).backward(inputs=x)
    assert values(x.grad) == [2.0]
    assert w.grad is None


def test_backward_from_several_threads_adds_up_exactly() -> None:
    weight = cr.zeros(64, 64, dtype=cr.float64, requires_grad=True)
    scale = cr.ones(1, dtype=cr.float64, requires_grad=True)
    passes, workers = 200, 8
    start = threading.Barrier(workers)

    def work(number: int) -> None:
        start.wait(timeout=60)
        for step in range(passes):
            ((weight * (number + 1)).sum() + scale * step).backward()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    assert weight.grad is not None
    assert scale.grad is not None
    assert (weight.grad.numpy() == passes * sum(range(1, workers + 1))).all()
    assert scale.grad.item() == workers * sum(range(passes))


def test_threads_share_a_graph() -> None:
    x = cr.ones(1000, dtype=cr.float64, requires_grad=True)
    y = (x * x * 3).sum()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: y.backward(retain_graph=True), range(200)))
    assert x.grad is not None
    assert (x.grad.numpy() == 200 * 6).all()


def test_a_deep_graph_of_writes_and_of_nodes_with_several_outputs_works() -> None:
    class Both(cr.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 1, x * 2

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            return g

    x = cr.ones(1, requires_grad=True)
    y = x * 1
    for _ in range(10_000):
        y.add_(1)
        y, _ = Both.apply(y)
    y.backward()
    assert x.grad is not None
    assert x.grad.item() == 1.0


def test_the_gradient_of_a_sum_can_be_written_to() -> None:
    w = cr.ones(3, requires_grad=True)
    (w.sum() * 2).backward()
    assert w.grad is not None
    assert w.grad.mul_(2).tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("pool", "n"),
    [
        (lambda x: x.mean(), 24),
        (lambda x: x.mean((0, 2)).sum(), 8),
        (lambda x: F.adaptive_avg_pool2d(x, 1).sum(), 12),
    ],
)
def test_the_gradient_of_a_mean_can_be_written_to(pool: Callable[[cr.Tensor], cr.Tensor], n: int) -> None:
    x = cr.ones(2, 3, 4, requires_grad=True)
    pool(x).backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.mul_(2).numpy(), np.full((2, 3, 4), 2 / n), rtol=1e-6)
    clip_grad_norm_(x, 1e-3)
    np.testing.assert_allclose(np.linalg.norm(x.grad.numpy()), 1e-3, rtol=1e-2)


def test_a_conversion_can_be_gone_through_again() -> None:
    x = cr.ones(2, requires_grad=True)
    y = x.to(cr.bfloat16)
    y.sum().backward()
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2, 2]
