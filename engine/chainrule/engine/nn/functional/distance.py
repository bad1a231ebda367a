"""Lengths of vectors, and how far and how alike two of them are."""

from __future__ import annotations

import math

from chainrule.engine.dtypes import is_floating, promote_types, type_name
from chainrule.engine.errors import DTypeError
from chainrule.engine.functions import arithmetic, reduction
from chainrule.engine.tensor import Tensor

__all__ = ["cosine_similarity", "normalize", "pairwise_distance"]


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(‖x‖ₚ, ε), with the norm along `dim`.

    Raises:
        DTypeError: x is of integers or bools.
    """
    if not is_floating(input.dtype):
        raise DTypeError(
            f"linalg.vector_norm: Expected a floating point or complex tensor as input. Got {type_name(input.dtype)}"
        )
    return input / arithmetic.clamp(norm(input, p, dim, keepdim=True), min=eps)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Σ x₁·x₂ / (max(‖x₁‖, ε) · max(‖x₂‖, ε)) along `dim`; the shapes broadcast.

    Raises:
        DTypeError: both are of integers or bools.
    """
    if not (is_floating(x1.dtype) or is_floating(x2.dtype)):
        common = type_name(promote_types(x1.dtype, x2.dtype))
        raise DTypeError(f"expected common dtype to be floating point, yet common dtype is {common}")
    a, b = (x if is_floating(x.dtype) else x.float() for x in (x1, x2))
    return reduction.sum(normalize(a + 0 * b, dim=dim, eps=eps) * normalize(b + 0 * a, dim=dim, eps=eps), dim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """‖x₁ − x₂ + ε‖ₚ along the last dimension; the shapes broadcast."""
    return norm(x1 - x2 + eps, p, -1, keepdim=keepdim)


def norm(x: Tensor, p: float, dim: int, *, keepdim: bool) -> Tensor:
    """(Σ |x|ᵖ)^(1/p) along `dim`; its gradient is 0 where x is."""
    size = arithmetic.abs(x)
    if math.isinf(p):
        return reduction.amax(size, dim, keepdim) if p > 0 else reduction.amin(size, dim, keepdim)
    if p == 0:
        return reduction.sum((x != 0).to(x.dtype), dim, keepdim)
    if p == 1:
        return reduction.sum(size, dim, keepdim)
    total = reduction.sum(x * x if p == 2 else size**p, dim, keepdim)
    is_zero = total == 0
    root = arithmetic.where(is_zero, 1.0, total)
    return arithmetic.where(is_zero, 0.0, arithmetic.sqrt(root) if p == 2 else root ** (1 / p))
