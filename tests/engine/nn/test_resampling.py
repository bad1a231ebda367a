"""Resampling is PyTorch's, as a function and as a layer."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.dtypes import Array
from chainrule.engine.nn import functional as F
from tests.engine.nn.twins import same_error


def agree(torch: Any, call: Callable[..., Any], x: Array) -> None:
    """Checks that `call(m, tensor)` and its gradient are those of PyTorch."""
    ours, theirs = cr.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, expected = call(cr, ours), call(torch, theirs)
    tolerance = 1e-5 if x.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(
        y.detach().numpy(), expected.detach().numpy(), rtol=tolerance, atol=tolerance, strict=True
    )
    weight = np.random.default_rng(9).standard_normal(tuple(expected.shape)).astype(x.dtype)
    y.backward(cr.Tensor(weight))
    expected.backward(torch.tensor(weight))
    assert ours.grad is not None
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=tolerance, atol=tolerance, strict=True)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "area", "bilinear"])
def test_images_of_any_size_are_pytorchs(mode: str, dtype: str, torch: Any) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 6)).astype(dtype)
    for size, corners in itertools.product([1, 4, 7, (5, 11), (10, 3)], [None, True] if mode == "bilinear" else [None]):
        agree(torch, lambda m, x, a=(size, None, mode, corners): m.nn.functional.interpolate(x, *a), x)
    for factor, again in itertools.product([2, 0.5, 1.3, (3, 0.7)], [None, True]):
        agree(torch, lambda m, x, a=(None, factor, mode, None, again): m.nn.functional.interpolate(x, *a), x)


@pytest.mark.torch
@pytest.mark.parametrize(
    "make",
    [
        lambda m: m.Upsample(scale_factor=2),
        lambda m: m.Upsample((3, 4), mode="bilinear", align_corners=True),
        lambda m: m.Upsample(scale_factor=(2, 3), mode="bilinear"),
        lambda m: m.UpsamplingBilinear2d(scale_factor=2),
        lambda m: m.UpsamplingNearest2d((3, 4)),
    ],
)
def test_layer_is_pytorchs(make: Callable[[Any], Any], torch: Any) -> None:
    assert repr(make(nn)) == repr(make(torch.nn))
    agree(torch, lambda m, x: make(m.nn)(x), np.random.default_rng(0).standard_normal((2, 3, 4, 5)))


@pytest.mark.torch
@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.nn.functional.interpolate(m.ones(1, 1, 3, 3), size=5, scale_factor=2),
        lambda m: m.nn.functional.interpolate(m.ones(1, 1, 3, 3)),
        lambda m: m.nn.functional.interpolate(m.ones(1, 1, 3, 3), size=(5, 5, 5)),
        lambda m: m.nn.functional.interpolate(m.ones(1, 1, 3, 3), scale_factor=(2, 2, 2)),
        lambda m: m.nn.functional.interpolate(m.ones(1, 1, 3, 3), size=5, align_corners=True),
        lambda m: m.nn.functional.interpolate(m.ones(1, 1, 3), size=5, mode="bilinear"),
        lambda m: m.nn.functional.interpolate(m.ones(1, 1, 3, 3), size=5, mode="linear"),
    ],
)
def test_wrong_use_is_refused_in_pytorchs_words(call: Callable[[Any], Any], torch: Any) -> None:
    same_error(torch, call)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.interpolate(cr.ones(1, 1, 3, 3), 5, mode="bicubic"), cr.UnsupportedError, "got bicubic"),
        (lambda: F.interpolate(cr.ones(1, 1, 3, 3), 5, antialias=True), cr.UnsupportedError, "antialias=True"),
        (lambda: F.interpolate(cr.ones(1, 1, 3, 3), 0), cr.ShapeError, "sizes should be greater than 0"),
        (lambda: F.interpolate(cr.ones(1, 1, 3).long(), 5), cr.UnsupportedError, "not implemented for 'Long'"),
    ],
)
def test_wrong_use_is_explained(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
