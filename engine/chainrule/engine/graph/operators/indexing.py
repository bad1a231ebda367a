"""Elements picked and put by position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import chainrule.engine as cr
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, int64, is_floating
from chainrule.engine.errors import DimensionError, ShapeError
from chainrule.engine.graph.errors import Refused
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.operators.sizes import integer, integers, product
from chainrule.engine.graph.registry import Bounded, Compute, bounded, operator
from chainrule.engine.nn import functional as F
from chainrule.engine.tensor import Tensor

# ---- Parts ----


@operator("Slice", until=9)
def slice_by_attribute(node: Node) -> Compute:
    starts, ends = node.ints("starts"), node.ints("ends")
    axes = node.ints("axes", list(range(len(starts))))
    return lambda x: _sliced(x, starts, ends, axes, [1] * len(starts))


@operator("Slice", since=10, host=(1, 2, 3, 4))
def slice_(node: Node) -> Compute:  # noqa: ARG001
    def compute(x: Tensor, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None) -> Tensor:
        first = integers(starts)
        named = list(range(len(first))) if axes is None else integers(axes)
        return _sliced(x, first, integers(ends), named, [1] * len(first) if steps is None else integers(steps))

    return compute


def _sliced(x: Tensor, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]) -> Tensor:
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ShapeError(f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes and {len(steps)} steps")
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if not -x.ndim <= axis < x.ndim or not step:
            raise DimensionError(f"a slice of axis {axis} in steps of {step}, of a tensor of {x.ndim} dimensions")
        length = x.shape[axis]
        if step > 0:
            index[axis] = slice(*slice(start, end, step).indices(length))
            continue
        first, last, stride = slice(start, max(end, -length - 1), step).indices(length)
        x = cr.flip(x, axis)
        index[axis] = slice(length - 1 - first, length - 1 - last, -stride)
    return x[tuple(index)]


@operator("Trilu", since=14, host=(1,))
def trilu(node: Node) -> Compute:
    upper = node.int("upper", 1)

    def compute(x: Tensor, k: Array | None = None) -> Tensor:
        diagonal = 0 if k is None else integer(k)
        diagonal = max(min(diagonal, x.shape[-1]), -x.shape[-2])
        return cr.triu(x, diagonal) if upper else cr.tril(x, diagonal)

    return compute


# ---- Picked ----


@operator("Gather", weights=(0,))
def gather(node: Node) -> Bounded:
    """What lies at the indices along an axis: rows of an embedding, for one."""
    axis = node.int("axis", 0)

    def compute(x: Tensor, indices: Tensor) -> Tensor:
        dim = axis % x.ndim if -x.ndim <= axis < x.ndim else axis
        if indices.ndim == 0:
            return cr.moveaxis(x, dim, 0)[int(indices.data)] if dim else x[int(indices.data)]
        positions = _counted(indices.data, x.shape[dim], dim)
        if dim == 0 and x.ndim == 2 and is_floating(x.dtype):
            return F.embedding(Variable.wrap(positions), x)
        picked = cr.index_select(x, dim, Variable.wrap(positions.reshape(-1)))
        return picked if indices.ndim == 1 else picked.reshape(*x.shape[:dim], *indices.shape, *x.shape[dim + 1 :])

    return bounded(compute, lambda x, indices: x.numel() // max(x.shape[axis], 1) * indices.numel())


@operator("GatherElements", since=11)
def gather_elements(node: Node) -> Bounded:
    axis = node.int("axis", 0)

    def compute(x: Tensor, indices: Tensor) -> Tensor:
        return cr.gather(x, axis, Variable.wrap(_counted(indices.data, x.shape[axis], axis)))

    return bounded(compute, lambda x, indices: indices.numel())  # noqa: ARG005


@operator("GatherND", since=11)
def gather_nd(node: Node) -> Bounded:
    batch = node.int("batch_dims", 0)

    def compute(x: Tensor, indices: Tensor) -> Tensor:
        return x[tuple(map(Variable.wrap, _index_arrays(x, indices.data, batch)))]

    def elements(x: Tensor, indices: Tensor) -> int:
        return indices.numel() // max(indices.shape[-1], 1) * product(x.shape[batch + indices.shape[-1] :])

    return bounded(compute, elements)


def _counted(indices: Array, length: int, axis: int) -> Array:
    """Indices counted from the beginning.

    Raises:
        DimensionError: one is out of bounds.
    """
    wrong = (indices < -length) | (indices >= length)
    if wrong.any():
        raise DimensionError(f"index {indices[wrong].flat[0]} is out of bounds for axis {axis} of length {length}")
    return np.where(indices < 0, indices + length, indices).astype(int64)


def _index_arrays(x: Tensor, indices: Array, batch: int = 0) -> list[Array]:
    """One array for each dimension that rows of `indices` name, with those of the batch in front."""
    named = indices.shape[-1]
    if batch + named > x.ndim or indices.shape[:batch] != x.shape[:batch]:
        raise ShapeError(f"indices of shape {list(indices.shape)} with {batch} dimensions of batch")
    arrays = [_counted(indices[..., i], x.shape[batch + i], batch + i) for i in range(named)]
    around = indices.ndim - 1
    places = [np.arange(x.shape[i]).reshape(-1, *(1,) * (around - i - 1)) for i in range(batch)]
    return [np.broadcast_to(place, indices.shape[:-1]) for place in places] + arrays


@operator("Compress", since=9, dynamic=True)
def compress(node: Node) -> Compute:
    axis = node.int("axis") if node.has("axis") else None

    def compute(x: Tensor, condition: Tensor) -> Tensor:
        whole = x.reshape(-1) if axis is None else x
        dim = 0 if axis is None else axis
        positions = np.flatnonzero(condition.data[: whole.shape[dim]])
        return cr.index_select(whole, dim, Variable.wrap(positions))

    return compute


@operator("NonZero", since=9, dynamic=True, itemsize=8)
def nonzero(node: Node) -> Bounded:  # noqa: ARG001
    """A row of indices for each dimension."""

    def compute(x: Tensor) -> Tensor:
        return Variable.wrap(np.stack(np.atleast_1d(x.data).nonzero()).astype(int64))

    return bounded(compute, lambda x: 2 * x.numel() * max(x.ndim, 1))


# ---- Put ----


@operator("Scatter", since=9, until=10)
@operator("ScatterElements", since=11)
def scatter_elements(node: Node) -> Compute:
    axis, how = node.int("axis", 0), node.string("reduction", "none")
    if how not in ("none", "add"):
        raise Refused(f"reduction={how}; only none and add have a gradient here")

    def compute(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        positions = Variable.wrap(_counted(indices.data, x.shape[axis], axis))
        return (cr.scatter_add if how == "add" else cr.scatter)(x, axis, positions, updates)

    return compute


@operator("ScatterND", since=11)
def scatter_nd(node: Node) -> Compute:
    how = node.string("reduction", "none")
    if how not in ("none", "add"):
        raise Refused(f"reduction={how}; only none and add have a gradient here")

    def compute(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        places = list(map(Variable.wrap, _index_arrays(x, indices.data)))
        return cr.index_put(x, places, updates, accumulate=how == "add")

    return compute


# ---- Classes ----


@operator("OneHot", since=9, host=(1, 2), itemsize=8)
def one_hot(node: Node) -> Bounded:
    """values[1] where the index is, values[0] elsewhere; an index out of bounds is nowhere."""
    axis = node.int("axis", -1)

    def compute(indices: Tensor, depth: Array, values: Array) -> Tensor:
        classes = _depth(depth)
        if classes < 0 or values.size != 2 or not -indices.ndim - 1 <= axis <= indices.ndim:
            raise ShapeError(f"{classes} classes along axis {axis}, with {values.size} values")
        positions = indices.data.astype(int64)
        counted = np.where(positions < 0, positions + classes, positions)
        hits = np.expand_dims(counted, axis) == np.arange(classes).reshape(
            -1, *(1,) * (indices.ndim - axis % (indices.ndim + 1))
        )
        return Variable.wrap(np.where(hits, values[1], values[0]).astype(values.dtype, copy=False))

    return bounded(compute, lambda indices, depth, values: indices.numel() * max(_depth(depth), 0))  # noqa: ARG005


def _depth(depth: Array) -> int:
    """ONNX lets it be a float."""
    number = depth.reshape(-1)[0]
    if int(number) != number:
        raise ShapeError(f"{number} classes")
    return int(number)
