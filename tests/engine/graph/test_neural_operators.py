"""Operators of layers compute what onnxruntime computes, or PyTorch where it has no such kernel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import chainrule.engine as cr
from chainrule.engine.dtypes import Array
from chainrule.engine.errors import DimensionError
from chainrule.engine.graph.errors import GraphError, Refused
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.operators import (
    attention,
    convolution,
    losses,
    normalization,
    pooling,
    recurrent,
    resampling,
)
from chainrule.engine.graph.registry import Bounded, find

MODULES = (attention, convolution, losses, normalization, pooling, recurrent, resampling)
_KINDS = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def bind(op: str, opset: int, inputs: Sequence[Array | None], outputs: int = 1, **attributes: Any) -> tuple[Any, ...]:
    """The computation of a node, and its inputs as it wants them."""
    row = find("", op, opset)
    assert not isinstance(row, str), row
    names = tuple("" if x is None else f"x{i}" for i, x in enumerate(inputs))
    node = Node("n", "", op, opset, names, tuple(f"y{i}" for i in range(outputs)), attributes)
    arguments = [None if x is None else x if i in row.host else cr.tensor(x) for i, x in enumerate(inputs)]
    return row.bind(node), arguments


def ours(op: str, opset: int, inputs: Sequence[Array | None], outputs: int = 1, **attributes: Any) -> list[Array]:
    bound, arguments = bind(op, opset, inputs, outputs, **attributes)
    limit = bound.elements(*arguments) if isinstance(bound, Bounded) else None
    results = (bound.compute if isinstance(bound, Bounded) else bound)(*arguments)
    results = results if isinstance(results, tuple) else (results,)
    assert limit is None or max(y.numel() for y in results) <= limit
    return [y.numpy() for y in results]


def theirs(op: str, opset: int, inputs: Sequence[Array | None], outputs: int = 1, **attributes: Any) -> list[Array]:
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    node = helper.make_node(op, names, [f"y{i}" for i in range(outputs)], **attributes)
    given = {name: x for name, x in zip(names, inputs, strict=True) if x is not None}
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, _KINDS[str(x.dtype)], x.shape) for name, x in given.items()],
        [helper.make_empty_tensor_value_info(f"y{i}") for i in range(outputs)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 20 else 10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, given)]


def agree(op: str, opset: int, inputs: Sequence[Array | None], outputs: int = 1, **attributes: Any) -> None:
    mine, expected = (f(op, opset, inputs, outputs, **attributes) for f in (ours, theirs))
    assert len(mine) == len(expected)
    for y, e in zip(mine, expected, strict=True):
        assert y.dtype == e.dtype
        np.testing.assert_allclose(y, e, rtol=1e-4, atol=1e-5)


# ---- Convolutions ----


@pytest.mark.parametrize("opset", [7, 11, 22])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 1], "dilations": [1, 2], "pads": [1, 0, 2, 3]},
        {"group": 2, "pads": [1, 1, 1, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 3], "kernel_shape": [3, 2]},
        {"auto_pad": "VALID"},
    ],
    ids=str,
)
def test_conv(opset: int, attributes: dict[str, Any]) -> None:
    w = draw(6, 4 // attributes.get("group", 1), 3, 2)
    agree("Conv", opset, [draw(2, 4, 9, 10), w, draw(6)], **attributes)
    agree("Conv", opset, [draw(2, 4, 9, 10), w], **attributes)


@pytest.mark.parametrize(
    "attributes", [{}, {"pads": [2, 0], "dilations": [2]}, {"auto_pad": "SAME_UPPER", "strides": [3]}]
)
def test_conv_of_signals(attributes: dict[str, Any]) -> None:
    agree("Conv", 11, [draw(2, 4, 11), draw(6, 4, 3), draw(6)], **attributes)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        {"strides": [2, 3], "pads": [0, 1, 1, 0]},
        {"strides": [2, 2], "output_shape": [10, 8]},
        {"strides": [2, 2], "output_shape": [9, 8]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [3, 3], "auto_pad": "SAME_LOWER"},
        {"group": 2, "dilations": [2, 1]},
    ],
    ids=str,
)
def test_conv_transpose(attributes: dict[str, Any]) -> None:
    w = draw(4, 6 // attributes.get("group", 1), 3, 3)
    agree("ConvTranspose", 11, [draw(2, 4, 5, 4), w, draw(6)], **attributes)
    agree("ConvTranspose", 11, [draw(2, 4, 5, 4), w], **attributes)


def test_conv_transpose_of_signals() -> None:
    inputs = [draw(2, 4, 5), draw(4, 3, 4), draw(3)]
    agree("ConvTranspose", 11, inputs, strides=[2], pads=[1, 1])
    agree("ConvTranspose", 11, inputs, strides=[2], pads=[2, 0], output_padding=[1])


def test_volumes_are_refused() -> None:
    with pytest.raises(Refused, match="3 spatial dimensions; one or two are supported"):
        bind("Conv", 11, [draw(1, 1, 4, 4, 4), draw(1, 1, 3, 3, 3)], kernel_shape=[3, 3, 3])
    with pytest.raises(GraphError, match=r'node "n" \(Conv\): 3 spatial dimensions; one or two are supported'):
        ours("Conv", 11, [draw(1, 1, 4, 4, 4), draw(1, 1, 3, 3, 3)])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"strides": [1]}, r"attribute strides is \[1\], not 2 numbers"),
        ({"strides": [0, 1]}, r"attribute strides is \[0, 1\], with a number below 1"),
        ({"kernel_shape": [5, 5]}, r"kernel_shape is \[5, 5\], but the weight is of \[3, 2\]"),
        ({"auto_pad": "MOST"}, 'attribute auto_pad is "MOST"'),
    ],
)
def test_attributes_of_windows_are_checked(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        ours("Conv", 11, [draw(1, 2, 9, 9), draw(1, 2, 3, 2)], **attributes)


# ---- Poolings ----

POOLINGS = [
    {"kernel_shape": [3, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 2, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
]


@pytest.mark.parametrize("attributes", POOLINGS, ids=str)
def test_poolings(attributes: dict[str, Any]) -> None:
    x = draw(2, 3, 10, 8)
    agree("MaxPool", 12, [x], **attributes)
    agree("AveragePool", 19, [x], **attributes)
    agree("AveragePool", 19, [x], count_include_pad=1, **attributes)


@pytest.mark.parametrize("attributes", [POOLINGS[0], POOLINGS[1], POOLINGS[2]], ids=str)
@pytest.mark.parametrize("p", [1, 2, 3])
def test_pooling_of_norms(attributes: dict[str, Any], p: int) -> None:
    agree("LpPool", 11, [draw(2, 3, 9, 8)], p=p, **attributes)


def test_max_pool_dilated_and_of_signals() -> None:
    agree("MaxPool", 12, [draw(2, 3, 9, 8)], kernel_shape=[3, 2], dilations=[2, 3])
    agree("MaxPool", 12, [draw(2, 3, 9)], kernel_shape=[3], strides=[2], pads=[0, 2])
    agree("AveragePool", 12, [draw(2, 3, 9)], kernel_shape=[3], strides=[2], pads=[0, 2])


def test_max_pool_says_where() -> None:
    agree("MaxPool", 12, [draw(2, 3, 9, 8)], 2, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 1, 1, 1])
    with pytest.raises(GraphError, match="the output Indices where pads are"):
        ours("MaxPool", 12, [draw(2, 3, 9, 8)], 2, kernel_shape=[3, 2], pads=[1, 0, 0, 0])


def test_a_window_larger_than_the_image_is_refused() -> None:
    with pytest.raises(GraphError, match="a window reaches over 9 elements, of 4 with margins of 0 and 0"):
        ours("AveragePool", 12, [draw(1, 1, 4, 4)], kernel_shape=[9, 9])


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 5, 4), (2, 3, 4, 2, 3)], ids=str)
def test_global_poolings(op: str, shape: tuple[int, ...]) -> None:
    agree(op, 11, [draw(*shape)])


# ---- Normalisation ----


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 5, 3)], ids=str)
def test_normalisations_of_channels(shape: tuple[int, ...]) -> None:
    agree("InstanceNormalization", 11, [draw(*shape), draw(4), draw(4, seed=1)], epsilon=1e-3)
    agree("GroupNormalization", 18, [draw(*shape), draw(2), draw(2, seed=1)], num_groups=2)
    agree("GroupNormalization", 21, [draw(*shape), draw(4), draw(4, seed=1)], num_groups=2)


@pytest.mark.parametrize("axis", [-1, 1, -2])
def test_layer_normalisations(axis: int) -> None:
    x = draw(2, 4, 5)
    w, b = draw(*x.shape[axis:]), draw(*x.shape[axis:], seed=1)
    agree("LayerNormalization", 17, [x, w, b], axis=axis, epsilon=1e-3)
    agree("LayerNormalization", 17, [x, w], 3, axis=axis)
    agree("LayerNormalization", 17, [x, draw(5)], axis=axis)
    agree("RMSNormalization", 23, [x, w], axis=axis)


@pytest.mark.parametrize("size", [1, 3])
def test_normalisation_by_neighbours(size: int) -> None:
    agree("LRN", 13, [draw(2, 5, 3, 4)], size=size, alpha=0.1, beta=0.5, bias=2.0)


def test_normalisation_by_an_even_number_of_neighbours() -> None:  # onnxruntime refuses it
    x = draw(1, 3, 1, 1)
    squares = np.pad(x[0, :, 0, 0] ** 2, (0, 1))
    expected = x[0, :, 0, 0] / (1 + 0.1 / 2 * (squares[:-1] + squares[1:])) ** 0.75
    np.testing.assert_allclose(ours("LRN", 13, [x], size=2, alpha=0.1)[0].ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("p", [1, 2])
def test_normalisation_of_vectors(p: int) -> None:
    x = draw(2, 5, 3)
    x[0, :, 1] = 0
    agree("LpNormalization", 11, [x], axis=1, p=p)
    agree("MeanVarianceNormalization", 13, [draw(2, 5, 3, 4)])


# ---- Recurrence ----


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrence(op: str, gates: int, direction: str, bias: bool) -> None:
    d, h, x = 1 + (direction == "bidirectional"), 3, draw(5, 2, 4)
    weights = [draw(d, gates * h, 4), draw(d, gates * h, h), draw(d, 2 * gates * h) if bias else None]
    states = [draw(d, 2, h, seed=s) for s in range(2 if op == "LSTM" else 1)]
    settings: dict[str, Any] = {"direction": direction, "hidden_size": h}
    if op == "GRU":
        agree(op, 14, [x, *weights], 2, **settings)
        settings["linear_before_reset"] = 1
    agree(op, 14, [x, *weights, None, *states], 2 if op != "LSTM" else 3, **settings)
    agree(op, 7, [x, *weights], 1, **settings)


def test_recurrence_with_the_batch_first() -> None:  # onnxruntime has no such layout
    x, w, r, h = draw(2, 5, 4), draw(1, 12, 4), draw(1, 12, 3), draw(2, 1, 3)
    y, last, _ = ours("LSTM", 14, [x, w, r, None, None, h, h], 3, hidden_size=3, layout=1)
    turned, last_turned, _ = ours(
        "LSTM", 14, [x.swapaxes(0, 1), w, r, None, None, *[h.swapaxes(0, 1)] * 2], 3, hidden_size=3
    )
    np.testing.assert_array_equal(y, turned.transpose(2, 0, 1, 3))
    np.testing.assert_array_equal(last, last_turned.swapaxes(0, 1))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"clip": 1.0}, "clip"),
        ({"input_forget": 1}, "a forget gate coupled"),
        ({"activations": ["HardSigmoid", "Tanh", "Tanh"]}, "activations Hardsigmoid, Tanh, Tanh"),
    ],
)
def test_unusual_recurrences_are_refused(attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        bind("LSTM", 14, [draw(5, 2, 4), draw(1, 12, 4), draw(1, 12, 3)], **attributes)


def test_ragged_sequences_are_refused() -> None:
    inputs = [draw(5, 2, 4), draw(1, 12, 4), draw(1, 12, 3), None, np.array([5, 4], np.int32)]
    with pytest.raises(GraphError, match=r"sequence_lens is \[5, 4\]: sequences shorter than the input of 5"):
        ours("LSTM", 14, inputs, hidden_size=3)


def test_a_relu_recurrence() -> None:
    agree("RNN", 14, [draw(5, 2, 4), draw(1, 3, 4), draw(1, 3, 3)], 2, hidden_size=3, activations=["Relu"])


# ---- Images made larger or smaller ----

COORDINATES = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]
SCALES = [[1, 1, 2, 3], [1, 1, 0.75, 1.75]]


@pytest.mark.parametrize(("scales", "coordinates"), list(itertools.product(SCALES, COORDINATES)), ids=str)
def test_resize(scales: list[float], coordinates: str) -> None:
    x, given = draw(2, 3, 5, 7), np.array(scales, np.float32)
    settings: dict[str, Any] = {"coordinate_transformation_mode": coordinates}
    roundings = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
    if coordinates == "half_pixel_symmetric":  # some places are whole numbers but for rounding
        del roundings[2:]
    for rounding in roundings:
        agree("Resize", 19, [x, None, given], nearest_mode=rounding, **settings)
    agree("Resize", 19, [x, None, given], mode="linear", **settings)
    agree("Resize", 19, [x, None, given], mode="cubic", **settings)
    agree("Resize", 19, [x, None, given], mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5, **settings)


def test_resize_to_sizes_and_along_axes() -> None:
    sizes = np.array([2, 3, 8, 4])
    agree("Resize", 13, [draw(2, 3, 5, 7), None, None, sizes], mode="linear")
    agree("Resize", 19, [draw(2, 3, 5, 7), None, None, sizes[2:]], mode="linear", axes=[2, 3])


def test_the_resizes_of_old() -> None:
    scales = np.array([1, 1, 2, 3], np.float32)
    for mode in ("nearest", "linear"):
        agree("Upsample", 9, [draw(2, 3, 5, 4), scales], mode=mode)
        agree("Upsample", 7, [draw(2, 3, 5, 4)], mode=mode, scales=scales.tolist())
        agree("Resize", 10, [draw(2, 3, 5, 4), scales], mode=mode)


def test_resizes_that_are_not_supported_are_refused() -> None:
    x, scales = draw(1, 1, 4, 4), np.array([1, 1, 2, 2], np.float32)
    for attributes in ({"antialias": 1}, {"coordinate_transformation_mode": "tf_crop_and_resize"}):
        with pytest.raises(Refused, match=next(iter(attributes))):
            bind("Resize", 19, [x, None, scales], **attributes)


# ---- Attention, losses ----


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_attention(causal: int, masked: bool) -> None:
    q, k, v = draw(2, 4, 3, 8), draw(2, 2, 5, 8), draw(2, 2, 5, 6)
    mask = draw(3, 5) if masked else None
    agree("Attention", 23, [q, k, v, *([mask] if masked else [])], is_causal=causal)
    flat = [x.swapaxes(1, 2).reshape(2, x.shape[2], -1) for x in (q, k, v)]
    agree("Attention", 23, flat, is_causal=causal, q_num_heads=4, kv_num_heads=2, scale=0.5)


def test_attention_with_a_past_is_refused() -> None:
    with pytest.raises(Refused, match="past keys and values"):
        bind("Attention", 23, [*[draw(2, 4, 3, 8)] * 3, None, *[draw(2, 4, 3, 8)] * 2])


@pytest.mark.torch
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_losses(torch: Any, reduction: str, weighted: bool) -> None:
    x, target = draw(4, 5, 3), np.random.default_rng(0).integers(0, 5, (4, 3))
    weight = [np.abs(draw(5))] if weighted else []
    settings: dict[str, Any] = {"reduction": reduction, "ignore_index": 2}
    given = [torch.from_numpy(a) for a in (x, target, *weight)]
    expected = torch.nn.functional.cross_entropy(*given, **settings).numpy()
    loss, logarithms = ours("SoftmaxCrossEntropyLoss", 13, [x, target, *weight], 2, **settings)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    again = ours("NegativeLogLikelihoodLoss", 13, [logarithms, target, *weight], **settings)[0]
    np.testing.assert_allclose(again, expected, rtol=1e-5)


# ---- Gradients ----


@pytest.mark.parametrize(
    ("op", "opset", "shapes", "attributes"),
    [
        ("Conv", 11, [(2, 2, 5, 4), (2, 1, 3, 2), (2,)], {"group": 2, "pads": [1, 0, 2, 3], "strides": [2, 1]}),
        ("Conv", 11, [(1, 2, 7), (3, 2, 3)], {"auto_pad": "SAME_LOWER", "dilations": [2]}),
        ("ConvTranspose", 11, [(1, 2, 3, 3), (2, 2, 3, 2), (2,)], {"strides": [2, 3], "pads": [0, 1, 1, 0]}),
        ("MaxPool", 12, [(1, 2, 5, 4)], {"kernel_shape": [3, 2], "pads": [0, 1, 1, 0]}),
        ("AveragePool", 19, [(1, 2, 5, 4)], {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1], "ceil_mode": 1}),
        ("AveragePool", 19, [(1, 2, 5, 2, 3)], {"kernel_shape": [3, 1, 1], "pads": [1, 0, 0, 1, 0, 0]}),
        ("LpPool", 11, [(1, 2, 5, 4)], {"kernel_shape": [3, 2], "p": 3}),
        ("GlobalMaxPool", 11, [(2, 2, 3, 4)], {}),
        ("InstanceNormalization", 11, [(2, 2, 3, 2), (2,), (2,)], {}),
        ("GroupNormalization", 18, [(2, 4, 3), (2,), (2,)], {"num_groups": 2}),
        ("LayerNormalization", 17, [(2, 3, 4), (3, 4), (3, 4)], {"axis": 1}),
        ("RMSNormalization", 23, [(2, 3, 4), (4,)], {}),
        ("LRN", 13, [(1, 5, 2, 2)], {"size": 3, "alpha": 0.5}),
        ("LpNormalization", 11, [(2, 4)], {}),
        ("MeanVarianceNormalization", 13, [(2, 2, 3, 2)], {}),
        ("LSTM", 14, [(3, 2, 2), (2, 8, 2), (2, 8, 2), (2, 16)], {"direction": "bidirectional"}),
        ("GRU", 14, [(3, 2, 2), (1, 6, 2), (1, 6, 2), (1, 12)], {"direction": "reverse"}),
        ("GRU", 14, [(3, 2, 2), (1, 6, 2), (1, 6, 2)], {"linear_before_reset": 1}),
        ("Attention", 23, [(1, 2, 3, 4), (1, 1, 3, 4), (1, 1, 3, 2)], {"is_causal": 1}),
    ],
    ids=str,
)
def test_gradients(op: str, opset: int, shapes: list[tuple[int, ...]], attributes: dict[str, Any]) -> None:
    arrays = [draw(*shape, seed=i).astype(np.float64) for i, shape in enumerate(shapes)]
    bound, _ = bind(op, opset, arrays, **attributes)
    compute = bound.compute if isinstance(bound, Bounded) else bound

    def first(*inputs: cr.Tensor) -> cr.Tensor:
        y = compute(*inputs)
        return y[0] if isinstance(y, tuple) else y  # type: ignore[no-any-return]

    assert cr.autograd.gradcheck(first, [cr.tensor(x, requires_grad=True) for x in arrays])


@pytest.mark.parametrize("parts", [np.array(2), np.array([2, 1, 2]), None], ids=str)
def test_parts_of_a_sequence(parts: Array | None) -> None:
    row = find("chainrule", "SequencePart", 1)
    assert not isinstance(row, str), row
    x = draw(5, 3)
    pieces = np.split(x, 5) if parts is None else np.split(x, [2, 4] if parts.ndim == 0 else [2, 3])
    compute: Any = row.bind(Node("n", "chainrule", "SequencePart", 1, ("x", "i"), ("y",), {"axis": 0}))
    for i in (*range(len(pieces)), -1):
        np.testing.assert_array_equal(compute(cr.tensor(x), np.array(i), parts).numpy(), pieces[i])
    with pytest.raises(DimensionError, match=f"part {len(pieces)} of {len(pieces)}"):
        compute(cr.tensor(x), np.array(len(pieces)), parts)
