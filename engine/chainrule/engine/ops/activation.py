"""Activations that are more than a step of arithmetic: the families of relu, of the sigmoid and of tanh."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.engine import kernels
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.ops.broadcasting import elementwise
from chainrule.engine.ops.elementwise import exp, sigmoid, tanh, where
from chainrule.engine.ops.op import op
from chainrule.engine.ops.shape import cat, narrow
from chainrule.engine.ops.special import erf

# ---- Straight lines ----


@op("Threshold", x=lambda g, x, threshold: where(x <= threshold, 0.0, g))
def threshold(x: Any, *, threshold: float, value: float) -> Any:
    """y = x where x > threshold, else `value`."""
    return np.where(x <= threshold, _as(x, value), x)


@op("Hardtanh", x=lambda g, x, low, high: where((x > low) & (x < high), g, 0.0))
def hardtanh(x: Any, *, low: float, high: float) -> Any:
    """y = x limited to [low, high]; the gradient passes inside only."""
    return np.clip(x, _as(x, low), _as(x, high))


@op("LeakyRelu", x=lambda g, x, slope: where(x > 0, g, g * slope))
def leaky_relu(x: Any, *, slope: float) -> Any:
    """y = x where x > 0, else slope · x."""
    return np.where(x > 0, x, x * slope)


prelu = elementwise(
    "PreluKernel",
    lambda x, w: np.where(x > 0, x, w * x),
    inputs=("x", "w"),
    x=lambda g, x, w: where(x > 0, g, g * w),
    w=lambda g, x: where(x > 0, 0.0, g * x),
)
rrelu = elementwise(
    "RreluWithNoise",
    lambda x, w: np.where(x > 0, x, w * x),
    inputs=("x", "w"),
    x=lambda g, x, w: where(x > 0, g, g * w),
)


@op("Hardshrink", x=lambda g, x, lambd: where((x > lambd) | (x < -lambd), g, 0.0))
def hardshrink(x: Any, *, lambd: float) -> Any:
    """y = x where |x| > λ, else 0."""
    return np.where(np.abs(x) <= lambd, _as(x, 0), x)


@op("Softshrink", x=lambda g, x, lambd: where((x > lambd) | (x < -lambd), g, 0.0))
def softshrink(x: Any, *, lambd: float) -> Any:
    """y = x drawn towards 0 by λ, and 0 where |x| ≤ λ."""
    return np.where(np.abs(x) <= lambd, _as(x, 0), x - np.copysign(_as(x, lambd), x))


@op("Hardsigmoid", x=lambda g, x: where((x > -3) & (x < 3), g / 6, 0.0))
def hardsigmoid(x: Any) -> Any:
    """y = (x + 3) / 6 limited to [0, 1]."""
    return np.clip(x + 3, 0, 6) / 6


@op("Hardswish", x=lambda g, x: where(x <= -3, 0.0, where(x < 3, g * (x / 3 + 0.5), g)))
def hardswish(x: Any) -> Any:
    """y = x · (x + 3) / 6, where the fraction is limited to [0, 1]."""
    return x * np.clip(x + 3, 0, 6) / 6


# ---- Exponentials below zero ----


def _elu(x: Any, *, alpha: float, scale: float, steepness: float) -> Any:
    return np.where(x > 0, x * scale, np.expm1(np.minimum(x, 0) * steepness) * (alpha * scale))


def _elu_gradient(g: Any, x: Any, alpha: float, scale: float, steepness: float) -> Any:
    below = where(x > 0, 0.0, x)  # what exp does not overflow for
    return where(x > 0, g * scale, g * exp(below * steepness) * (alpha * scale * steepness))


@op("Elu", x=lambda g, x, alpha, scale, steepness: _elu_gradient(g, x, alpha, scale, steepness))
def elu(x: Any, *, alpha: float, scale: float = 1.0, steepness: float = 1.0) -> Any:
    """y = scale · x where x > 0, else scale · α · (e^(steepness · x) − 1)."""
    return _elu(x, alpha=alpha, scale=scale, steepness=steepness)


@op("Celu", x=lambda g, x, alpha: _elu_gradient(g, x, alpha, 1.0, 1 / alpha))
def celu(x: Any, *, alpha: float) -> Any:
    """y = x where x > 0, else α · (e^(x/α) − 1)."""
    return _elu(x, alpha=alpha, scale=1.0, steepness=1 / alpha)


# ---- The sigmoid's ----


@op("LogSigmoid", x=lambda g, x: g * sigmoid(-x))
def logsigmoid(x: Any) -> Any:
    """y = log(1 / (1 + e⁻ˣ)), without overflow."""
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


@op("Softplus", x=lambda g, x, beta, threshold: where(x * beta > threshold, g, g * sigmoid(x * beta)))
def softplus(x: Any, *, beta: float, threshold: float) -> Any:
    """y = log(1 + e^(βx)) / β, and x where βx > threshold."""
    scaled = x * beta
    return np.where(scaled > threshold, x, np.logaddexp(_as(x, 0), scaled) / beta)


@op("Silu", x=lambda g, x: g * sigmoid(x) * (1 + x * (1 - sigmoid(x))))
def silu(x: Any) -> Any:
    """y = x · σ(x)."""
    return x * sigmoid(x)


@op("Mish", x=lambda g, x: g * _mish_slope(x, tanh(_softplus(x))))
def mish(x: Any) -> Any:
    """y = x · tanh(log(1 + eˣ)). Source: Misra, https://arxiv.org/abs/1908.08681"""
    return x * np.tanh(_softplus(x))


