"""Products of two matrices, and of rows with a weight."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array


def mm(a: Array, b: Array, out: Array | None = None) -> Array:
    """y = A·B, written to contiguous `out` if that is given."""
    one = a.shape[1] == b.shape[0] == 1  # BLAS takes its time over a column and a row
    y: Array = np.multiply(a, b, out=out) if one else np.matmul(a, b, out=out)
    return y


def linear(x: Array, w: Array, b: Array | None) -> Array:
    """y = x·wᵀ + b, with x (N, I), w (O, I), b (O) or None, y (N, O)."""
    few = 4 <= len(x) <= min(len(w), 100)  # then it is quicker to transpose them and the result than the weight
    y: Array = np.ascontiguousarray((w @ x.T).T) if few else x @ w.T
    if b is not None:
        y += b
    return y
