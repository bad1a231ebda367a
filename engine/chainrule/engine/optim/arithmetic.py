"""What the updates of several optimizers compute on the way, on arrays."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array


def direction(gradient: Array, parameter: Array, weight_decay: float, maximize: bool, scratch: Array) -> Array:
    """±g + λ·p, what is descended, with − if `maximize`; the gradient itself where nothing is to be done to it."""
    g = np.negative(gradient, out=np.empty_like(gradient)) if maximize else gradient
    if weight_decay == 0:
        return g
    np.multiply(parameter, weight_decay, out=scratch)
    return np.add(g, scratch, out=g if maximize else np.empty_like(parameter))


def move_average(average: Array, x: Array, keep: float, scratch: Array) -> None:
    """average ← average + (1 − keep)·(x − average), in place; from the nearer end, so that keep = 0 gives x itself."""
    np.subtract(x, average, out=scratch)
    if keep > 0.5:
        scratch *= 1 - keep
        average += scratch
    else:
        scratch *= keep
        np.subtract(x, scratch, out=average)
