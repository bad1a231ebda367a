"""What layers are made of: products, convolutions, pooling, normalisation, dropout, attention, recurrences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.dtypes import bool_
from chainrule.engine.graph.errors import GraphError
from chainrule.engine.graph.tracing import Call, Value
from chainrule.engine.graph.translations import local
from chainrule.engine.graph.translations.reducing import static
from chainrule.engine.graph.translations.registry import exports, exports_whole
from chainrule.engine.ops import convolution, linalg, normalization, pooling

if TYPE_CHECKING:
    from chainrule.engine.graph.emitting import Emitter

# ---- Products ----


@exports(linalg.mm, linalg.bmm, linalg.mv, linalg.dot)
def matmul(g: Emitter, call: Call) -> None:
    """A product, of each pair of a batch."""
    g.node("MatMul", call.arguments["a"], call.arguments["b"], out=call.outputs)


@exports(linalg.linear)
def linear(g: Emitter, call: Call) -> None:
    """y = x·wᵀ + b: Gemm of rows; of more dimensions one of chainrule's own."""
    x, w, b = call.arguments["x"], call.arguments["w"], call.arguments.get("b")
    if len(x.shape) == 2:
        g.node("Gemm", x, w, b, out=call.outputs, transB=1)
    elif b is None:
        g.local(local.linear_without_bias, x, w, out=call.outputs)
    else:
        g.local(local.linear, x, w, b, out=call.outputs)


@exports(linalg.addmm, linalg.addmv, linalg.baddbmm)
def added(g: Emitter, call: Call) -> None:
    """y = β·x + α·A·B"""
    x, a, b, beta, alpha = (call.arguments[name] for name in ("x", "a", "b", "beta", "alpha"))
    dtype = call.outputs[0].dtype
    product = g.node("MatMul", a, b)
    if alpha != 1:
        product = g.node("Mul", product, g.name(alpha, dtype))
    if beta == 0:
        g.alias(call.outputs[0], product)
        return
    scaled = g.name(x) if beta == 1 else g.node("Mul", x, g.name(beta, dtype))
    g.node("Add", product, scaled, out=call.outputs)


@exports_whole("embedding")
def embedding(g: Emitter, call: Call) -> None:
    """Rows of a table."""
    given = call.arguments
    if given["max_norm"] is not None:
        raise GraphError("an embedding with max_norm writes to its table and cannot be exported; leave max_norm=None")
    padding = -1 if given["padding_idx"] is None else given["padding_idx"] % given["weight"].shape[0]
    by_frequency = int(given["scale_grad_by_freq"])
    if padding == -1 and not by_frequency:
        g.node("Gather", given["weight"], given["input"], out=call.outputs, axis=0)
        return
    settings: dict[str, Any] = {"padding_idx": padding, "scale_grad_by_freq": by_frequency}
    g.local(local.embedding, given["input"], given["weight"], out=call.outputs, **settings)


# ---- Convolutions ----


def _pads(padding: Any) -> list[int]:
    return [*padding, *padding]


@exports(convolution.conv2d)
def conv2d(g: Emitter, call: Call) -> None:
    """A convolution of images."""
    if call.arguments["affine"] is not None:
        raise GraphError("a convolution with a folded BatchNorm cannot be exported; enable gradients meanwhile")
    x, w, geometry = (call.arguments[name] for name in ("x", "w", "geometry"))
    b = call.arguments.get("b")
    _conv(g, call, (x, w, b), geometry, slice(None))


def _conv(g: Emitter, call: Call, operands: tuple[Any, ...], geometry: Any, part: slice) -> None:
    g.node(
        "Conv",
        *operands,
        out=call.outputs,
        kernel_shape=list(operands[1].shape[2:]),
        strides=list(geometry.stride[part]),
        pads=_pads(geometry.padding[part]),
        dilations=list(geometry.dilation[part]),
        group=geometry.groups,
    )


@exports(convolution.conv2d_input)
def conv_transpose2d(g: Emitter, call: Call) -> None:
    """A transposed convolution."""
    x, w, geometry = (call.arguments[name] for name in ("dy", "w", "geometry"))
    b = call.arguments.get("b")
    size = [static(n, "the size of an image") for n in call.outputs[0].shape[2:]]
    behind = [
        size[i]
        - (x.shape[2 + i] - 1) * geometry.stride[i]
        + 2 * geometry.padding[i]
        - geometry.dilation[i] * (w.shape[2 + i] - 1)
        - 1
        for i in (0, 1)
    ]
    g.node(
        "ConvTranspose",
        x,
        w,
        b,
        out=call.outputs,
        kernel_shape=list(w.shape[2:]),
        strides=list(geometry.stride),
        pads=_pads(geometry.padding),
        dilations=list(geometry.dilation),
        output_padding=behind,
        group=geometry.groups,
    )


