"""Products of two matrices, and of rows with a weight."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array


def mm(a: Array, b: Array) -> Array:
    """y = A·B"""
    y: Array = a * b if a.shape[1] == b.shape[0] == 1 else a @ b  # BLAS takes its time over a column and a row
    return y


def linear(x: Array, w: Array, b: Array | None) -> Array:
    """y = x·wᵀ + b, with x (N, I), w (O, I), b (O) or None, y (N, O)."""
    few = 4 <= len(x) <= min(len(w), 100)  # then it is quicker to transpose them and the result than the weight
    y: Array = np.ascontiguousarray((w @ x.T).T) if few else x @ w.T
    if b is not None:
        y += b
    return y
