"""Convolution and its two gradients: three bilinear operations, each the gradient of the others."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

from typing import Any

from chainrule.engine import kernels
from chainrule.engine.kernels.geometry import ConvGeometry
from chainrule.engine.ops.op import op
from chainrule.engine.ops.reduction import sum

Shape = tuple[int, ...]


@op(
    "Convolution",
    native=True,
    x=lambda g, x_shape, w, geometry: conv2d_input(g, w, shape=x_shape, geometry=geometry),
    w=lambda g, x, w_shape, geometry: conv2d_weight(g, x, shape=w_shape, geometry=geometry),
    b=lambda g: sum(g, dim=(0, 2, 3)),
)
def conv2d(x: Any, w: Any, b: Any = None, *, geometry: ConvGeometry) -> Any:
    """y = x ⋆ w + b, with x (N, C, H, W), w (O, C / groups, KH, KW), b (O) or None, y (N, O, OH, OW)."""
    return kernels.conv2d(x, w, b, geometry)


@op(
    "Convolution",
    native=True,
    dy=lambda g, w, geometry: conv2d(g, w, geometry=geometry),
    w=lambda g, dy, w_shape, geometry: conv2d_weight(dy, g, shape=w_shape, geometry=geometry),
    b=lambda g: sum(g, dim=(0, 2, 3)),
)
def conv2d_input(dy: Any, w: Any, b: Any = None, *, shape: Shape, geometry: ConvGeometry) -> Any:
    """The gradient of conv2d by its input, which has the given shape; plus b (C), the transposed convolution."""
    dx = kernels.conv2d_input(dy, w, shape, geometry)
    if b is not None:
        dx += b[:, None, None]
    return dx


@op(
    "ConvolutionWeight",
    native=True,
    dy=lambda g, x, geometry: conv2d(x, g, geometry=geometry),
    x=lambda g, dy, x_shape, geometry: conv2d_input(dy, g, shape=x_shape, geometry=geometry),
)
def conv2d_weight(dy: Any, x: Any, *, shape: Shape, geometry: ConvGeometry) -> Any:
    """The gradient of conv2d by its weight, which has the given shape."""
    return kernels.conv2d_weight(dy, x, shape, geometry)