def _mish_slope(x: Any, t: Any) -> Any:
    """dy/dx = t + x · σ(x) · (1 − t²), with t = tanh(log(1 + eˣ))."""
    return t + x * sigmoid(x) * (1 - t * t)


def _softplus(x: Any) -> Any:
    return softplus(x, beta=1.0, threshold=math.inf)


@op("Glu", x=lambda g, x, dim: _glu_gradient(g, *_halves(x, dim), dim))
def glu(x: Any, *, dim: int) -> Any:
    """y = a · σ(b), for the halves a and b of x along `dim`."""
    a, b = _halves(x, dim)
    return a * sigmoid(b)


def _glu_gradient(g: Any, a: Any, b: Any, dim: int) -> Any:
    """da = g · σ(b), db = g · a · σ(b) · (1 − σ(b))"""
    s = sigmoid(b)
    return cat(g * s, g * a * s * (1 - s), dim=dim)


def _halves(x: Any, dim: int) -> tuple[Any, Any]:
    half = x.shape[dim] // 2
    return narrow(x, start=0, length=half, dim=dim), narrow(x, start=half, length=half, dim=dim)


# ---- The normal distribution's. Source: Hendrycks and Gimpel, https://arxiv.org/abs/1606.08415 ----


@op("Gelu", native=True, x=lambda g, x: g * _gelu_slope(x) if isinstance(x, Variable) else kernels.gelu_gradient(g, x))
def gelu(x: Any) -> Any:
    """y = x · Φ(x), with the normal distribution's Φ(x) = ½ (1 + erf(x / √2))."""
    return kernels.gelu(x)


def _gelu_slope(x: Any) -> Any:
    """dy/dx = Φ(x) + x · φ(x), with the normal distribution's φ(x) = e^(−x²/2) / √(2π)."""
    return 0.5 * (1 + erf(x * math.sqrt(0.5))) + x * exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))


@op(
    "Gelu",
    native=True,
    x=lambda g, x: g * _gelu_tanh_slope(x) if isinstance(x, Variable) else kernels.gelu_tanh_gradient(g, x),
)
def gelu_tanh(x: Any) -> Any:
    """y = ½ x (1 + tanh u), with u = √(2/π) · (x + 0.044715 x³)."""
    return kernels.gelu_tanh(x)


def _gelu_tanh_slope(x: Any) -> Any:
    """dy/dx = ½ (1 + t) + ½ x (1 − t²) · du/dx, with t = tanh u."""
    root = math.sqrt(2 / math.pi)
    t = tanh((x + 0.044715 * (x * x * x)) * root)
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * (1 + 0.134145 * (x * x)) * root


def _as(x: Any, value: float) -> Any:
    return np.asarray(x).dtype.type(value)
