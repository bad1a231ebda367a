"""Images made larger or smaller: each element is the nearest one, or a mean of the neighbours, of the input."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.ops.op import Op, op
from chainrule.engine.ops.padding import added_back, gather_back, gathered

Shape = tuple[int, ...]
Neighbours = tuple[tuple[Array, Array, Array] | None, ...]
"""For each dimension the neighbours before and behind, and the share of the one behind; None where nothing changes."""


def _nearest(name: str) -> Op:
    gradient = lambda g, x_shape, origins: gather_back(g, shape=x_shape, origins=origins)
    return Op(name, gathered, {"x": gradient})


upsample_nearest1d, upsample_nearest2d = _nearest("UpsampleNearest1D"), _nearest("UpsampleNearest2D")


def _weighted(x: Array, *, neighbours: Neighbours) -> Array:
    """y[i] = (1 − t[i]) · x[before[i]] + t[i] · x[behind[i]], along each dimension."""
    for axis, neighbour in enumerate(neighbours):
        if neighbour is not None:
            before, behind, share = neighbour
            t = _along(share, axis, x)
            x = x.take(before, axis=axis) * (1 - t) + x.take(behind, axis=axis) * t
    return x


def _linear(name: str) -> Op:
    gradient = lambda g, x_shape, neighbours: resample_back(g, shape=x_shape, neighbours=neighbours)
    return Op(name, _weighted, {"x": gradient})


upsample_linear1d, upsample_bilinear2d = _linear("UpsampleLinear1D"), _linear("UpsampleBilinear2D")


@op("UpsampleLinearBackward", x=lambda g, neighbours: upsample_bilinear2d(g, neighbours=neighbours))
def resample_back(x: Any, *, shape: Shape, neighbours: Neighbours) -> Any:
    """The gradient of linear resampling: zeros of `shape`, to which each element is added where it came from."""
    for axis, neighbour in enumerate(neighbours):
        if neighbour is not None:
            before, behind, share = neighbour
            t = _along(share, axis, x)
            x = added_back(x * (1 - t), before, shape[axis], axis) + added_back(x * t, behind, shape[axis], axis)
    return x


def _along(share: Array, axis: int, x: Array) -> Array:
    return share.astype(x.dtype).reshape(-1, *[1] * (x.ndim - axis - 1))


def nearest_origins(size: int, wanted: int, step: float, *, exact: bool) -> Array:
    """⌊i · step⌋, or with `exact` ⌊(i + ½) · step⌋, in float32 as in PyTorch."""
    place = np.arange(wanted, dtype=np.float32) + np.float32(0.5 if exact else 0)
    return np.minimum((place * np.float32(step)).astype(np.int64), size - 1)


def linear_neighbours(size: int, wanted: int, step: float, *, align_corners: bool) -> tuple[Array, Array, Array]:
    """The neighbours of (i + ½) · step − ½, or with `align_corners` of i · step."""
    place = np.arange(wanted) * step if align_corners else np.maximum((np.arange(wanted) + 0.5) * step - 0.5, 0)
    before = np.minimum(place.astype(np.int64), size - 1)
    return before, np.minimum(before + 1, size - 1), np.clip(place - before, 0, 1)
