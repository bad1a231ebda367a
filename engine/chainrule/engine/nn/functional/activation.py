"""Activations: what stands between two layers, element by element or along one dimension."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from chainrule.engine.dtypes import bool_, float32, is_low_precision, uint8
from chainrule.engine.errors import ConfigError, DTypeError, ShapeError
from chainrule.engine.functions import arithmetic
from chainrule.engine.functions.arguments import axis_of
from chainrule.engine.functions.arithmetic import sigmoid, tanh
from chainrule.engine.functions.autocast import active, lowered
from chainrule.engine.nn.functional.checks import SettingError, require_floating, result_of
from chainrule.engine.ops import activation, loss
from chainrule.engine.random import current_generator
from chainrule.engine.tensor import Tensor

__all__ = [
    "celu",
    "elu",
    "gelu",
    "glu",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "log_softmax",
    "logsigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "rrelu",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
]

_selu_alpha = 1.6732632423543772848170429916717
_selu_scale = 1.0507009873554804934193349852946

# ---- Straight lines ----


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0)"""
    return result_of("relu", input, arithmetic.relu(input), inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """x limited to [0, 6]"""
    return hardtanh(input, 0.0, 6.0, inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x limited to [min_val, max_val]

    Raises:
        ConfigError: min_val is greater than max_val.
        DTypeError: the input is of bools, or of uint8 and a limit is negative.
    """
    if input.dtype == bool_:
        raise DTypeError("Bool inputs not supported for hardtanh")
    if input.dtype == uint8 and min(min_val, max_val) < 0:
        raise DTypeError("cannot do hardtanh on an unsigned type with negative limits")
    if min_val > max_val:
        raise ConfigError("min_val", min_val, "min_val cannot be greater than max_val")
    return result_of("hardtanh", input, activation.hardtanh(input, low=min_val, high=max_val), inplace)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else `value`"""
    return result_of("threshold", input, activation.threshold(input, threshold=threshold, value=value), inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else negative_slope · x"""
    require_floating("leaky_relu_cpu", input)
    return result_of("leaky_relu", input, activation.leaky_relu(input, slope=negative_slope), inplace)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else w · x, for one w, or one for each channel of x (N, C, ...).

    Raises:
        ShapeError: another number of weights.
        DTypeError: the dtypes differ.
    """
    if active:
        input, weight = lowered(input, weight)
    if input.dtype != weight.dtype:
        raise DTypeError(f"prelu: Type promoting not supported. Got {input.dtype} and {weight.dtype}")
    if weight.ndim > 1:
        raise ShapeError(f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {weight.ndim}")
    if weight.numel() != 1:
        channels = input.shape[1] if input.ndim > 1 else 1
        if not input.ndim:
            raise ShapeError("Not allow zero-dim input tensor.")
        if weight.numel() != channels:
            raise ShapeError(
                f"Mismatch of parameter numbers and input channel size. Found parameter numbers = {weight.numel()} "
                f"and channel size = {channels}."
            )
    if weight.ndim and input.ndim > 1:
        weight = weight.reshape(1, -1, *(1,) * (input.ndim - 2))
    elif not input.ndim:
        weight = weight.reshape(())
    return activation.prelu(input, weight)


def rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """x where x > 0, else a · x, with each a drawn from U(lower, upper), or their mean when not training.

    Raises:
        SettingError: lower is greater than upper.
    """
    require_floating("rrelu_with_noise_out_cpu", input)
    if lower > upper:
        raise SettingError("lower", lower, "Lower bound should be less than or equal to the upper bound")
    if not training:
        return result_of("rrelu", input, activation.rrelu(input, (lower + upper) / 2), inplace)
    draw = current_generator().uniform(input.shape, input.dtype)
    slopes = Tensor(draw * input.dtype.type(upper - lower) + input.dtype.type(lower))
    return result_of("rrelu", input, activation.rrelu(input, slopes), inplace)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where |x| > λ, else 0"""
    require_floating("hardshrink_cpu", input)
    return activation.hardshrink(input, lambd=lambd)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x drawn towards 0 by λ, and 0 where |x| ≤ λ

    Raises:
        SettingError: λ is negative.
    """
    require_floating("softshrink_check", input)
    if lambd < 0:
        raise SettingError("lambd", lambd, f"lambda must be in range [0, inf), but found {lambd}")
    return activation.softshrink(input, lambd=lambd)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """(x + 3) / 6 limited to [0, 1]"""
    require_floating("hardsigmoid_cpu", input)
    return result_of("hardsigmoid", input, activation.hardsigmoid(input), inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x · hardsigmoid(x)"""
    require_floating("hardswish_cpu", input)
    return result_of("hardswish", input, activation.hardswish(input), inplace)


# ---- Exponentials below zero ----


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else α · (eˣ − 1)"""
    require_floating("elu_cpu", input)
    return result_of("elu", input, activation.elu(input, alpha=alpha), inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else α · (e^(x/α) − 1)

    Raises:
        SettingError: α is 0.
    """
    require_floating("elu_cpu", input)
    if alpha == 0:
        raise SettingError("alpha", alpha, "ZeroDivisionError: alpha cannot be 0 for CELU")
    return result_of("celu", input, activation.celu(input, alpha=alpha), inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale · elu(x, α), with the α and scale of Klambauer et al., https://arxiv.org/abs/1706.02515"""
    require_floating("elu_cpu", input)
    return result_of("selu", input, activation.elu(input, alpha=_selu_alpha, scale=_selu_scale), inplace)


# ---- Smooth ----


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x · Φ(x), with Φ of the normal distribution, or by its approximation with tanh.

    Raises:
        SettingError: `approximate` is neither none nor tanh.
    """
    require_floating("GeluKernelImpl", input)
    if approximate not in ("none", "tanh"):
        raise SettingError("approximate", approximate, "approximate argument must be either none or tanh.")
    return activation.gelu(input) if approximate == "none" else activation.gelu_tanh(input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x · σ(x)"""
    require_floating("silu_cpu", input)
    return result_of("silu", input, activation.silu(input), inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x · tanh(softplus(x))"""
    require_floating("mish_cpu", input)
    return result_of("mish", input, activation.mish(input), inplace)


def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """log(1 + e^(βx)) / β, and x where βx > threshold"""
    require_floating("softplus_cpu", input)
    return activation.softplus(input, beta=beta, threshold=threshold)


def logsigmoid(input: Tensor) -> Tensor:
    """log σ(x)"""
    require_floating("log_sigmoid_cpu", input)
    return activation.logsigmoid(input)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)"""
    return input / (arithmetic.abs(input) + 1)


def tanhshrink(input: Tensor) -> Tensor:
    """x − tanh x"""
    return input - tanh(input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a · σ(b), for the halves a and b of x along `dim`.

    Raises:
        ShapeError: x has no halves along it.
    """
    require_floating("glu_cpu", input)
    if not input.ndim:
        raise ShapeError("glu does not support scalars because halving size must be even")
    axis = axis_of(input, dim)
    if input.shape[axis] % 2:
        raise ShapeError(f"Halving dimension must be even, but dimension {axis} is size {input.shape[axis]}")
    return activation.glu(input, dim=axis)


# ---- Along a dimension ----


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: npt.DTypeLike | None = None) -> Tensor:
    """eˣ / Σ eˣ along `dim`, of x converted to `dtype` first"""
    converted, axis = _along("softmax", input, dim, _stacklevel, dtype)
    return loss.softmax(converted, dim=axis)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: npt.DTypeLike | None = None) -> Tensor:
    """softmax(−x)"""
    converted, axis = _along("softmin", -input, dim, _stacklevel, dtype)
    return loss.softmax(converted, dim=axis)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: npt.DTypeLike | None = None
) -> Tensor:
    """x − log Σ eˣ along `dim`, of x converted to `dtype` first"""
    converted, axis = _along("log_softmax", input, dim, _stacklevel, dtype)
    return loss.log_softmax(converted, dim=axis)


def _along(
    name: str, input: Tensor, dim: int | None, stacklevel: int, dtype: npt.DTypeLike | None
) -> tuple[Tensor, int]:
    """The tensor in the dtype asked for, and the dimension, counted from 0."""
    if dim is None:
        warnings.warn(
            f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an "
            "argument.",
            stacklevel=stacklevel,
        )
        dim = 0 if input.ndim in (0, 1, 3) else 1
    converted = input if dtype is None else input.to(dtype)
    require_floating(f"{'log_softmax' if name == 'log_softmax' else 'softmax'}_lastdim_kernel_impl", converted)
    return converted, axis_of(input, dim)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """softmax((x + n) / τ) along `dim`, with n drawn from the Gumbel distribution; its one-hot maximum if `hard`.

    The gradient of the hard choice is that of the soft one. `eps` has no effect, as in PyTorch.
    Source: Jang, Gu and Poole, https://arxiv.org/abs/1611.01144
    """
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    dtype = float32 if is_low_precision(logits.dtype) else logits.dtype
    draw = current_generator().uniform(logits.shape, dtype)
    gumbels = (-arithmetic.log(-arithmetic.log(Tensor(draw.clip(2.0**-30, None))))).to(logits.dtype)
    soft = softmax((logits + gumbels) / tau, dim)
    if not hard:
        return soft
    axis = axis_of(logits, dim)
    places = np.arange(logits.shape[axis]).reshape([-1 if i == axis else 1 for i in range(logits.ndim)])
    choice = soft.data.argmax(axis, keepdims=True) == places
    return Tensor(choice.astype(soft.dtype)) - soft.detach() + soft