def _ints(value: Any) -> list[int]:
    return [int(n) for n in (value if isinstance(value, tuple | list) else (value,))]


def _in_batches(given: Mapping[str, Any]) -> bool:
    """Whether a one-dimensional convolution or pooling is one node: of a batch, with padding in numbers."""
    return given["input"].data.ndim == 3 and not isinstance(given["padding"], str)


@exports_whole("conv1d", "conv_transpose1d", when=_in_batches)
def conv1d(g: Emitter, call: Call) -> None:
    """A convolution of rows, or a transposed one."""
    given = call.arguments
    transposed = call.key == "conv_transpose1d"
    g.node(
        "ConvTranspose" if transposed else "Conv",
        given["input"],
        given["weight"],
        given["bias"],
        out=call.outputs,
        kernel_shape=list(given["weight"].shape[2:]),
        strides=_ints(given["stride"]),
        pads=_pads(_ints(given["padding"])),
        dilations=_ints(given["dilation"]),
        output_padding=_ints(given["output_padding"]) if transposed else None,
        group=given["groups"],
    )


# ---- Pooling ----


def _max_pool(g: Emitter, x: Any, out: Any, geometry: Any, part: slice) -> None:
    g.node(
        "MaxPool",
        x,
        out=out,
        kernel_shape=list(geometry.kernel[part]),
        strides=list(geometry.stride[part]),
        pads=_pads(geometry.padding[part]),
        dilations=list(geometry.dilation[part]),
        ceil_mode=int(geometry.ceil_mode),
    )


@exports(pooling.max_pool2d)
def max_pool2d(g: Emitter, call: Call) -> None:
    """The largest of each window."""
    _max_pool(g, call.arguments["x"], call.outputs, call.arguments["geometry"], slice(None))


@exports_whole("_max_pool", "_adaptive_max_pool", when=lambda given: bool(given["return_indices"]))
def with_places(g: Emitter, call: Call) -> None:  # noqa: ARG001 - every translation's arguments
    """Pooling with the places of what it found."""
    raise GraphError("pooling with return_indices=True cannot be exported; leave the indices out")


@exports(pooling.avg_pool2d)
def avg_pool2d(g: Emitter, call: Call) -> None:
    """The average of each window."""
    geometry = call.arguments["geometry"]
    if geometry.divisor is not None:
        raise GraphError("avg_pool2d with divisor_override cannot be exported; multiply the average instead")
    g.node(
        "AveragePool",
        call.arguments["x"],
        out=call.outputs,
        kernel_shape=list(geometry.kernel),
        strides=list(geometry.stride),
        pads=_pads(geometry.padding),
        ceil_mode=int(geometry.ceil_mode),
        count_include_pad=int(geometry.count_include_pad),
    )


def _in_batches_without_places(given: Mapping[str, Any]) -> bool:
    return given["input"].data.ndim == 3 and not given.get("return_indices", False)


@exports_whole("max_pool1d", "avg_pool1d", when=_in_batches_without_places)
def pool1d(g: Emitter, call: Call) -> None:
    """Pooling of rows."""
    given = call.arguments
    settings: dict[str, Any] = {
        "kernel_shape": _ints(given["kernel_size"]),
        "strides": _ints(given["kernel_size"] if given["stride"] in (None, (), []) else given["stride"]),
        "pads": _pads(_ints(given["padding"])),
        "ceil_mode": int(given["ceil_mode"]),
    }
    if call.key == "max_pool1d":
        g.node("MaxPool", given["input"], out=call.outputs, dilations=_ints(given["dilation"]), **settings)
    else:
        counts = int(given["count_include_pad"])
        g.node("AveragePool", given["input"], out=call.outputs, count_include_pad=counts, **settings)


@exports(pooling.adaptive_avg_pool2d)
def adaptive_avg_pool2d(g: Emitter, call: Call) -> None:
    """Averages of windows of different sizes, as products with their shares."""
    x, size = call.arguments["x"], call.arguments["size"]
    rows, columns = (_shares(x.shape[2 + i], size[i], x.dtype) for i in (0, 1))
    g.local(local.adaptive_avg_pool, x, rows, np.ascontiguousarray(columns.T), out=call.outputs)


def _shares(size: int, places: int, dtype: Any) -> Any:
    """(places, size): which share an element has in the average of a window."""
    shares = np.zeros((places, size), dtype)
    for i, (start, stop) in enumerate(pooling._spans(size, places)):
        shares[i, start:stop] = 1 / (stop - start)
    return shares


