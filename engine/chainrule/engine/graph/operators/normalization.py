"""Normalisation of batches, examples, groups of channels, layers, neighbours, vectors."""

from __future__ import annotations

import math
from typing import Any

from chainrule.engine.graph.errors import Refused
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.program import Run
from chainrule.engine.graph.registry import Compute, operator
from chainrule.engine.nn import functional as F
from chainrule.engine.tensor import Tensor


@operator("BatchNormalization", since=7, stateful=True, weights=(3, 4))
def batch_normalization(node: Node) -> Compute:
    """By a module that keeps the statistics; `roles` finds them, and has put its path among the attributes."""
    if node.int("spatial", 1) != 1:
        raise Refused("spatial=0 has statistics for every position; use one for every channel")
    if any(node.outputs[1:]):
        raise Refused("the statistics that it gives are used by the graph; only its first output can be")
    if not node.has("path"):
        raise Refused("its running mean and variance are not initialisers; they have to be, to be learnt from batches")
    path = node.string("path")
    rectify = bool(node.int("rectify", 0))

    def compute(run: Run, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        module = run.module(path)
        y: Tensor = module.normalised(x, rectify=True) if rectify else module(x)
        if scale is None or shift is None:
            return y
        around = (1, -1, *(1,) * (x.ndim - 2))
        return y * scale.reshape(around) + shift.reshape(around)

    return compute


@operator("InstanceNormalization", since=6)
def instance_normalization(node: Node) -> Compute:
    """y = w · (x − μ) / √(σ² + ε) + b for each channel of each example of x (N, C, ...)."""
    epsilon = node.float("epsilon", 1e-5)
    return lambda x, w, b: F.instance_norm(x, weight=w, bias=b, eps=epsilon)


@operator("GroupNormalization", since=18)
def group_normalization(node: Node) -> Compute:
    """The same over groups of channels; before opset 21 w and b are one for each group, not for each channel."""
    groups, epsilon = node.int("num_groups"), node.float("epsilon", 1e-5)

    def compute(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        if node.opset < 21 and w.shape[0] == groups:
            w, b = (v.repeat_interleave(x.shape[1] // groups) for v in (w, b))
        return F.group_norm(x, groups, w, b, epsilon)

    return compute


@operator("LayerNormalization", since=17)
def layer_normalization(node: Node) -> Compute:
    """y = w · (x − μ) / √(σ² + ε) + b over the dimensions from `axis` on; further outputs are μ and 1 / √(σ² + ε)."""
    axis, epsilon = node.int("axis", -1), node.float("epsilon", 1e-5)
    further = any(node.outputs[1:])

    def compute(x: Tensor, w: Tensor, b: Tensor | None = None) -> Any:
        first = _axis(node, axis, x)
        shape = x.shape[first:]
        if w.shape == shape and (b is None or b.shape == shape):
            y = F.layer_norm(x, shape, w, b, epsilon)
        else:
            y = F.layer_norm(x, shape, eps=epsilon) * w
            y = y if b is None else y + b
        if not further:
            return y
        dims = tuple(range(first, x.ndim))
        mean = x.mean(dims, keepdim=True)
        deviation = x - mean
        inverse = ((deviation * deviation).mean(dims, keepdim=True) + epsilon).rsqrt()
        return (y, mean, inverse)[: len(node.outputs)]

    return compute


@operator("RMSNormalization", since=23)
def rms_normalization(node: Node) -> Compute:
    """y = w · x / √(mean x² + ε) over the dimensions from `axis` on."""
    axis, epsilon = node.int("axis", -1), node.float("epsilon", 1e-5)

    def compute(x: Tensor, w: Tensor) -> Tensor:
        shape = x.shape[_axis(node, axis, x) :]
        return F.rms_norm(x, shape, w, epsilon) if w.shape == shape else F.rms_norm(x, shape, eps=epsilon) * w

    return compute


def _axis(node: Node, axis: int, x: Tensor) -> int:
    if not -x.ndim <= axis < x.ndim:
        raise node.error(f"axis {axis} of an input of shape {list(x.shape)}")
    return axis % x.ndim


@operator("LRN")
def lrn(node: Node) -> Compute:
    """x / (bias + α / size · Σ x²)^β, the sum over `size` channels around each; of an even number one more behind."""
    size, alpha = node.int("size"), node.float("alpha", 1e-4)
    beta, bias = node.float("beta", 0.75), node.float("bias", 1.0)
    if size < 1:
        raise node.error(f"attribute size is {size}")

    def compute(x: Tensor) -> Tensor:
        squares = (x * x).reshape(len(x), 1, x.shape[1], math.prod(x.shape[2:]))
        furthest = max(x.shape[1] - 1, 0)  # there are no channels beyond, however many `size` names
        before, behind = min((size - 1) // 2, furthest), min(size // 2, furthest)
        window = before + 1 + behind
        squares = F.pad(squares, (0, 0, before, behind))
        mean = F.avg_pool2d(squares, (window, 1), 1).reshape(x.shape)
        return x / (mean * (alpha * window / size) + bias).pow(beta)

    return compute


@operator("LpNormalization")
def lp_normalization(node: Node) -> Compute:
    """x / ‖x‖ along `axis`, the norm of order 1 or 2; 0 where the norm is 0."""
    axis, p = node.int("axis", -1), node.int("p", 2)
    if p not in (1, 2):
        raise node.error(f"attribute p is {p}, neither 1 nor 2")
    return lambda x: F.normalize(x, p, axis)


@operator("MeanVarianceNormalization", since=9)
def mean_variance_normalization(node: Node) -> Compute:
    """(x − μ) / (σ + 1e-9), over `axes`."""
    axes = node.ints("axes", [0, 2, 3])

    def compute(x: Tensor) -> Tensor:
        deviation = x - x.mean(axes, keepdim=True)
        return deviation / ((deviation * deviation).mean(axes, keepdim=True).sqrt() + 1e-9)

    return compute
