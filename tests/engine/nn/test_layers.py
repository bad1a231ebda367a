"""Layers are PyTorch's: outputs, gradients, names in the state_dict, reprs, and the errors of wrong use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.nn import functional as F

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


@pytest.mark.torch
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_are_pytorchs(reduction: str, torch: Any) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    target = np.array([0, 2, 1, 1])
    close(
        nn.CrossEntropyLoss(reduction=reduction)(cr.tensor(x), cr.tensor(target)),
        torch.nn.CrossEntropyLoss(reduction=reduction)(torch.tensor(x), torch.tensor(target)),
    )
    close(
        nn.MSELoss(reduction=reduction)(cr.tensor(x), cr.tensor(x[::-1].copy())),
        torch.nn.MSELoss(reduction=reduction)(torch.tensor(x), torch.tensor(x[::-1].copy())),
    )


def test_mse_loss_broadcasts_and_promotes() -> None:
    y = F.mse_loss(cr.ones(2, 3), cr.zeros(3, dtype=cr.float64))
    assert (y.item(), y.dtype) == (1.0, cr.float64)


def test_a_single_example_has_a_loss() -> None:
    x = cr.tensor([0.0, 0.0])
    assert F.cross_entropy(x, cr.tensor(1)).item() == pytest.approx(np.log(2))


# ---- Wrong use ----


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Linear(3, 2)(cr.ones(4, 5)), cr.ShapeError, "last dimension of the input has to be 3"),
        (lambda: nn.Linear(3, 2)(cr.ones(4, 3).double()), cr.DTypeError, "input is float64 and weight float32"),
        (lambda: nn.Conv2d(3, 2, 3)(cr.ones(1, 4, 5, 5)), cr.ShapeError, "to have 3 channels, but got 4"),
        (lambda: nn.Conv2d(3, 2, 3)(cr.ones(1, 3, 2, 5)), cr.ShapeError, "can't be greater than actual"),
        (lambda: nn.Conv2d(3, 2, 3)(cr.ones(3)), cr.ShapeError, r"Expected 3D \(unbatched\) or 4D"),
        (lambda: nn.Conv2d(3, 2, 3, groups=2), cr.ConfigError, "must be divisible"),
        (lambda: nn.Conv2d(3, 2, 3, stride=2, padding="same"), cr.ConfigError, "strided convolutions"),
        (lambda: nn.MaxPool2d(2, padding=2)(cr.ones(1, 1, 4, 4)), cr.ConfigError, "at most half"),
        (lambda: nn.BatchNorm2d(3)(cr.ones(2, 3)), cr.ShapeError, "expected 4D input"),
        (lambda: nn.BatchNorm2d(3)(cr.ones(2, 4, 2, 2)), cr.ShapeError, "was given 4 channels"),
        (lambda: nn.BatchNorm2d(3)(cr.ones(1, 3, 1, 1)), cr.ShapeError, "more than 1 value per channel"),
        (lambda: nn.BatchNorm2d(0), cr.ConfigError, "at least 1"),
        (lambda: F.cross_entropy(cr.ones(2, 3), cr.tensor([0, 3])), cr.TargetError, "Target 3 is out of bounds: ex"),
        (lambda: F.cross_entropy(cr.ones(2, 3), cr.tensor([-1, 0])), IndexError, "Target -1 is out of bounds"),
        (lambda: F.cross_entropy(cr.ones(2, 3), cr.tensor([0])), cr.ShapeError, "to match target batch_size"),
        (lambda: F.cross_entropy(cr.ones(2, 3), cr.ones(2)), cr.DTypeError, "class indices"),
        (lambda: F.cross_entropy(cr.ones(2, 3), cr.tensor([0, 1]), reduction="max"), cr.ConfigError, "mean or sum"),
        (
            lambda: F.cross_entropy(cr.ones(2, 3), cr.tensor([0, 1]), label_smoothing=0.1),
            cr.UnsupportedError,
            "label_smoothing",
        ),
        (lambda: F.mse_loss(cr.ones(2), cr.ones(3)), cr.ShapeError, "do not broadcast"),
    ],
)
def test_wrong_use_is_explained(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