@exports(pooling.adaptive_max_pool2d)
def adaptive_max_pool2d(g: Emitter, call: Call) -> None:
    """The largest elements of windows of different sizes."""
    x, size = call.arguments["x"], call.arguments["size"]
    rows, columns = (_members(x.shape[2 + i], size[i]) for i in (0, 1))
    g.local(local.adaptive_max_pool, x, rows, columns, out=call.outputs)


def _members(size: int, places: int) -> Any:
    """(places, longest): the elements of each window; the last stands for those that a shorter one does not have."""
    spans = pooling._spans(size, places)
    longest = max(stop - start for start, stop in spans)
    return np.array([[min(start + k, stop - 1) for k in range(longest)] for start, stop in spans], np.int64)


@exports_whole("_resampled")
def resampled(g: Emitter, call: Call) -> None:
    """Images made larger or smaller."""
    x, wanted, factors, mode, aligned = (
        call.arguments[name] for name in ("input", "wanted", "factors", "mode", "align_corners")
    )
    linear_mode = mode.endswith("linear")
    how = "align_corners" if aligned and linear_mode else "half_pixel" if linear_mode else "asymmetric"
    settings: dict[str, Any] = {"mode": "linear" if linear_mode else "nearest", "coordinate_transformation_mode": how}
    if not linear_mode:
        exact = mode == "nearest-exact"
        settings["nearest_mode"] = "round_prefer_ceil" if exact else "floor"
        settings["coordinate_transformation_mode"] = "half_pixel" if exact else "asymmetric"
    if all(factors) and not (aligned and linear_mode):
        scales = np.array([1, 1, *factors], np.float32)
        g.node("Resize", x, None, scales, out=call.outputs, **settings)
        return
    g.node("Resize", x, None, None, g.ints([*x.shape[:2], *wanted]), out=call.outputs, **settings)


# ---- Normalisation ----


def _statistics(given: Mapping[str, Any]) -> tuple[Any, Any]:
    mean, variance = given["running_mean"], given["running_var"]
    if not isinstance(mean, Value) or not isinstance(variance, Value):
        raise GraphError(
            "batch normalisation without running statistics cannot be exported; build it with track_running_stats=True"
        )
    return mean, variance


def _scale_and_shift(x: Any, w: Any, b: Any) -> tuple[Any, Any]:
    channels = static(x.shape[1], "the number of channels")
    return (np.ones(channels, x.dtype) if w is None else w), (np.zeros(channels, x.dtype) if b is None else b)


@exports_whole("batch_norm_with_statistics", "batch_norm")
def batch_norm(g: Emitter, call: Call) -> None:
    """Normalisation of batches; where `relu` follows at once, both."""
    given = call.arguments
    x = given["input"]
    mean, variance = _statistics(given)
    w, b = _scale_and_shift(x, given["weight"], given["bias"])
    rectify = bool(given.get("rectify"))
    out = 1 if rectify else call.outputs
    eps = float(given["eps"])
    if not given["training"]:
        y = g.local(local.frozen_batch_norm, x, w, b, mean, variance, out=out, eps=eps)
    else:
        momentum = given["momentum"] if call.key == "batch_norm" else g.momentum_of(mean)
        if momentum is None:
            raise GraphError(
                "BatchNorm with momentum=None, which averages over all batches so far, cannot be exported; set momentum"
            )
        y = g.node("BatchNormalization", x, w, b, mean, variance, out=out, epsilon=eps, momentum=1.0 - float(momentum))
    if rectify:
        g.local(local.fused_relu, y, out=call.outputs)


@exports_whole("instance_norm")
def instance_norm(g: Emitter, call: Call) -> None:
    """Normalisation of each example."""
    given = call.arguments
    if given["running_mean"] is not None or not given["use_input_stats"]:
        raise GraphError("instance normalisation with running statistics cannot be exported; leave them out")
    w, b = _scale_and_shift(given["input"], given["weight"], given["bias"])
    g.node("InstanceNormalization", given["input"], w, b, out=call.outputs, epsilon=float(given["eps"]))


@exports(normalization.layer_norm)
def layer_norm(g: Emitter, call: Call) -> None:
    """Normalisation over the last dimensions."""
    x, w, b, ndim, eps = (call.arguments[name] for name in ("x", "w", "b", "ndim", "eps"))
    shape = [static(n, "what a layer normalises over") for n in x.shape[len(x.shape) - ndim :]]
    scale = np.ones(shape, x.dtype) if w is None else w
    g.node("LayerNormalization", x, scale, b, out=call.outputs, axis=-ndim, epsilon=float(eps))


