"""Sums of bfloat16 by oneDNN, where numpy would have to go through float32."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array, bfloat16
from chainrule.engine.kernels import reference
from chainrule.engine.kernels.onednn import library as dnn
from chainrule.engine.kernels.onednn.library import Argument
from chainrule.engine.kernels.onednn.primitive import Layout, Primitive, attributes, describe, kept


def add(a: Array, b: Array) -> Array:
    """As `reference.add`, but that oneDNN takes what is nearer to 0 than 2⁻¹²⁶ for 0."""
    if _is_alike(a, b):
        found = kept(("add", a.size), lambda: _sum(a.size))
        if found is not None:
            y = np.empty_like(a)
            found.run(a, b, y)
            return y
    return reference.add(a, b)


def _is_alike(a: Array, b: Array) -> bool:
    """Whether both are arrays of bfloat16 whose elements lie in the same order, one behind the other."""
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype == b.dtype == bfloat16):
        return False
    if a.shape != b.shape or not a.size:
        return False
    if a.flags.c_contiguous:
        return b.flags.c_contiguous
    return a.ndim == 4 and all(x.transpose(0, 2, 3, 1).flags.c_contiguous for x in (a, b))


def _sum(size: int) -> Primitive | None:
    layout = Layout.dense((size,), bfloat16)
    description = describe("binary", dnn.ADD, *(layout.handle,) * 3, attributes())
    if description is None:
        return None
    return Primitive(description, ((Argument.SRC, layout), (Argument.SRC_1, layout), (Argument.DST, layout)))
