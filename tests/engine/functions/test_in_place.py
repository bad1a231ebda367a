"""What is written in place is seen by all that share its memory, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.dtypes import Array
from chainrule.engine.nn import functional as F
from chainrule.engine.tensor import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu_": lambda y: y.relu_(),
    "relu, inplace": lambda y: F.relu(y, inplace=True),
    "ReLU": nn.ReLU(inplace=True),
    "leaky_relu": lambda y: F.leaky_relu(y, 0.0, inplace=True),
    "hardtanh": lambda y: F.hardtanh(y, 0.0, 1e9, inplace=True),
}
by_activation = pytest.mark.parametrize("activate", ACTIVATIONS.values(), ids=list(ACTIVATIONS))


def convolved(*, requires_grad: bool = True) -> tuple[Tensor, Tensor]:
    """An image, and a fresh convolution of it, of which a part is below 0."""
    generator = cr.Generator(0)
    x = cr.randn(2, 3, 6, 6, generator=generator).requires_grad_(requires_grad)
    y = F.conv2d(x, cr.randn(4, 3, 3, 3, generator=generator), padding=1)
    return x, y


def values(y: Tensor) -> Array:
    return y.detach().numpy().copy()


@by_activation
def test_the_result_is_the_tensor_itself(activate: Callable[[Tensor], Tensor]) -> None:
    _, y = convolved()
    before, version = values(y), y._version
    assert activate(y) is y
    assert y._version == version + 1
    np.testing.assert_array_equal(values(y), np.maximum(before, 0))
    assert y.grad_fn is not None


@by_activation
@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_view_sees_what_is_written(activate: Callable[[Tensor], Tensor], requires_grad: bool) -> None:
    _, y = convolved(requires_grad=requires_grad)
    flat, part, turned = y.permute(0, 2, 3, 1).reshape(-1), y[:, 1:3], y.transpose(0, 3)
    shares = np.shares_memory(flat.detach().numpy(), y.detach().numpy())
    expected = np.maximum(values(y), 0)
    activate(y)
    np.testing.assert_array_equal(values(y), expected)
    np.testing.assert_array_equal(values(part), expected[:, 1:3])
    np.testing.assert_array_equal(values(turned), expected.transpose(3, 1, 2, 0))
    if shares:
        np.testing.assert_array_equal(values(flat), expected.transpose(0, 2, 3, 1).ravel())


@by_activation
def test_a_view_that_outlives_other_names_sees_it_too(activate: Callable[[Tensor], Tensor]) -> None:
    y = cr.randn(50) * 1
    whole = y.view(-1)
    activate(y)
    assert whole.min().item() == 0
    y = cr.randn(5, 10) * 1
    row = y[2]
    activate(y)
    np.testing.assert_array_equal(values(row), values(y)[2])
    assert row.min().item() == 0


@by_activation
def test_writing_to_a_view_writes_to_its_base(activate: Callable[[Tensor], Tensor]) -> None:
    _, y = convolved(requires_grad=False)
    expected = values(y)
    expected[:, 1] = np.maximum(expected[:, 1], 0)
    activate(y[:, 1])
    np.testing.assert_array_equal(values(y), expected)


@by_activation
def test_a_detached_tensor_sees_what_is_written(activate: Callable[[Tensor], Tensor]) -> None:
    _, y = convolved()
    detached = y.detach()
    activate(y)
    np.testing.assert_array_equal(values(detached), values(y))
    assert detached.min().item() == 0


@by_activation
def test_an_array_sees_what_is_written(activate: Callable[[Tensor], Tensor]) -> None:
    _, y = convolved()
    array = y.detach().numpy()
    part = y.detach().numpy()[0, 1]
    activate(y)
    assert array.min() == part.min() == 0
    np.testing.assert_array_equal(array, values(y))


@by_activation
def test_an_array_the_tensor_was_made_of_sees_what_is_written(activate: Callable[[Tensor], Tensor]) -> None:
    array = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    expected = np.maximum(array, 0)
    activate(cr.from_numpy(array))
    np.testing.assert_array_equal(array, expected)
    parts = np.random.default_rng(0).standard_normal((4, 10)).astype(np.float32)
    y = cr.from_numpy(parts[:, ::2])
    activate(y)
    assert parts[:, ::2].min() == 0
    assert parts[:, 1::2].min() < 0


def test_other_protocols_see_what_is_written() -> None:
    y = cr.randn(40) * 1
    exchanged = np.from_dlpack(y.numpy())
    F.relu(y, inplace=True)
    assert exchanged.min() == 0
    y = cr.randn(40) * 1
    exchanged = np.frombuffer(y.numpy().data, np.float32)
    F.relu(y, inplace=True)
    assert exchanged.min() == 0


@by_activation
def test_a_parameter_keeps_its_memory(activate: Callable[[Tensor], Tensor]) -> None:
    layer = nn.Linear(5, 4)
    array = layer.weight.detach().numpy()
    with cr.no_grad():
        activate(layer.weight)
    assert array.min() == 0
    np.testing.assert_array_equal(array, layer.weight.detach().numpy())


def test_a_result_written_into_a_view_of_what_is_gone_leaves_the_rest() -> None:
    whole = cr.arange(-6.0, 6.0)
    part = whole[2:8]
    array = whole.numpy()
    del whole
    F.relu(part, inplace=True)
    assert array.tolist() == [-6, -5, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5]


# ---- What was saved for the backward pass ----


@by_activation
def test_the_gradient_is_that_of_an_activation_out_of_place(activate: Callable[[Tensor], Tensor]) -> None:
    gradients = []
    for function in (activate, F.relu):
        x, y = convolved()
        z = function(y)
        (z * z).sum().backward()
        assert x.grad is not None
        gradients.append(x.grad.numpy())
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-6, atol=1e-6)


@by_activation
def test_who_saved_the_old_value_refuses_the_new_one(activate: Callable[[Tensor], Tensor]) -> None:
    _, y = convolved()
    square = (y * y).sum()
    activate(y)
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation: .* is at version 1; expected version 0"):
        square.backward()


@by_activation
def test_who_saved_its_own_result_refuses_another(activate: Callable[[Tensor], Tensor]) -> None:
    x = cr.randn(20, requires_grad=True)
    y = x.tanh()
    activate(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@by_activation
def test_who_saved_the_old_value_of_a_view_refuses_too(activate: Callable[[Tensor], Tensor]) -> None:
    _, y = convolved()
    part = y[:, 1]
    square = (part * part).sum()
    activate(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        square.backward()


@by_activation
def test_who_saved_nothing_of_it_does_not_mind(activate: Callable[[Tensor], Tensor]) -> None:
    x = cr.randn(20, requires_grad=True)
    y = x + 1
    total = (y * 2).sum()
    activate(y)
    total.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0] * 20


@by_activation
def test_a_copy_saved_by_the_caller_keeps_its_numbers(activate: Callable[[Tensor], Tensor]) -> None:
    _, y = convolved()
    copy, before = y.clone(), values(y)
    square = (copy * copy).sum()
    activate(y)
    np.testing.assert_array_equal(values(copy), before)
    square.backward()


def test_a_chain_of_writes_has_the_gradient_of_the_functions() -> None:
    x = cr.randn(3, 4, requires_grad=True)
    same = x.detach().clone().requires_grad_()
    y = x * 2
    y.mul_(3).add_(1)
    F.hardtanh(y, -1.0, 4.0, inplace=True)
    F.relu(y, inplace=True)
    y.sum().backward()
    F.relu(F.hardtanh(same * 2 * 3 + 1, -1.0, 4.0)).sum().backward()
    assert x.grad is not None
    assert same.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), same.grad.numpy(), rtol=1e-6)


def test_a_leaf_that_requires_a_gradient_is_not_written_to() -> None:
    x = cr.randn(5, requires_grad=True)
    before = values(x)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        F.relu(x, inplace=True)
    np.testing.assert_array_equal(values(x), before)


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "view": lambda y: y.view(-1),
    "detach": lambda y: y.detach(),
    "numpy": lambda y: y.detach().numpy(),
    "slice": lambda y: y[1:, ::2],
    "nothing": lambda _: np.zeros(1),
}


@pytest.mark.torch
@pytest.mark.parametrize("hold", HOLDERS.values(), ids=list(HOLDERS))
def test_what_is_seen_is_what_pytorch_shows(hold: Callable[[Any], Any], torch: Any) -> None:
    results = []
    for m in (cr, torch):
        x = m.arange(-6.0, 6.0).reshape(3, 4).requires_grad_()
        y = x * 2
        held = hold(y)
        y.relu_()
        y.sum().backward()
        shown = held if isinstance(held, np.ndarray) else held.detach().numpy()
        results.append([shown.tolist(), y.tolist(), x.grad.tolist()])
    assert results[0] == results[1]
