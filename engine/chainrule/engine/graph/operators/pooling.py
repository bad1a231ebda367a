"""The largest, the average, or the norm, of each window or of the whole image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array, is_floating
from chainrule.engine.graph.errors import Refused
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.operators.windows import WindowAttributes, Windows, padded
from chainrule.engine.graph.registry import Bounded, Compute, bounded, operator
from chainrule.engine.nn import functional as F
from chainrule.engine.tensor import Tensor

# ---- Of each window ----


@operator("MaxPool")
def max_pool(node: Node) -> Bounded:
    """The largest of each window of x (N, C, L) or (N, C, H, W), and as second output its place in all of x."""
    attributes, ceil_mode = WindowAttributes(node, kernel=True), bool(node.int("ceil_mode", 0))
    indices = len(node.outputs) > 1 and node.outputs[1] != ""
    if indices and (node.int("storage_order", 0) or attributes.auto_pad.startswith("SAME")):
        raise Refused("the output Indices with auto_pad, or in column-major order")

    def compute(x: Tensor) -> Any:
        at = attributes.over(x.shape[2:])
        pool = F.max_pool1d if len(at.size) == 1 else F.max_pool2d
        if not at.narrow:
            if indices:
                raise node.error(f"the output Indices where pads are {[*at.before, *at.behind]}")
            lowest = -math.inf if is_floating(x.dtype) else float(np.iinfo(x.dtype).min)
            return pool(
                padded(x, at.before, _reach(node, x.shape[2:], at, ceil_mode), lowest),
                at.size,
                at.stride,
                0,
                at.dilation,
            )
        if not indices:
            return pool(x, at.size, at.stride, at.before, at.dilation, ceil_mode)
        y, places = pool(x, at.size, at.stride, at.before, at.dilation, ceil_mode, True)
        planes = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * len(at.size))
        return y, Tensor(places.data + planes * math.prod(x.shape[2:]))

    return bounded(compute, _elements(node, attributes, ceil_mode))


@operator("AveragePool")
def average_pool(node: Node) -> Bounded:
    """The average of each window of x (N, C, L) or (N, C, H, W); with `count_include_pad` zeros of the margin count.

    Of more dimensions if windows are longer than 1 along the first only, as PyTorch writes LocalResponseNorm.
    """
    if _is_of_columns(node):
        return _average_of_columns(node)
    attributes, ceil_mode = WindowAttributes(node, kernel=True), bool(node.int("ceil_mode", 0))
    count_include_pad = bool(node.int("count_include_pad", 0))
    _check_dense(attributes)

    def compute(x: Tensor) -> Tensor:
        at = attributes.over(x.shape[2:])
        if at.narrow:
            pool = F.avg_pool1d if len(at.size) == 1 else F.avg_pool2d
            return pool(x, at.size, at.stride, at.before, ceil_mode, count_include_pad)
        reach = _reach(node, x.shape[2:], at, ceil_mode)
        shares = _shares(x.shape[2:], at, reach, count_include_pad)
        return _sums(x, at, reach) * Tensor(shares.astype(x.dtype))

    return bounded(compute, _elements(node, attributes, ceil_mode))


def _is_of_columns(node: Node) -> bool:
    size, strides, pads = node.ints("kernel_shape"), node.ints("strides", []), node.ints("pads", [])
    dims = len(size)
    ends = [n for i, n in enumerate(pads) if i % dims] if dims else []
    return dims > 2 and not any(n != 1 for n in size[1:]) and not any(n != 1 for n in strides[1:]) and not any(ends)


def _average_of_columns(node: Node) -> Bounded:
    """With the dimensions behind the first made one."""
    pads, dims = node.ints("pads", []), len(node.ints("kernel_shape"))
    attributes = {
        **node.attributes,
        "kernel_shape": [node.ints("kernel_shape")[0], 1],
        "strides": [node.ints("strides", [1])[0], 1],
        "dilations": [*node.ints("dilations", [1])[:1], 1],
        "pads": [pads[0], 0, pads[dims], 0] if len(pads) == 2 * dims else [],
    }
    inner = average_pool(replace(node, attributes=attributes))

    def flat(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:3], math.prod(x.shape[3:]))

    def compute(x: Tensor) -> Tensor:
        y: Tensor = inner.compute(flat(x))
        return y.reshape(*y.shape[:3], *x.shape[3:])

    return bounded(compute, lambda x: inner.elements(flat(x)))


@operator("LpPool", since=2)
def lp_pool(node: Node) -> Bounded:
    """(Σ |x|ᵖ)^(1/p) over each window of x (N, C, L) or (N, C, H, W)."""
    attributes, ceil_mode, p = WindowAttributes(node, kernel=True), bool(node.int("ceil_mode", 0)), node.int("p", 2)
    _check_dense(attributes)

    def compute(x: Tensor) -> Tensor:
        at = attributes.over(x.shape[2:])
        return _sums(x.abs().pow(p), at, _reach(node, x.shape[2:], at, ceil_mode)).pow(1 / p)

    return bounded(compute, _elements(node, attributes, ceil_mode))


def _check_dense(attributes: WindowAttributes) -> None:
    if any(n > 1 for n in attributes.dilations):
        raise Refused("dilations other than 1 where windows are added up")


def _elements(node: Node, attributes: WindowAttributes, ceil_mode: bool) -> Callable[[Tensor], int]:
    """Of the image with its margins, which are more than its places."""

    def elements(x: Tensor) -> int:
        at = attributes.over(x.shape[2:])
        reach = _reach(node, x.shape[2:], at, ceil_mode)
        size = [n + max(i, 0) + max(j, 0) for n, i, j in zip(x.shape[2:], at.before, reach, strict=True)]
        return math.prod(x.shape[:2]) * math.prod(size)

    return elements


def _reach(node: Node, image: Sequence[int], at: Windows, ceil_mode: bool) -> list[int]:
    """How much margin behind the image the windows need; less than none where the last one ends before."""
    reach = []
    for n, s, extent, before, behind in zip(image, at.stride, at.extent, at.before, at.behind, strict=True):
        room = n + before + behind - extent
        places = -(-room // s) + 1 if ceil_mode else room // s + 1
        if ceil_mode and (places - 1) * s >= n + before:  # it would begin in the margin behind
            places -= 1
        if places < 1:
            raise node.error(f"a window reaches over {extent} elements, of {n} with margins of {before} and {behind}")
        reach.append((places - 1) * s + extent - n - before)
    return reach


def _sums(x: Tensor, at: Windows, reach: Sequence[int]) -> Tensor:
    """The sum of each window, zeros beyond the image."""
    x = padded(x, at.before, reach)
    if len(at.size) == 2:
        return F.avg_pool2d(x, at.size, at.stride, divisor_override=1)
    return F.avg_pool2d(x.unsqueeze(2), (1, *at.size), (1, *at.stride), divisor_override=1).squeeze(2)


def _shares(image: Sequence[int], at: Windows, reach: Sequence[int], count_include_pad: bool) -> Array:
    """1 / the elements that each window counts: what is beyond the margin behind never is."""
    counts: Array = np.ones(())
    for n, k, s, before, behind, end in zip(image, at.size, at.stride, at.before, at.behind, reach, strict=True):
        counted = np.zeros(n + before + max(behind, end))
        counted[: n + before + behind] = count_include_pad
        counted[before : before + n] = 1
        starts = np.arange(0, n + before + end - k + 1, s)
        counts = np.multiply.outer(counts, counted[starts[:, None] + np.arange(k)].sum(1))
    return 1 / counts


# ---- Of the whole image ----


@operator("GlobalAveragePool")
def global_average_pool(_: Node) -> Compute:
    """The mean over all dimensions of x (N, C, ...) but the first two, which stay as 1."""
    return lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(_: Node) -> Compute:
    """The largest over all dimensions of x (N, C, ...) but the first two; the first of equal ones has the gradient."""

    def compute(x: Tensor) -> Any:
        row = x.reshape(*x.shape[:2], 1, -1)
        return F.adaptive_max_pool2d(row, 1).reshape(*x.shape[:2], *[1] * (x.ndim - 2))

    return compute


@operator("GlobalLpPool", since=2)
def global_lp_pool(node: Node) -> Compute:
    """(Σ |x|ᵖ)^(1/p) over all dimensions of x (N, C, ...) but the first two."""
    p = node.int("p", 2)
    return lambda x: x.abs().pow(p).sum(tuple(range(2, x.ndim)), keepdim=True).pow(1 / p)
