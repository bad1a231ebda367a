"""chainrule's own operators, which `export` writes: each the engine's operation, bit for bit.

What they are in ONNX's operators, for other tools, is in `translations/local.py`; a file carries it along.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from chainrule.engine.dtypes import float32
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.program import Run
from chainrule.engine.graph.registry import Bounded, Compute, bounded, operator
from chainrule.engine.nn import functional as F
from chainrule.engine.nn.functional.attention import attended, attention_weights
from chainrule.engine.nn.functional.recurrent import recurrence
from chainrule.engine.ops import activation, division, elementwise, normalization, pooling, reduction
from chainrule.engine.ops import shape as shaping
from chainrule.engine.ops.op import Op
from chainrule.engine.tensor import Tensor

DOMAIN = "chainrule"

# ---- The engine's operation, with the node's attributes ----


def _same(name: str, op: Op, *attributes: str) -> None:
    @operator(name, domain=DOMAIN)
    def bind(node: Node) -> Compute:
        settings = {attribute: node.float(attribute) for attribute in attributes}
        return lambda *tensors: op(*tensors, **settings)


for _name, _op in (
    ("Expm1", elementwise.expm1),
    ("Log1p", elementwise.log1p),
    ("Exp2", elementwise.exp2),
    ("Log2", elementwise.log2),
    ("Log10", elementwise.log10),
    ("Rsqrt", elementwise.rsqrt),
    ("Trunc", elementwise.trunc),
    ("Frac", elementwise.frac),
    ("IsFinite", elementwise.isfinite),
    ("ClampMin", elementwise.clamp_min),
    ("ClampMax", elementwise.clamp_max),
    ("ClampBetween", elementwise.clamp_between),
    ("Hypot", elementwise.hypot),
    ("Logaddexp", elementwise.logaddexp),
    ("Lerp", elementwise.lerp),
    ("Hardsigmoid", activation.hardsigmoid),
    ("Silu", activation.silu),
    ("LogSigmoid", activation.logsigmoid),
    ("FloorDivide", division.floor_divide),
    ("Remainder", division.remainder),
):
    _same(_name, _op)
_same("Addcmul", elementwise.addcmul, "value")
_same("Addcdiv", elementwise.addcdiv, "value")
_same("Hardtanh", activation.hardtanh, "low", "high")
_same("Threshold", activation.threshold, "threshold", "value")
_same("Hardshrink", activation.hardshrink, "lambd")
_same("Softshrink", activation.softshrink, "lambd")
_same("SoftplusBeta", activation.softplus, "beta", "threshold")


@operator("Glu", domain=DOMAIN)
def glu(node: Node) -> Compute:
    axis = node.int("axis")
    return lambda x: activation.glu(x, dim=axis)


# ---- What changes nothing but gradients, memory, or training ----


@operator("Detach", domain=DOMAIN)
def detach(node: Node) -> Compute:  # noqa: ARG001
    return lambda x: x.detach()


@operator("FusedRelu", domain=DOMAIN)
def fused_relu(node: Node) -> Compute:  # noqa: ARG001
    return F.relu  # the normalisation before it has done so, and is not changed by doing so again


@operator("Contiguous", domain=DOMAIN)
def contiguous(node: Node) -> Compute:
    last = bool(node.int("channels_last"))
    return lambda x: shaping.contiguous(x, channels_last=last)


@operator("AlphaDropout", domain=DOMAIN, stateful=True)
def alpha_dropout(node: Node) -> Compute:
    p, drop = node.float("p"), F.feature_alpha_dropout if node.int("channels") else F.alpha_dropout

    def compute(run: Run, x: Tensor) -> Tensor:
        return drop(x, p, run.training)

    return compute


# ---- Products, rows of a table ----


@operator("Linear", "LinearNoBias", domain=DOMAIN, weights=(1, 2))
def linear(node: Node) -> Bounded:  # noqa: ARG001
    def elements(x: Tensor, w: Tensor, b: Tensor | None = None) -> int:  # noqa: ARG001
        return math.prod(x.shape[:-1]) * w.shape[0]

    return bounded(lambda x, w, b=None: F.linear(x, w, b), elements)


@operator("Embedding", domain=DOMAIN, weights=(1,))
def embedding(node: Node) -> Bounded:
    row, by_frequency = node.int("padding_idx"), bool(node.int("scale_grad_by_freq"))
    padding = None if row < 0 else row
    return bounded(
        lambda i, w: F.embedding(i, w, padding, scale_grad_by_freq=by_frequency),
        lambda i, w: math.prod(i.shape) * w.shape[-1],
    )


# ---- Normalisation ----


@operator("RMSNorm", domain=DOMAIN, weights=(1,))
def rms_norm(node: Node) -> Compute:
    ndim, eps = len(node.ints("axes")), node.float("eps")
    return lambda x, w: normalization.rms_norm(x, w, ndim=ndim, eps=eps)


@operator("FrozenBatchNorm", domain=DOMAIN)
def frozen_batch_norm(node: Node) -> Compute:
    eps = node.float("eps")
    return lambda x, w, b, mean, variance: F.batch_norm(x, mean, variance, w, b, training=False, eps=eps)


# ---- Attention ----


@operator("SafeSoftmax", "MaskedSafeSoftmax", "BiasedSafeSoftmax", domain=DOMAIN)
def safe_softmax(node: Node) -> Compute:  # noqa: ARG001
    return lambda x, mask=None: attention_weights(x, mask)


@operator(
    "ScaledDotProductAttention",
    "MaskedScaledDotProductAttention",
    "BiasedScaledDotProductAttention",
    domain=DOMAIN,
)
def attention(node: Node) -> Bounded:
    scale = _scale(node.float("scale"))

    def elements(q: Tensor, k: Tensor, v: Tensor, mask: Any = None) -> int:  # noqa: ARG001
        return math.prod(q.shape[:-1]) * max(k.shape[-2], v.shape[-1])

    return bounded(lambda q, k, v, mask=None: attended(q, k, v, mask, scale(q), 0.0), elements)


def _scale(written: float) -> Callable[[Tensor], float]:
    """The scale in full: a file has it as float32, and nearly always it is 1 / √E."""

    def scale(q: Tensor) -> float:
        usual = 1 / math.sqrt(q.shape[-1])
        return usual if float32.type(usual) == float32.type(written) else written

    return scale


# ---- Recurrences ----


@operator("LSTM", "LSTMNoBias", "GRU", "GRUNoBias", "RNN", "RNNNoBias", domain=DOMAIN)
def recurrent(node: Node) -> Bounded:
    mode = node.op.removesuffix("NoBias")
    if mode == "RNN":
        mode = f"RNN_{node.strings('activations')[0].upper()}"
    reverse, states, size = node.string("direction") == "reverse", 2 if mode == "LSTM" else 1, node.int("hidden_size")

    def compute(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        weights = rest[states:]
        both = (weights[0], weights[1], *(weights[2:] or (None, None)))
        y, state = recurrence(mode, x, rest[:states], both, reverse=reverse)
        return y, *state

    return bounded(compute, lambda x, *rest: 6 * math.prod(x.shape[:-1]) * size)  # noqa: ARG005


# ---- Reductions, pooling ----


@operator("Var", "Std", domain=DOMAIN)
def spread(node: Node) -> Compute:
    op = reduction.var if node.op == "Var" else reduction.std
    axes, keepdim, correction = tuple(node.ints("axes")), bool(node.int("keepdims")), node.float("correction")
    return lambda x: op(x, dim=axes, keepdim=keepdim, correction=correction)


@operator("Norm", domain=DOMAIN)
def norm(node: Node) -> Compute:
    axes, keepdim, p = tuple(node.ints("axes")), bool(node.int("keepdims")), node.float("p")
    return lambda x: reduction.norm(x, p=p, dim=axes, keepdim=keepdim)


@operator("AdaptiveAvgPool2d", domain=DOMAIN)
def adaptive_avg_pool(node: Node) -> Bounded:  # noqa: ARG001
    def size(rows: Tensor, columns: Tensor) -> tuple[int, int]:
        return rows.shape[0], columns.shape[1]

    return bounded(
        lambda x, rows, columns: pooling.adaptive_avg_pool2d(x, size=size(rows, columns)),
        lambda x, rows, columns: math.prod(x.shape[:2]) * max(x.shape[3], columns.shape[1]) * rows.shape[0],
    )


@operator("AdaptiveMaxPool2d", domain=DOMAIN)
def adaptive_max_pool(node: Node) -> Bounded:  # noqa: ARG001
    return bounded(
        lambda x, rows, columns: pooling.adaptive_max_pool2d(x, size=(rows.shape[0], columns.shape[0])),
        lambda x, rows, columns: math.prod(x.shape[:2]) * rows.shape[0] * columns.shape[0],
    )
