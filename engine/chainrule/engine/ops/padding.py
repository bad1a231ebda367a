"""Margins around the last dimensions: of one value, or of what lies inside."""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.ops.op import Op, op

Shape = tuple[int, ...]
Margins = tuple[tuple[int, int], ...]
"""For each dimension how much is added before and behind; negative is cut off."""
Origins = tuple[Array | None, ...]
"""For each dimension, where each element comes from; None where nothing changes."""


# ---- Of one value ----


@op("ConstantPadNd", x=lambda g, margins: constant_pad(g, margins=_reversed(margins)))
def constant_pad(x: Any, *, margins: Margins, value: float = 0) -> Any:
    """`x` among elements of one value."""
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, margins, strict=True))
    y = np.full(shape, np.asarray(value).astype(x.dtype), x.dtype)
    inner = tuple(
        slice(max(0, -before), n - max(0, -after)) for n, (before, after) in zip(x.shape, margins, strict=True)
    )
    outer = tuple(slice(max(0, before), n - max(0, after)) for n, (before, after) in zip(shape, margins, strict=True))
    y[outer] = x[inner]
    return y


def _reversed(margins: Margins) -> Margins:
    return tuple((-before, -after) for before, after in margins)


# ---- Of what lies inside ----


def gathered(x: Array, *, origins: Origins) -> Array:
    """y[i, j, ...] = x[origins[0][i], origins[1][j], ...]"""
    for axis, origin in enumerate(origins):
        if origin is not None:
            x = x.take(origin, axis=axis)
    return x


def _padding(name: str) -> Op:
    gradient = lambda g, x_shape, origins: gather_back(g, shape=x_shape, origins=origins)
    return Op(name, gathered, {"x": gradient})


reflection_pad1d, reflection_pad2d, reflection_pad3d = (_padding(f"ReflectionPad{n}D") for n in (1, 2, 3))
replication_pad1d, replication_pad2d, replication_pad3d = (_padding(f"ReplicationPad{n}D") for n in (1, 2, 3))
circular_pad = _padding("CircularPad")


@op("PadBackward", x=lambda g, origins: circular_pad(g, origins=origins))
def gather_back(x: Any, *, shape: Shape, origins: Origins) -> Any:
    """The gradient of padding: zeros of `shape`, to which each element is added where it came from."""
    for axis, origin in enumerate(origins):
        if origin is not None:
            x = added_back(x, origin, shape[axis], axis)
    return x


def added_back(x: Array, origin: Array, size: int, axis: int) -> Array:
    """Along one dimension. In rounds, in each of which no origin comes twice: so the order of additions is fixed."""
    y = np.zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
    lead: tuple[Any, ...] = (slice(None),) * axis
    left = np.arange(len(origin))
    while len(left):
        _, first = np.unique(origin[left], return_index=True)
        now = left[np.sort(first)]
        y[(*lead, origin[now])] += x[(*lead, now)]
        left = np.setdiff1d(left, now, assume_unique=True)
    return y


def mirrored(size: int, before: int, after: int) -> Array:
    """Origins of a margin that mirrors the inside at the first and at the last element, which are not repeated."""
    place = np.abs(np.arange(-before, size + after))
    return np.where(place < size, place, 2 * (size - 1) - place)


def repeated(size: int, before: int, after: int) -> Array:
    """Origins of a margin that repeats the first and the last element."""
    return np.clip(np.arange(-before, size + after), 0, size - 1)


def wrapped(size: int, before: int, after: int) -> Array:
    """Origins of a margin that goes on at the other end; what is cut off is so before."""
    first, last = max(0, -before), size - max(0, -after)
    place = np.arange(-before, size + after)
    return (place - first) % max(1, last - first) + first