@exports(normalization.group_norm)
def group_norm(g: Emitter, call: Call) -> None:
    """Normalisation over groups of channels."""
    x, w, b, groups, eps = (call.arguments[name] for name in ("x", "w", "b", "groups", "eps"))
    w, b = _scale_and_shift(x, w, b)
    g.node("GroupNormalization", x, w, b, out=call.outputs, num_groups=groups, epsilon=float(eps))


@exports(normalization.rms_norm)
def rms_norm(g: Emitter, call: Call) -> None:
    """Normalisation by the root mean square over the last dimensions."""
    x, w, ndim, eps = (call.arguments[name] for name in ("x", "w", "ndim", "eps"))
    shape = [static(n, "what a layer normalises over") for n in x.shape[len(x.shape) - ndim :]]
    weight = np.ones(shape, x.dtype) if w is None else w
    axes = list(range(len(x.shape) - ndim, len(x.shape)))
    g.local(local.rms_norm, x, weight, out=call.outputs, axes=axes, eps=float(eps))


# ---- Dropout ----


def _drops(given: Mapping[str, Any]) -> bool:
    return bool(given["training"]) and given["p"] > 0


@exports_whole("_dropped", when=_drops)
def dropout(g: Emitter, call: Call) -> None:
    """Dropout of elements; of channels as a product with ones of which some are dropped."""
    given = call.arguments
    x, p, mask_shape = given["input"], given["p"], given["mask_shape"]
    if p == 1:
        raise GraphError("dropout of everything, p=1, cannot be exported; take a smaller p")
    ratio, training = np.asarray(p, np.float64), np.asarray(False)
    if tuple(mask_shape) == tuple(x.shape):
        g.node("Dropout", x, ratio, training, out=call.outputs)
        return
    ones = g.node("Expand", np.ones((1,) * len(mask_shape), x.dtype), g.ints(mask_shape))
    g.node("Mul", x, g.node("Dropout", ones, ratio, training), out=call.outputs)


@exports_whole("_alpha_dropped", when=_drops)
def alpha_dropout(g: Emitter, call: Call) -> None:
    """Alpha dropout, of elements or of channels."""
    given = call.arguments
    channels = int(tuple(given["mask_shape"]) != tuple(given["input"].shape))
    g.local(local.alpha_dropout, given["input"], out=call.outputs, p=float(given["p"]), channels=channels)


@exports_whole("detach")
def detach(g: Emitter, call: Call) -> None:
    """What no gradient passes."""
    g.local(local.detach, call.arguments["input"], out=call.outputs)


# ---- Attention ----


def _at_once(given: Mapping[str, Any]) -> bool:
    """Whether attention is one operation of the engine's."""
    q, k, v, mask = (given[name] for name in ("query", "key", "value", "mask"))
    alike = q.shape[:-2] == k.shape[:-2] == v.shape[:-2]
    return alike and not given["dropout_p"] and not getattr(mask, "requires_grad", False)


def _kind(mask: Any) -> str:
    return "" if mask is None else "Masked" if mask.dtype == bool_ else "Biased"


@exports_whole("attended", when=_at_once)
def attended(g: Emitter, call: Call) -> None:
    """softmax(scale · q·kᵀ + mask) · v"""
    q, k, v, mask, scale = (call.arguments[name] for name in ("query", "key", "value", "mask", "scale"))
    operands = (q, k, v) if mask is None else (q, k, v, mask)
    g.local(local.attention[_kind(mask)], *operands, out=call.outputs, scale=float(scale))


@exports_whole("attention_weights", when=lambda given: not getattr(given["mask"], "requires_grad", False))
def attention_weights(g: Emitter, call: Call) -> None:
    """softmax(scores + mask)"""
    scores, mask = call.arguments["scores"], call.arguments["mask"]
    operands = (scores,) if mask is None else (scores, mask)
    g.local(local.safe_softmax[_kind(mask)], *operands, out=call.outputs)


# ---- Recurrences ----


@exports_whole("recurrence")
def recurrence(g: Emitter, call: Call) -> None:
    """One layer and direction of nn.RNN, nn.LSTM and nn.GRU."""
    given = call.arguments
    mode, weights = given["mode"], given["weights"]
    name, _, activation = mode.partition("_")
    bias = weights[2] is not None and weights[3] is not None
    settings: dict[str, Any] = {
        "hidden_size": static(weights[1].shape[1], "the size of a state"),
        "direction": "reverse" if given["reverse"] else "forward",
    }
    if name == "RNN":
        settings["activations"] = [activation.capitalize()]
    operands = (given["x"], *given["state"], *(weights if bias else weights[:2]))
    g.local(local.recurrence[name, bias], *operands, out=call.outputs, **settings)
