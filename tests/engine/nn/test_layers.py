"""Layers are PyTorch's: outputs, gradients, names in the state_dict, reprs, and the errors of wrong use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.autograd import gradcheck, gradgradcheck
from chainrule.engine.nn import functional as F
from tests.engine.nn.compared import draws, layouts, same
from tests.engine.nn.twins import same_error

Make = Callable[[Any], Any]

LAYERS: list[tuple[Make, tuple[int, ...]]] = [
    (lambda m: m.Linear(4, 3), (5, 4)),
    (lambda m: m.Linear(4, 3, bias=False), (2, 5, 4)),
    (lambda m: m.Conv2d(3, 4, 3), (2, 3, 6, 5)),
    (lambda m: m.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2), (2, 4, 7, 6)),
    (lambda m: m.Conv2d(3, 2, 3, padding="same", bias=False), (2, 3, 5, 5)),
    (lambda m: m.Conv2d(3, 2, 2, padding="valid"), (3, 5, 5)),
    (lambda m: m.BatchNorm2d(3), (4, 3, 2, 5)),
    (lambda m: m.BatchNorm2d(3, eps=1e-3, momentum=None, affine=False), (4, 3, 2, 5)),
    (lambda m: m.BatchNorm2d(3, bias=False), (4, 3, 2, 5)),
    (lambda m: m.BatchNorm2d(3, track_running_stats=False), (4, 3, 2, 5)),
    (lambda m: m.ReLU(), (3, 4)),
    (lambda m: m.ReLU(inplace=True), (3, 4)),
    (lambda m: m.Tanh(), (3, 4)),
    (lambda m: m.Sigmoid(), (3, 4)),
    (lambda m: m.MaxPool2d(2), (2, 3, 5, 6)),
    (lambda m: m.MaxPool2d(3, stride=2, padding=1), (2, 3, 6, 6)),
    (lambda m: m.MaxPool2d((2, 3), dilation=2), (3, 7, 7)),
    (lambda m: m.AvgPool2d(2), (2, 3, 5, 6)),
    (lambda m: m.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), (2, 3, 6, 6)),
    (lambda m: m.Flatten(), (2, 3, 4)),
    (lambda m: m.Flatten(0, 1), (2, 3, 4)),
    (lambda m: m.Unflatten(1, (2, -1)), (3, 6)),
    (lambda m: m.Unflatten(-1, [3, 2]), (3, 6)),
    (lambda m: m.Identity(), (2, 3)),
    (lambda m: m.Sequential(m.Linear(4, 3), m.ReLU(), m.Linear(3, 2)), (5, 4)),
    (lambda m: m.Sequential(m.Sequential(m.Conv2d(1, 2, 3), m.BatchNorm2d(2)), m.Flatten()), (3, 1, 5, 5)),
]


def loaded(make: Make, torch: Any) -> tuple[Any, Any]:
    """A layer of ours with the weights of PyTorch's."""
    torch.manual_seed(0)
    ours, theirs = make(nn), make(torch.nn)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return ours, theirs


def close(x: Any, expected: Any) -> None:
    np.testing.assert_allclose(x.detach().numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5, strict=True)


@pytest.mark.torch
@pytest.mark.parametrize(("make", "shape"), LAYERS, ids=lambda value: repr(value(nn)) if callable(value) else "")
def test_layer_is_pytorchs(make: Make, shape: tuple[int, ...], torch: Any) -> None:
    ours, theirs = loaded(make, torch)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for training in (True, True, False):
        ours.train(training)
        theirs.train(training)
        x, t = cr.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
        y, expected = ours(x * 1), theirs(t * 1)  # a leaf may not be overwritten, which inplace=True does
        close(y, expected)
        weight = np.random.default_rng(1).standard_normal(tuple(expected.shape)).astype(np.float32)
        (y * cr.tensor(weight)).sum().backward()
        (expected * torch.tensor(weight)).sum().backward()
        close(x.grad, t.grad)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            close(p.grad, q.grad)
        for name, buffer in theirs.state_dict().items():
            close(ours.state_dict()[name], buffer)


