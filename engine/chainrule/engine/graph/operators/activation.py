"""Activations, and dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chainrule.engine as cr
from chainrule.engine.dtypes import Array
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.program import Run
from chainrule.engine.graph.registry import Compute, operator
from chainrule.engine.nn import functional as F
from chainrule.engine.tensor import Tensor

# ---- Without settings ----

_plain: dict[str, Callable[[Tensor], Tensor]] = {
    "HardSwish": F.hardswish,
    "Mish": F.mish,
    "Relu": F.relu,
    "Sigmoid": F.sigmoid,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Tanh": F.tanh,
}


@operator("Softplus", "Softsign")
@operator("Relu", "Sigmoid", "Tanh", since=6)
@operator("HardSwish", since=14)
@operator("Mish", since=18)
def plain(node: Node) -> Compute:
    function = _plain[node.op]
    return lambda x: function(x)


# ---- With settings ----


@operator("LeakyRelu", since=6)
def leaky_relu(node: Node) -> Compute:
    slope = node.float("alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


@operator("PRelu", since=7, weights=(1,))
def prelu(node: Node) -> Compute:  # noqa: ARG001
    """x where x > 0, else slope · x"""
    return lambda x, slope: F.prelu(x, slope.reshape(1)) if slope.numel() == 1 else cr.where(x > 0, x, slope * x)


@operator("ThresholdedRelu", since=10)
def thresholded_relu(node: Node) -> Compute:
    alpha = node.float("alpha", 1.0)
    return lambda x: F.threshold(x, alpha, 0.0)


@operator("Elu", since=6)
def elu(node: Node) -> Compute:
    alpha = node.float("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@operator("Celu", since=12)
def celu(node: Node) -> Compute:
    alpha = node.float("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


@operator("Selu", since=6)
def selu(node: Node) -> Compute:
    """gamma · elu(x, alpha); the function of that name where the settings are its own."""
    alpha, gamma = node.float("alpha", 1.6732632), node.float("gamma", 1.050701)
    if abs(alpha - 1.6732632423543772) < 1e-6 and abs(gamma - 1.0507009873554805) < 1e-6:
        return lambda x: F.selu(x)
    return lambda x: gamma * F.elu(x, alpha)


@operator("HardSigmoid", since=6)
def hard_sigmoid(node: Node) -> Compute:
    alpha, beta = node.float("alpha", 0.2), node.float("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return lambda x: F.hardsigmoid(x)
    return lambda x: cr.clamp(alpha * x + beta, 0, 1)


@operator("Gelu", since=20)
def gelu(node: Node) -> Compute:
    approximate = node.one_of("approximate", ("none", "tanh"), "none")
    return lambda x: F.gelu(x, approximate)


@operator("Swish", since=24)
def swish(node: Node) -> Compute:
    alpha = node.float("alpha", 1.0)
    return lambda x: F.silu(x) if alpha == 1 else x * F.sigmoid(alpha * x)


@operator("Shrink", since=9)
def shrink(node: Node) -> Compute:
    limit, bias = node.float("lambd", 0.5), node.float("bias", 0.0)
    if not bias:
        return lambda x: F.hardshrink(x, limit)
    return lambda x: cr.where(x > limit, x - bias, cr.where(x < -limit, x + bias, 0 * x))


# ---- Along a dimension ----


def _hardmax(x: Tensor, dim: int) -> Tensor:
    first = cr.argmax(x, dim, keepdim=True)
    return cr.scatter(cr.zeros_like(x), dim, first, 1.0)


_along: dict[str, Callable[..., Tensor]] = {"Softmax": F.softmax, "LogSoftmax": F.log_softmax, "Hardmax": _hardmax}


@operator(*_along, until=12)
def softmax_of_rows(node: Node) -> Compute:
    """Of rows: everything behind the axis is one."""
    function, axis = _along[node.op], node.int("axis", 1)

    def compute(x: Tensor) -> Tensor:
        split = axis + x.ndim if axis < 0 else axis
        if split == x.ndim - 1:
            return function(x, dim=-1)
        return function(cr.flatten(x, split), dim=-1).reshape(x.shape)

    return compute


@operator(*_along, since=13)
def softmax(node: Node) -> Compute:
    function, axis = _along[node.op], node.int("axis", -1)
    return lambda x: function(x, dim=axis)


# ---- Dropout ----


@operator("Dropout", since=7, until=11, stateful=True)
def dropout_by_attribute(node: Node) -> Compute:
    ratio = node.float("ratio", 0.5)
    return lambda run, x: _dropped(node, run, x, ratio)


@operator("Dropout", since=12, stateful=True, host=(1, 2))
def dropout(node: Node) -> Compute:
    """While the module trains, whatever `training_mode` says: the third input is not read."""

    def compute(run: Run, x: Tensor, ratio: Array | None = None, training: Array | None = None) -> Any:  # noqa: ARG001
        return _dropped(node, run, x, 0.5 if ratio is None else float(ratio.reshape(-1)[0]))

    return compute


def _dropped(node: Node, run: Run, x: Tensor, ratio: float) -> Any:
    y = F.dropout(x, round(ratio, 7), run.training)
    if not any(node.outputs[1:]):
        return y
    return y, y.ne(0) | x.eq(0) if run.training else x.eq(x)
