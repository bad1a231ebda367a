"""Gradients made shorter, together by their norm or each element by its value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from chainrule.engine.autograd.mode import no_grad
from chainrule.engine.dtypes import Array
from chainrule.engine.errors import AutogradError
from chainrule.engine.tensor import Tensor


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scales the gradients, in place, so that their norm, as if they were one vector, is at most `max_norm`.

    g ← g · min(1, max_norm / (norm + 10⁻⁶))

    Args:
        norm_type: p of the p-norm; may be infinite.
        error_if_nonfinite: raises rather than scale by an infinite norm or NaN.
        foreach: changes nothing here.

    Returns:
        The norm before.

    Raises:
        AutogradError: the norm is not finite.
    """
    listed = _listed(parameters)
    norm = get_total_norm(_gradients(listed), norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(listed, max_norm, norm, foreach)
    return norm


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,  # noqa: ARG001 - PyTorch's argument
) -> Tensor:
    """The p-norm of all elements as one vector, p = `norm_type`: (Σ |x|ᵖ)^(1/p), or their largest |x| for p = ∞.

    Raises:
        AutogradError: it is not finite, and `error_if_nonfinite`.
    """
    norms = [_norm(tensor.data, float(norm_type)) for tensor in _listed(tensors)]
    # 0-d results of numpy are scalars
    total = np.asarray(_norm(np.stack(norms), float(norm_type)) if norms else np.float32(0))
    if error_if_nonfinite and not np.isfinite(total):
        raise AutogradError(
            f"The total norm of order {float(norm_type)} for gradients from `parameters` is non-finite, so it cannot "
            "be clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    return Tensor.wrap(total)


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    total_norm: Tensor,
    foreach: bool | None = None,  # noqa: ARG001 - PyTorch's argument
) -> None:
    """Scales the gradients, in place, by min(1, max_norm / (total_norm + 10⁻⁶))."""
    norm = total_norm.data
    factor = np.minimum(norm.dtype.type(max_norm) / (norm + norm.dtype.type(1e-6)), norm.dtype.type(1))
    with no_grad():
        for gradient in _gradients(_listed(parameters)):
            gradient.mul_(Tensor.wrap(np.asarray(factor, gradient.dtype)))


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor],
    clip_value: float,
    foreach: bool | None = None,  # noqa: ARG001 - PyTorch's argument
) -> None:
    """Limits every element of the gradients, in place, to [−clip_value, clip_value]."""
    with no_grad():
        for gradient in _gradients(_listed(parameters)):
            gradient.clamp_(-float(clip_value), float(clip_value))


def _norm(x: Array, p: float) -> Any:
    """The p-norm of an array, in its dtype; float16 and bfloat16 are added up in float32."""
    if x.dtype.itemsize < 4:
        return _norm(x.astype(np.float32), p).astype(x.dtype)
    x = np.abs(x)
    if x.size == 0:
        return x.dtype.type(0)
    if math.isinf(p):
        return np.max(x) if p > 0 else np.min(x)
    if p == 0:
        return x.dtype.type(np.count_nonzero(x))
    if p == 1:
        return np.sum(x)
    if p == 2:
        return np.sqrt(np.sum(x * x))
    return np.sum(x ** x.dtype.type(p)) ** x.dtype.type(1 / p)


def _gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _listed(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)
