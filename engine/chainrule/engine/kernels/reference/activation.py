"""The Gaussian error linear unit and its gradient: x · Φ(x), exact or by tanh.

Source: Hendrycks and Gimpel, https://arxiv.org/abs/1606.08415
"""

from __future__ import annotations

import math

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.kernels.reference.special import erf

_root_half = math.sqrt(0.5)
_density_at_0 = 1 / math.sqrt(2 * math.pi)
_root = math.sqrt(2 / math.pi)
_quiet = np.errstate(all="ignore")  # as PyTorch, which gives inf and nan without a word


@_quiet
def gelu(x: Array) -> Array:
    """y = x · Φ(x), with the normal distribution's Φ(x) = ½ (1 + erf(x / √2))."""
    y = _normal_cdf(x)
    y *= x
    return y


@_quiet
def gelu_gradient(g: Array, x: Array) -> Array:
    """dx = g · (Φ(x) + x · φ(x)), with the normal distribution's φ(x) = e^(−x²/2) / √(2π)."""
    dx = np.asarray(x * x)
    dx *= -0.5
    np.exp(dx, out=dx)
    dx *= _density_at_0
    dx *= x
    dx += _normal_cdf(x)
    dx *= g
    return dx


@_quiet
def gelu_tanh(x: Array) -> Array:
    """y = ½ x (1 + tanh u), with u = √(2/π) · (x + 0.044715 x³)."""
    y = _tanh(x)
    y += 1
    y *= 0.5
    y *= x
    return y


@_quiet
def gelu_tanh_gradient(g: Array, x: Array) -> Array:
    """dx = g · (½ (1 + t) + ½ x (1 − t²) · du/dx), with t = tanh u."""
    t = _tanh(x)
    slope = np.asarray((1 + 0.134145 * (x * x)) * _root)
    slope *= 1 - t * t
    slope *= x
    slope += 1 + t
    slope *= 0.5
    slope *= g
    return slope


def _normal_cdf(x: Array) -> Array:
    y = erf(x * _root_half)
    y += 1
    y *= 0.5
    return y


def _tanh(x: Array) -> Array:
    u = np.asarray(x * x * x)
    u *= 0.044715
    u += x
    u *= _root
    np.tanh(u, out=u)
    return u
