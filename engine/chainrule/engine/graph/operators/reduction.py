"""Reductions, extremes and running sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule.engine as cr
from chainrule.engine.dtypes import Array, is_floating
from chainrule.engine.errors import ShapeError
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.operators.sizes import integer, integers
from chainrule.engine.graph.registry import Compute, operator
from chainrule.engine.tensor import Tensor

Axes = tuple[int, ...]


def _sum(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    return cr.sum(x, axes, keep, dtype=x.dtype)


def _mean(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    if is_floating(x.dtype):
        return cr.mean(x, axes, keep)
    count = int(np.prod([x.shape[axis] for axis in axes]))
    return cr.div(_sum(x, axes, keep), count, rounding_mode="trunc").to(x.dtype)


def _prod(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = cr.prod(x, axis, keep, dtype=x.dtype)
    return x


_reductions: dict[str, Callable[[Tensor, Axes, bool], Tensor]] = {
    "ReduceL1": lambda x, axes, keep: _sum(cr.abs(x), axes, keep),
    "ReduceL2": lambda x, axes, keep: cr.norm(x, 2, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: cr.log(_sum(x, axes, keep)),
    "ReduceLogSumExp": lambda x, axes, keep: cr.logsumexp(x, axes, keep),
    "ReduceMax": lambda x, axes, keep: cr.amax(x, axes, keep),
    "ReduceMean": _mean,
    "ReduceMin": lambda x, axes, keep: cr.amin(x, axes, keep),
    "ReduceProd": _prod,
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
}
_later = sorted(_reductions.keys() - {"ReduceSum"})


@operator("ReduceSum", until=12)
@operator(*_later, until=17)
def reduce_by_attribute(node: Node) -> Compute:
    function, keep = _reductions[node.op], bool(node.int("keepdims", 1))
    axes = tuple(node.ints("axes", ()))
    return lambda x: _reduced(function, x, axes, keep, nothing=False)


@operator("ReduceSum", since=13, host=(1,))
@operator(*_later, since=18, host=(1,))
def reduce(node: Node) -> Compute:
    """Over the axes; over all if none are given, or over none with `noop_with_empty_axes`."""
    function, keep = _reductions[node.op], bool(node.int("keepdims", 1))
    nothing = bool(node.int("noop_with_empty_axes", 0))

    def compute(x: Tensor, axes: Array | None = None) -> Tensor:
        named = () if axes is None else tuple(integers(axes))
        return _reduced(function, x, named, keep, nothing=nothing)

    return compute


def _reduced(function: Callable[..., Tensor], x: Tensor, axes: Axes, keep: bool, *, nothing: bool) -> Tensor:
    if x.ndim == 0 or (nothing and not axes):  # squares and logarithms are taken all the same
        return function(x.reshape(1, *x.shape), (0,), False)
    return function(x, axes or tuple(range(x.ndim)), keep)


# ---- Where an extreme is ----


@operator("ArgMax", "ArgMin", itemsize=8)
def arg(node: Node) -> Compute:
    function = cr.argmax if node.op == "ArgMax" else cr.argmin
    axis, keep, last = node.int("axis", 0), bool(node.int("keepdims", 1)), bool(node.int("select_last_index", 0))

    def compute(x: Tensor) -> Tensor:
        if not last:
            return function(x, axis, keep)
        return (x.shape[axis] - 1) - function(cr.flip(x, axis), axis, keep)

    return compute


@operator("TopK", until=9, itemsize=16)
def top_k_by_attribute(node: Node) -> Compute:
    k, axis = node.int("k"), node.int("axis", -1)
    return lambda x: _top(x, k, axis, True)


@operator("TopK", since=10, host=(1,), itemsize=16)
def top_k(node: Node) -> Compute:
    axis, largest = node.int("axis", -1), bool(node.int("largest", 1))
    return lambda x, k: _top(x, integer(k), axis, largest)


def _top(x: Tensor, k: int, axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    values, indices = cr.topk(x, k, axis, largest)
    return values, indices


# ---- Running sums ----


@operator("CumSum", since=11, host=(1,))
@operator("CumProd", since=26, host=(1,))
def running(node: Node) -> Compute:
    """Σ or Π of the elements up to each, or with `exclusive` before it; from the end with `reverse`."""
    exclusive, backwards = bool(node.int("exclusive", 0)), bool(node.int("reverse", 0))
    function: Any = cr.cumsum if node.op == "CumSum" else cr.cumprod
    neutral = 0 if node.op == "CumSum" else 1

    def compute(x: Tensor, axis: Array) -> Tensor:
        dim = integer(axis)
        if not -x.ndim <= dim < x.ndim:
            raise ShapeError(f"axis {dim} of a tensor of {x.ndim} dimensions")
        y = cr.flip(x, dim) if backwards else x
        if exclusive and x.shape[dim]:
            first = cr.full_like(cr.narrow(y, dim, 0, 1), neutral)
            y = cr.cat([first, cr.narrow(y, dim, 0, y.shape[dim] - 1)], dim)
        y = function(y, dim, dtype=x.dtype)
        return cr.flip(y, dim) if backwards else y

    return compute
