"""Pooling: the largest or the average of each window."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

from typing import Any

from chainrule.engine import kernels
from chainrule.engine.dtypes import Array
from chainrule.engine.kernels.geometry import PoolGeometry
from chainrule.engine.ops.op import op

Shape = tuple[int, ...]


@op(
    "MaxPool2DWithIndices",
    saves=("offsets",),
    x=lambda g, x_shape, offsets, geometry: unpool(g, offsets=offsets, shape=x_shape, geometry=geometry),
)
def max_pool2d(x: Any, *, geometry: PoolGeometry) -> Any:
    """The largest of each window, with its place in it; of several the first, row by row, as in PyTorch."""
    y, offsets = kernels.max_pool2d(x, geometry)
    return y, {"offsets": offsets}


@op("MaxUnpool2D", x=lambda g, offsets, geometry: pick(g, offsets=offsets, geometry=geometry))
def unpool(x: Any, *, offsets: Array, shape: Shape, geometry: PoolGeometry) -> Any:
    """Zeros of `shape`, to which each element is added at its place in its window."""
    return kernels.unpool(x, offsets, shape, geometry)


@op(
    "PickFromWindows",
    x=lambda g, x_shape, offsets, geometry: unpool(g, offsets=offsets, shape=x_shape, geometry=geometry),
)
def pick(x: Any, *, offsets: Array, geometry: PoolGeometry) -> Any:
    """From each window the element at the given place."""
    return kernels.pick(x, offsets, geometry)


@op("AvgPool2D", x=lambda g, x_shape, geometry: avg_unpool(g, shape=x_shape, geometry=geometry))
def avg_pool2d(x: Any, *, geometry: PoolGeometry) -> Any:
    """The average of each window."""
    return kernels.avg_pool2d(x, geometry)


@op("AvgUnpool2D", x=lambda g, geometry: avg_pool2d(g, geometry=geometry))
def avg_unpool(x: Any, *, shape: Shape, geometry: PoolGeometry) -> Any:
    """The gradient of avg_pool2d: each element spread evenly over its window."""
    return kernels.avg_unpool(x, shape, geometry)
