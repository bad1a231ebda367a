"""The Gaussian error linear unit and its gradient by oneDNN: one pass over memory each."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from chainrule.engine.dtypes import Array, DType, bfloat16
from chainrule.engine.kernels import reference
from chainrule.engine.kernels.onednn import library as dnn
from chainrule.engine.kernels.onednn.arrays import TYPES, in_memory_of
from chainrule.engine.kernels.onednn.library import Argument
from chainrule.engine.kernels.onednn.primitive import Layout, Primitive, attributes, describe, kept


def gelu(x: Array) -> Array:
    """As `reference.gelu`."""
    found = _found(x, dnn.GELU_ERF)
    if found is None or _huge(x):  # its squares overflow, and what is to be ∞ becomes not a number
        return reference.gelu(x)
    return found.forward_of(x)


def gelu_gradient(g: Array, x: Array) -> Array:
    """As `reference.gelu_gradient`."""
    found = _found(x, dnn.GELU_ERF)
    return reference.gelu_gradient(g, x) if found is None else found.backward_of(g, x)


def gelu_tanh(x: Array) -> Array:
    """As `reference.gelu_tanh`."""
    found = _found(x, dnn.GELU_TANH)
    return reference.gelu_tanh(x) if found is None else found.forward_of(x)


def gelu_tanh_gradient(g: Array, x: Array) -> Array:
    """As `reference.gelu_tanh_gradient`."""
    found = _found(x, dnn.GELU_TANH)
    return reference.gelu_tanh_gradient(g, x) if found is None else found.backward_of(g, x)


class Activation(NamedTuple):
    """The primitives of a function on so many elements, whichever way they lie."""

    forward: Primitive
    backward: Primitive

    def forward_of(self, x: Array) -> Array:
        y = np.empty_like(x)
        self.forward.run(in_memory_of(y, x), y)
        return y

    def backward_of(self, g: Array, x: Array) -> Array:
        dx = np.empty_like(x)
        self.backward.run(in_memory_of(dx, x), in_memory_of(dx, g), dx)
        return dx


def _found(x: Array, function: int) -> Activation | None:
    if x.dtype not in TYPES or not x.size:
        return None
    return kept(("activation", function, x.size, x.dtype), lambda: _described(function, x.size, x.dtype))


def _described(function: int, size: int, dtype: DType) -> Activation | None:
    row = Layout.dense((size,), dtype)
    there = describe("eltwise_forward", dnn.FORWARD_TRAINING, function, row.handle, row.handle, 0.0, 0.0, attributes())
    if there is None:
        return None
    forward = Primitive(there, ((Argument.SRC, row), (Argument.DST, row)))
    back = describe("eltwise_backward", function, *(row.handle,) * 3, 0.0, 0.0, there, attributes())
    if back is None:
        return None
    arguments = ((Argument.SRC, row), (Argument.DIFF_DST, row), (Argument.DIFF_SRC, row))
    return Activation(forward, Primitive(back, arguments))


@np.errstate(all="ignore")
def _huge(x: Array) -> bool:
    """Whether any element is not finite, or so large that its square may not be."""
    if x.dtype == bfloat16:
        return bool((x.view(np.uint16) & 0x7FFF).max() >= _bits_of_1e18)
    flat = x.ravel(order="K")
    return not math.isfinite(np.dot(flat, flat))


_bits_of_1e18 = int(np.array(1e18, bfloat16).view(np.uint16))