# ---- Products ----


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 3, 4), (0, 4), (2, 0, 4)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_linear_takes_any_leading_dimensions(shape: tuple[int, ...], bias: bool, dtype: str, torch: Any) -> None:
    x, w, b = draws(shape, (3, 4), (3,), dtype=dtype)
    for array in layouts(x).values():
        same(torch, lambda m, *xs: m.nn.functional.linear(*xs), [array, w, *[b][:bias]], node=False)
        same(torch, lambda m, x, w: m.nn.functional.linear(x, w[0]), [array, w], node=False)


@pytest.mark.torch
def test_linear_of_no_features_gives_the_bias(torch: Any) -> None:
    same(torch, lambda m, *xs: m.nn.functional.linear(*xs), draws((2, 0), (3, 0), (3,)), node=False)


@pytest.mark.torch
@pytest.mark.parametrize("leading", [(), (5,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_bilinear_is_pytorchs(leading: tuple[int, ...], bias: bool, torch: Any) -> None:
    arrays = draws((*leading, 4), (*leading, 2), (3, 4, 2), (3,), dtype="float64")[: 3 + bias]
    same(torch, lambda m, *xs: m.nn.functional.bilinear(*xs), arrays, node=False)
    if leading != (0,):
        xs = [cr.tensor(x, requires_grad=True) for x in arrays]
        assert gradcheck(F.bilinear, xs)
        assert gradgradcheck(F.bilinear, xs)


@pytest.mark.torch
def test_the_bilinear_layer_is_pytorchs(torch: Any) -> None:
    for settings in ((4, 2, 3), (4, 2, 3, False)):
        ours, theirs = loaded(lambda m: m.Bilinear(*settings), torch)  # noqa: B023 - called at once
        assert repr(ours) == repr(theirs)
        x1, x2 = draws((5, 4), (5, 2))
        close(ours(cr.tensor(x1), cr.tensor(x2)), theirs(torch.tensor(x1), torch.tensor(x2)))
    bound = 1 / np.sqrt(4)
    weight = nn.Bilinear(4, 50, 50).weight.detach().numpy()
    assert bound * 0.99 < np.abs(weight).max() <= bound


# ---- Wrong use ----


@pytest.mark.torch
@pytest.mark.parametrize(
    "scenario",
    [
        lambda m: m.nn.functional.linear(m.ones(()), m.ones(3, 4)),
        lambda m: m.nn.functional.bilinear(m.ones(2, 4), m.ones(2, 3), m.ones(5, 4, 2)),
        lambda m: m.nn.functional.bilinear(m.ones(2, 4), m.ones(3, 3), m.ones(5, 4, 3)),
        lambda m: m.nn.functional.bilinear(m.ones(2, 4), m.ones(3), m.ones(5, 4, 3)),
        lambda m: m.nn.Bilinear(0, 2, 3),
        lambda m: m.nn.Unflatten(1, (2, 2))(m.ones(3, 5)),
        lambda m: m.nn.Unflatten(1, (2, -1))(m.ones(3, 5)),
        lambda m: m.nn.Unflatten(1, 3),
        lambda m: m.nn.Unflatten(1, (2, 2.0)),
    ],
)
def test_wrong_use_is_refused_as_by_pytorch(scenario: Callable[[Any], Any], torch: Any) -> None:
    same_error(torch, scenario)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Linear(3, 2)(cr.ones(4, 5)), cr.ShapeError, r"cannot be multiplied \(4x5 and 3x2\): the last dim"),
        (lambda: nn.Linear(3, 2)(cr.ones(5)), cr.ShapeError, r"cannot be multiplied \(1x5 and 3x2\)"),
        (lambda: nn.Linear(3, 2)(cr.ones(4, 3).double()), cr.DTypeError, "float64"),
        (lambda: F.linear(cr.ones(4, 3), cr.ones(2, 3), cr.ones(3)), cr.ShapeError, "must match the existing size"),
        (lambda: nn.Linear(3, 2, device="cuda"), cr.UnsupportedError, "computes on the CPU"),
    ],
)
def test_wrong_use_is_explained(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
