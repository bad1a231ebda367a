"""The softmax of attention: over the keys that a query may see."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.ops.op import op
from chainrule.engine.ops.reduction import sum


@op("SafeSoftmax", x=lambda g, y: y * (g - sum(g * y, dim=-1, keepdim=True)))
def masked_softmax(x: Any, *, mask: Array | None = None) -> Any:
    """y = eˣ / Σ eˣ along the last dimension, over the elements where `mask` is true; 0 elsewhere.

    A row without any such element, or with −∞ only, is 0 rather than not a number. `mask` broadcasts to x.
    """
    y: Array = x.copy() if mask is None else np.where(mask, x, x.dtype.type(-np.inf))
    top = np.max(y, axis=-1, keepdims=True, initial=-np.inf)
    top[np.isneginf(top)] = 0
    y -= top
    np.exp(y, out=y)
    total = np.sum(y, axis=-1, keepdims=True)
    total[total == 0] = 1
    y /= total
    return y
