"""Shapes: what has which, and the same elements in another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

import chainrule.engine as cr
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array
from chainrule.engine.errors import DimensionError, ShapeError
from chainrule.engine.functions.shapes import broadcast_shapes
from chainrule.engine.graph.errors import Refused
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.operators.sizes import integer, integers, lengths, product
from chainrule.engine.graph.registry import Bounded, Compute, bounded, operator
from chainrule.engine.graph.tensors import DTYPES
from chainrule.engine.nn import functional as F
from chainrule.engine.tensor import Tensor

# ---- What it is ----


@operator("Identity")
def identity(node: Node) -> Compute:  # noqa: ARG001
    return lambda x: x


@operator("Shape", of_shape=True)
def shape(node: Node) -> Compute:
    part = slice(node.int("start", 0), node.int("end") if node.has("end") else None)
    return lambda x: Variable.wrap(np.array(x.shape[part], np.int64))


@operator("Size", of_shape=True)
def size(node: Node) -> Compute:  # noqa: ARG001
    return lambda x: Variable.wrap(np.array(x.numel(), np.int64))


# ---- The same elements in another shape ----


@operator("Reshape", since=5, host=(1,))
def reshape(node: Node) -> Compute:
    """0 keeps a length, unless `allowzero`; -1 is what is left."""
    literal = bool(node.int("allowzero", 0))

    def compute(x: Tensor, shape: Array) -> Tensor:
        wanted = integers(shape)
        if not literal:
            if any(n == 0 and i >= x.ndim for i, n in enumerate(wanted)):
                raise ShapeError(f"shape {wanted} keeps a dimension that {list(x.shape)} does not have")
            wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
        return cr.reshape(x, tuple(wanted))

    return compute


@operator("Flatten")
def flatten(node: Node) -> Compute:
    """To a matrix: what is in front of the axis, and what is behind it."""
    axis = node.int("axis", 1)

    def compute(x: Tensor) -> Tensor:
        split = axis + x.ndim if axis < 0 else axis
        return cr.reshape(x, (product(x.shape[:split]), product(x.shape[split:])))

    return compute


@operator("Squeeze", until=12)
def squeeze_by_attribute(node: Node) -> Compute:
    axes = tuple(node.ints("axes")) if node.has("axes") else None
    return lambda x: _squeezed(x, axes)


@operator("Squeeze", since=13, host=(1,))
def squeeze(node: Node) -> Compute:  # noqa: ARG001
    return lambda x, axes=None: _squeezed(x, None if axes is None else tuple(integers(axes)))


def _squeezed(x: Tensor, axes: tuple[int, ...] | None) -> Tensor:
    wide = [axis for axis in axes or () if x.shape[axis] != 1]
    if wide:
        raise ShapeError(f"axis {wide[0]} has the length {x.shape[wide[0]]}; only one of length 1 can go")
    return cr.squeeze(x, axes)


@operator("Unsqueeze", until=12)
def unsqueeze_by_attribute(node: Node) -> Compute:
    axes = node.ints("axes")
    return lambda x: _unsqueezed(x, axes)


@operator("Unsqueeze", since=13, host=(1,))
def unsqueeze(node: Node) -> Compute:  # noqa: ARG001
    return lambda x, axes: _unsqueezed(x, integers(axes))


def _unsqueezed(x: Tensor, axes: Sequence[int]) -> Tensor:
    ndim = x.ndim + len(axes)
    places = {_axis(axis, ndim) for axis in axes}
    if len(places) < len(axes):
        raise ShapeError(f"axes {list(axes)} name one twice")
    left = iter(x.shape)
    return cr.reshape(x, tuple(1 if i in places else next(left) for i in range(ndim)))


def _axis(axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise DimensionError(f"axis {axis} of a tensor of {ndim} dimensions")
    return axis % ndim


# ---- Elements in another order ----


@operator("Transpose")
def transpose(node: Node) -> Compute:
    order = tuple(node.ints("perm")) if node.has("perm") else None
    return lambda x: cr.permute(x, order or tuple(range(x.ndim))[::-1])


@operator("DepthToSpace")
def depth_to_space(node: Node) -> Compute:
    """(N, C · b², H, W) to (N, C, H · b, W · b); C is first or last among the channels: mode CRD or DCR."""
    b, columns_first = _block(node), node.one_of("mode", ("DCR", "CRD"), "DCR") == "CRD"

    def compute(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if columns_first:
            parts = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
        else:
            parts = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return parts.reshape(n, c // b**2, h * b, w * b)

    return compute


@operator("SpaceToDepth")
def space_to_depth(node: Node) -> Compute:
    """(N, C, H · b, W · b) to (N, b² · C, H, W)"""
    b = _block(node)

    def compute(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
        return parts.reshape(n, c * b * b, h // b, w // b)

    return compute


def _block(node: Node) -> int:
    b = node.int("blocksize")
    if not 1 <= b <= 2**15:
        raise node.error(f"blocksize is {b}")
    return b


# ---- Repeated ----


@operator("Expand", since=8, host=(1,))
def expand(node: Node) -> Bounded:  # noqa: ARG001
    def wanted(x: Tensor, shape: Array) -> tuple[int, ...]:
        return broadcast_shapes(x.shape, lengths(shape))

    return bounded(lambda x, shape: x.expand(wanted(x, shape)), lambda x, shape: product(wanted(x, shape)))


@operator("Tile", since=6, host=(1,))
def tile(node: Node) -> Bounded:  # noqa: ARG001
    def elements(x: Tensor, repeats: Array) -> int:
        return x.numel() * product(lengths(repeats))

    return bounded(lambda x, repeats: cr.tile(x, lengths(repeats)), elements)


# ---- Together and apart ----


@operator("Concat", since=4)
def concat(node: Node) -> Bounded:
    axis = node.int("axis")
    return bounded(lambda *x: cr.cat(x, axis) if len(x) > 1 else x[0], lambda *x: sum(one.numel() for one in x))


@operator("Split", since=2, until=12)
def split_by_attribute(node: Node) -> Compute:
    axis, count = node.int("axis", 0), len(node.outputs)
    sections = node.ints("split") if node.has("split") else None
    return lambda x: _split(x, sections, axis, count)


@operator("Split", since=13, host=(1,))
def split(node: Node) -> Compute:
    axis, count = node.int("axis", 0), node.int("num_outputs", len(node.outputs))
    if count != len(node.outputs):
        raise node.error(f"num_outputs is {count}, and it has {len(node.outputs)} outputs")
    return lambda x, sections=None: _split(x, None if sections is None else lengths(sections), axis, count)


def _split(x: Tensor, sections: Sequence[int] | None, axis: int, count: int) -> tuple[Tensor, ...]:
    """Into the given lengths; else equally, the last part being shorter."""
    if sections is None:
        each, length = -(-x.shape[axis] // count), x.shape[axis]
        sections = [max(0, min(each, length - i * each)) for i in range(count)]
    if len(sections) != count:
        raise ShapeError(f"{len(sections)} lengths for {count} outputs")
    return cr.split(x, list(sections), axis)


# ---- Margins ----

_modes = ("constant", "reflect", "edge", "wrap")


@operator("Pad", since=2, until=10)
def pad_by_attribute(node: Node) -> Bounded:
    mode, pads = node.one_of("mode", _modes, "constant"), node.ints("pads")
    value = node.float("value", 0.0)
    return bounded(
        lambda x: _padded(x, _margins(x, pads, None), mode, value), lambda x: _padded_size(x, _margins(x, pads, None))
    )


@operator("Pad", since=11, host=(1, 2, 3))
def pad(node: Node) -> Bounded:
    mode = node.one_of("mode", _modes, "constant")

    def margins(x: Tensor, pads: Array, axes: Array | None) -> list[tuple[int, int]]:
        return _margins(x, integers(pads), None if axes is None else integers(axes))

    def compute(x: Tensor, pads: Array, value: Array | None = None, axes: Array | None = None) -> Tensor:
        filling = value.reshape(-1)[0].item() if value is not None and value.size else 0
        return _padded(x, margins(x, pads, axes), mode, filling)

    def elements(x: Tensor, pads: Array, value: Array | None = None, axes: Array | None = None) -> int:  # noqa: ARG001
        return _padded_size(x, margins(x, pads, axes))

    return bounded(compute, elements)


def _margins(x: Tensor, pads: Sequence[int], axes: Sequence[int] | None) -> list[tuple[int, int]]:
    """Before and behind each dimension."""
    named = list(range(x.ndim)) if axes is None else [_axis(axis, x.ndim) for axis in axes]
    if len(pads) != 2 * len(named):
        raise ShapeError(f"{len(pads)} margins for {len(named)} axes; there have to be two for each")
    found = dict.fromkeys(range(x.ndim), (0, 0))
    for i, axis in enumerate(named):
        found[axis] = (pads[i], pads[i + len(named)])
    return list(found.values())


def _padded_size(x: Tensor, margins: Sequence[tuple[int, int]]) -> int:
    return product(max(n, n + before + behind) for n, (before, behind) in zip(x.shape, margins, strict=True))


def _padded(x: Tensor, margins: list[tuple[int, int]], mode: str, value: float) -> Tensor:
    if mode == "constant":
        return F.pad(x, [n for margin in margins[::-1] for n in margin], value=value)
    inner = next((i for i, margin in enumerate(margins) if margin != (0, 0)), x.ndim)
    if mode in ("reflect", "edge") and x.ndim - inner in (1, 2, 3) and inner in (1, 2):
        flat = [n for margin in margins[inner:][::-1] for n in margin]
        return F.pad(x, flat, "replicate" if mode == "edge" else mode)
    for axis, (before, behind) in enumerate(margins):
        if (before, behind) != (0, 0):
            positions = np.pad(np.arange(x.shape[axis]), (max(before, 0), max(behind, 0)), mode=mode)  # type: ignore[call-overload]
            positions = positions[max(-before, 0) : len(positions) - max(-behind, 0)]
            x = cr.index_select(x, axis, Variable.wrap(positions))
    return x


# ---- Made from a shape ----


@operator("ConstantOfShape", since=9, host=(0,))
def constant_of_shape(node: Node) -> Bounded:
    value = node.tensor("value", np.zeros(1, np.float32))
    if value.size != 1:
        raise node.error(f"its value has {value.size} elements, not one")
    return bounded(
        lambda shape: Variable.wrap(np.full(lengths(shape), value.reshape(()))), lambda shape: product(lengths(shape))
    )


@operator("EyeLike", since=9, of_shape=True, itemsize=8)
def eye_like(node: Node) -> Compute:
    offset, code = node.int("k", 0), node.int("dtype", -1)
    if code != -1 and code not in DTYPES:
        raise Refused(f"data type {code} is not supported")

    def compute(x: Tensor) -> Tensor:
        rows, columns = x.shape
        dtype = x.dtype if code == -1 else DTYPES[code]
        return Variable.wrap(np.eye(rows, columns, max(min(offset, columns), -rows), dtype=dtype))

    return compute


@operator("Range", since=11, host=(0, 1, 2))
def range_(node: Node) -> Bounded:  # noqa: ARG001
    """start, start + delta, … up to limit, without it"""

    def count(start: Array, limit: Array, delta: Array) -> int:
        first, last, step = (float(n.reshape(-1)[0]) for n in (start, limit, delta))
        if not step or not all(map(math.isfinite, (first, last, step))):
            raise ShapeError(f"from {first} to {last} in steps of {step}")
        return max(0, math.ceil((last - first) / step))

    def compute(start: Array, limit: Array, delta: Array) -> Tensor:
        first, step = start.reshape(-1)[0], delta.reshape(-1)[0]
        steps = np.arange(count(start, limit, delta))
        return Variable.wrap((first + steps * step).astype(start.dtype))

    return bounded(compute, count)


@operator("Constant")
def constant(node: Node) -> Compute:
    """One of: value, value_float, value_floats, value_int, value_ints."""
    if node.has("value"):
        array = node.tensor("value")
    elif node.has("value_float"):
        array = np.array(node.float("value_float"), np.float32)
    elif node.has("value_floats"):
        array = np.array(node.floats("value_floats"), np.float32)
    elif node.has("value_int"):
        array = np.array(node.int("value_int"), np.int64)
    elif node.has("value_ints"):
        array = np.array(node.ints("value_ints"), np.int64)
    else:
        raise Refused("a constant that is text or sparse")
    return lambda: Variable.wrap(array)


@operator("SequencePart", domain="chainrule", host=(1, 2))
def sequence_part(node: Node) -> Compute:
    """One part of a tensor that is split: what `rewriting` makes of SplitToSequence and SequenceAt."""
    axis, keep = node.int("axis", 0), bool(node.int("keepdims", 1))

    def compute(x: Tensor, position: Array, sections: Array | None = None) -> Tensor:
        dim, which = _axis(axis, x.ndim), integer(position)
        if sections is not None and sections.ndim:
            each = lengths(sections)
        else:
            size = 1 if sections is None else integer(sections)
            if size < 1:
                raise ShapeError(f"parts of length {size}")
            each = tuple(min(size, x.shape[dim] - start) for start in range(0, x.shape[dim], size))
        if not -len(each) <= which < len(each):
            raise DimensionError(f"part {which} of {len(each)}")
        which %= len(each)
        part = cr.narrow(x, dim, sum(each[:which]), each[which])
        return cr.squeeze(part, dim) if sections is None and not keep else part

    return compute
