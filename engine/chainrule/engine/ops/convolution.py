"""Convolution and its two gradients: three bilinear operations, each the gradient of the others."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine import kernels
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, DType, float32, is_low_precision, widened
from chainrule.engine.kernels.geometry import ConvGeometry
from chainrule.engine.ops.op import op
from chainrule.engine.ops.reduction import sum

Shape = tuple[int, ...]


@op(
    "Convolution",
    native=True,
    x=lambda g, x_shape, w, geometry: conv2d_input(g, w, shape=x_shape, geometry=geometry),
    w=lambda g, x, w, geometry: conv2d_weight(g, x, shape=w.shape, geometry=geometry, dtype=w.dtype),
    b=lambda g, b: _bias_gradient(g, b),
)
def conv2d(x: Any, w: Any, b: Any = None, *, geometry: ConvGeometry, affine: tuple[Array, Array] | None = None) -> Any:
    """y = x ⋆ w + b, with x (N, C, H, W), w (O, C / groups, KH, KW), b (O) or None, y (N, O, OH, OW).

    Weights may be of float32 where images are of half precision, as in mixed precision; their gradients are, too.

    Args:
        affine: scale and shift of each channel of y, where no gradient is wanted: it has none with them.
    """
    return kernels.conv2d(x, w, b, geometry, affine)


@op(
    "Convolution",
    native=True,
    dy=lambda g, w, geometry: conv2d(g, w, geometry=geometry),
    w=lambda g, dy, w, geometry: conv2d_weight(dy, g, shape=w.shape, geometry=geometry, dtype=w.dtype),
    b=lambda g, b: _bias_gradient(g, b),
)
def conv2d_input(dy: Any, w: Any, b: Any = None, *, shape: Shape, geometry: ConvGeometry) -> Any:
    """The gradient of conv2d by its input, which has the given shape; plus b (C), the transposed convolution."""
    dx = kernels.conv2d_input(dy, w, shape, geometry)
    if b is not None:
        dx = kernels.add(dx, b[:, None, None])
    return dx


@op(
    "ConvolutionWeight",
    native=True,
    dy=lambda g, x, geometry: conv2d(x, g, geometry=geometry),
    x=lambda g, dy, x_shape, geometry: conv2d_input(dy, g, shape=x_shape, geometry=geometry),
)
def conv2d_weight(dy: Any, x: Any, *, shape: Shape, geometry: ConvGeometry, dtype: DType) -> Any:
    """The gradient of conv2d by its weight, which has the given shape and dtype."""
    return kernels.conv2d_weight(dy, x, shape, geometry, dtype)


def _bias_gradient(g: Any, b: Any) -> Any:
    """db = Σ g over all but the channels, in b's dtype; of half precision in float32."""
    if isinstance(g, Variable):
        return sum(g, dim=(0, 2, 3)).to(b.dtype)
    dtype = float32 if is_low_precision(g.dtype) else g.dtype
    return np.add.reduce(widened(g), axis=(0, 2, 3), dtype=dtype).astype(b.dtype, copy=False)
