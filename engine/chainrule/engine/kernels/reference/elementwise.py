"""Steps of arithmetic that networks take between their layers, of which half precision needs care in numpy."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array, DType, bfloat16, float32, is_low_precision, widened


def add(a: Array, b: Array) -> Array:
    """y = a + b; of half precision in float32, rounded once."""
    y: Array = widened(a) + widened(b)
    low = [x.dtype for x in (a, b) if isinstance(x, np.ndarray) and is_low_precision(x.dtype)]
    return y.astype(low[0]) if low and y.dtype == float32 else y


def relu(x: Array) -> Array:
    """y = max(x, 0), which keeps what is no number."""
    if x.dtype != bfloat16:
        return np.maximum(x, _zeros(x))
    bits = x.view(np.int16)
    y: Array = bits * (bits >= _NOT_NEGATIVE)
    return y.view(bfloat16)


def relu_gradient(g: Array, y: Array) -> Array:
    """dx = g where y is not 0, so also where it is no number."""
    return masked(g, y != 0 if y.dtype != bfloat16 else y.view(np.int16) != 0)


def masked(g: Array, mask: Array) -> Array:
    """g where the mask says so, else 0: a product of bits, as one of numbers makes none of ∞ · 0."""
    dx: Array = g.view(_BITS[g.itemsize]) * mask
    return dx.view(g.dtype)


_BITS: dict[int, DType] = {2: np.dtype(np.int16), 4: np.dtype(np.int32), 8: np.dtype(np.int64)}
_NOT_NEGATIVE = -127
"""As int16, numbers below 0 go from −0, the smallest, up to −∞, −128; what is no number comes behind that."""


def _zeros(x: Array) -> Array | int:
    """0 to compare with; a row of them where x has rows: for a number, numpy has no vector instructions."""
    if x.ndim and x.shape[-1] >= _ROW and x.flags.c_contiguous:
        return np.zeros(x.shape[-1], x.dtype)
    if x.ndim == 4 and x.shape[1] >= _ROW and x.transpose(0, 2, 3, 1).flags.c_contiguous:
        return np.zeros((x.shape[1], 1, 1), x.dtype)
    return 0


_ROW = 64
