"""Mean and variance of each channel of a batch."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array


def batch_moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each channel, in float64: sums of many elements lose digits otherwise."""
    mean = _channel_mean(x)
    centred = x - mean.astype(x.dtype).reshape(1, -1, 1, 1)
    shift = _channel_mean(centred)  # what rounding the mean to x's dtype left
    square = _channel_mean(np.square(centred, out=centred))
    return mean, square - shift * shift


def _channel_mean(x: Array) -> Array:
    return np.asarray(np.mean(x, axis=(0, 2, 3), dtype=np.float64))
