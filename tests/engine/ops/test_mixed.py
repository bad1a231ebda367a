"""Normalisation of half precision with float32 parameters: dtypes, values, statistics, gradients of gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.nn import functional as F
from tests.engine.functions.agreement import to_array, to_torch

Norm = Callable[[Any, Any, Any, Any], Any]

NORMS: dict[str, Norm] = {
    "batch_norm": lambda m, x, w, b: m.nn.functional.batch_norm(x, None, None, w, b, True),
    "batch_norm, fixed": lambda m, x, w, b: m.nn.functional.batch_norm(x, m.zeros(4), m.ones(4), w, b),
    "instance_norm": lambda m, x, w, b: m.nn.functional.instance_norm(x, None, None, w, b),
    "group_norm": lambda m, x, w, b: m.nn.functional.group_norm(x, 2, w, b),
    "layer_norm": lambda m, x, w, b: m.nn.functional.layer_norm(x, (4,), w, b),
    "rms_norm": lambda m, x, w, b: m.nn.functional.rms_norm(x, (4,), w) + b,
}


def drawn(dtype: Any) -> list[cr.Tensor]:
    random = np.random.default_rng(0)
    x = cr.tensor(random.normal(size=(3, 4, 5, 4)).astype(np.float32)).to(dtype)
    w, b = (cr.tensor(random.normal(size=4).astype(np.float32)) for _ in range(2))
    return [x, w, b]


def grads(y: cr.Tensor, leaves: list[cr.Tensor], g: cr.Tensor | None = None) -> list[cr.Tensor]:
    """The gradients of the leaves, recorded."""
    found = cr.autograd.grad(y, leaves, g, create_graph=True)
    return [each for each in found if each is not None]


@pytest.mark.parametrize("dtype", [cr.bfloat16, cr.float16])
@pytest.mark.parametrize("norm", [name for name in NORMS if name != "rms_norm"])
def test_it_is_float32s_result_within_one_rounding(norm: str, dtype: Any) -> None:
    x, w, b = (value.requires_grad_() for value in drawn(dtype))
    wide = x.detach().float().requires_grad_()
    y, expected = NORMS[norm](cr, x, w, b), NORMS[norm](cr, wide, w, b)
    assert y.dtype == dtype
    g = cr.tensor(np.random.default_rng(1).normal(size=y.shape).astype(np.float32)).to(dtype)
    (y * g).sum().backward()
    found = [x.grad, w.grad, b.grad]
    w.grad = b.grad = None
    (expected * g.float()).sum().backward()
    rounding = float(cr.finfo(dtype).eps)
    for mine, wanted, kind in zip(
        [y, *found], [expected, wide.grad, w.grad, b.grad], [dtype, dtype, cr.float32, cr.float32], strict=True
    ):
        assert mine is not None
        assert mine.dtype == kind
        tolerance = rounding if kind == dtype else 1e-5
        np.testing.assert_allclose(to_array(mine), to_array(wanted), rtol=tolerance, atol=tolerance)


@pytest.mark.torch
@pytest.mark.parametrize("norm", NORMS)
def test_values_and_gradients_are_pytorchs(norm: str, torch: Any) -> None:
    values = drawn(cr.bfloat16)
    found = []
    for m, given in ((cr, values), (torch, [to_torch(torch, value) for value in values])):
        leaves = [value.detach().requires_grad_() for value in given]
        y = NORMS[norm](m, *leaves)
        y.float().sum().backward()
        found.append([y, *(leaf.grad for leaf in leaves)])
    for mine, other in zip(*found, strict=True):
        assert str(mine.dtype) == str(other.dtype).removeprefix("torch.")
        np.testing.assert_allclose(
            to_array(mine), to_array(other), rtol=0.02, atol=0.2
        )  # PyTorch adds up rounded terms


@pytest.mark.parametrize("norm", NORMS)
def test_gradients_of_gradients_have_their_inputs_dtypes(norm: str) -> None:
    leaves = [value.requires_grad_() for value in drawn(cr.bfloat16)]
    first = grads((NORMS[norm](cr, *leaves).float() ** 2).sum(), leaves)
    assert [g.dtype for g in first] == [cr.bfloat16, cr.float32, cr.float32]
    second = grads(cr.stack([(g.float() ** 2).sum() for g in first]).sum(), leaves)
    assert [g.dtype for g in second] == [cr.bfloat16, cr.float32, cr.float32]


@pytest.mark.torch
def test_running_statistics_stay_float32_and_move_by_unrounded_ones(torch: Any) -> None:
    x = (cr.tensor(np.random.default_rng(0).normal(size=(8, 4, 3, 3)).astype(np.float32)) * 3 + 100).bfloat16()
    ours, theirs = nn.BatchNorm2d(4), torch.nn.BatchNorm2d(4)
    y, their_y = ours(x), theirs(to_torch(torch, x))
    assert y.dtype == cr.bfloat16
    np.testing.assert_allclose(to_array(y), to_array(their_y), atol=0.02)
    for name in ("running_mean", "running_var"):
        assert getattr(ours, name).dtype == cr.float32
        np.testing.assert_allclose(getattr(ours, name).numpy(), getattr(theirs, name).numpy(), rtol=1e-5)


def test_only_the_bias_may_require_a_gradient() -> None:
    x, w, b = drawn(cr.bfloat16)
    y = F.layer_norm(x, (4,), w, b.requires_grad_())
    y.sum().backward()
    assert b.grad is not None
    assert b.grad.dtype == cr.float32
    assert b.grad.tolist() == [60.0] * 4
