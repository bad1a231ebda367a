"""Files that ask for more than there may be are refused before anything of that size is made."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import chainrule.engine as cr
from chainrule.engine import graph
from chainrule.engine.graph import GraphError, Limits
from tests.engine.graph.hostile import FLOAT, LIMITS, at_most, fixed, model_of, node, refused, to_load, value

RELU = node("Relu", "x", "y")

# ---- What would be made ----

HUGE = 2**40
OVER = "culprit.*at most [0-9]+ are allowed"
MAKERS = {
    "ConstantOfShape": (node("ConstantOfShape", "n", "y"), [fixed("n", HUGE)]),
    "ConstantOfShape of an overflow": (node("ConstantOfShape", "n", "y"), [fixed("n", 2**32, 2**32)]),
    "Range": (node("Range", "a n b", "y"), [fixed("a", 0), fixed("n", HUGE), fixed("b", 1)]),
    "Range of floats": (
        node("Range", "a n b", "y"),
        [fixed(name, x, kind=np.float32) for name, x in (("a", 0), ("n", 1e30), ("b", 1e-30))],
    ),
    "Expand": (node("Expand", "e n", "y"), [fixed("e", 1), fixed("n", HUGE)]),
    "Expand of an overflow": (node("Expand", "e n", "y"), [fixed("e", 1), fixed("n", 2**32, 2**32)]),
    "Tile": (node("Tile", "e n", "y"), [fixed("e", 1), fixed("n", HUGE)]),
    "Tile of an overflow": (node("Tile", "e n", "y"), [fixed("e", 1, 2), fixed("n", 2**62)]),
    "Pad": (node("Pad", "e n", "y"), [fixed("e", 1), fixed("n", HUGE, 0)]),
    "Pad at the edge": (node("Pad", "e n", "y", mode="edge"), [fixed("e", 1), fixed("n", 0, HUGE)]),
    "OneHot": (node("OneHot", "e n v", "y"), [fixed("e", 1), fixed("n", HUGE), fixed("v", 0, 1)]),
}


@pytest.mark.parametrize(("made", "initialisers"), MAKERS.values(), ids=MAKERS.keys())
def test_constants_that_would_be_huge_are_refused(made: onnx.NodeProto, initialisers: list[onnx.TensorProto]) -> None:
    refused(model_of([made], initialisers, inputs=[]), OVER)


DOWN = numpy_helper.from_array(np.ones((1000, 1), np.int64), "n")
ACROSS = numpy_helper.from_array(np.ones((1, 1000), np.int64), "m")


@pytest.mark.parametrize("op", ["Add", "MatMul"])
def test_constants_that_make_a_square_are_refused(op: str) -> None:
    refused(model_of([node(op, "n m", "c"), node("Add", "x c", "y", name="last")], [DOWN, ACROSS]), OVER)


def test_many_constants_of_a_size_that_is_allowed_are_refused() -> None:
    """Each is a fifth of what all together may take."""
    made = [node("ConstantOfShape", "n", f"c{i}", name=f"constant {i}") for i in range(9)]
    sums = [node("Add", f"{'x' if i == 0 else f's{i}'} c{i}", f"s{i + 1}", name=f"sum {i}") for i in range(9)]
    model = model_of([*made, *sums, node("Relu", "s9", "y")], settings(100, 131))
    refused(model, r'node "constant [0-9]" .* at most [0-9]+ are allowed')


@pytest.mark.parametrize(("made", "initialisers"), MAKERS.values(), ids=MAKERS.keys())
def test_results_that_would_be_huge_are_refused(made: onnx.NodeProto, initialisers: list[onnx.TensorProto]) -> None:
    """The same numbers, given to the forward."""
    arrays = {t.name: numpy_helper.to_array(t) for t in initialisers}
    inputs = [value(t.name, *t.dims, kind=t.data_type) for t in initialisers]
    module = graph.load(model_of([made], inputs=inputs).SerializeToString(), limits=LIMITS)
    with at_most(LIMITS.activation_bytes), pytest.raises(GraphError, match=OVER):
        module(*[cr.tensor(array) for array in arrays.values()])


def settings(*numbers: Any) -> list[onnx.TensorProto]:
    return [fixed("n", *numbers)]


IMAGES, SIGNAL, SQUARE = (1, 1, 4, 4), (1000,), (4, 4)
ENLARGERS: dict[str, tuple[onnx.NodeProto, list[onnx.TensorProto], tuple[int, ...]]] = {
    "Expand": (node("Expand", "x n", "y"), settings(HUGE, 4, 4), SQUARE),
    "Tile": (node("Tile", "x n", "y"), settings(2**31, 2**31), SQUARE),
    "Pad": (node("Pad", "x n", "y"), settings(0, 0, 0, HUGE), SQUARE),
    "Pad at the edge": (node("Pad", "x n", "y", mode="edge"), settings(0, 0, 0, HUGE), SQUARE),
    "Resize": (
        node("Resize", "x r n", "y"),
        [fixed("r", kind=np.float32), fixed("n", 1, 1, 1e6, 1e6, kind=np.float32)],
        IMAGES,
    ),
    **{
        f"Resize to sizes, {mode}": (
            helper.make_node("Resize", ["x", "", "", "n"], ["y"], name="culprit", mode=mode),
            settings(1, 1, 2**31, 2**31),
            IMAGES,
        )
        for mode in ("nearest", "linear", "cubic")
    },
    "Conv with margins": (
        node("Conv", "x n", "y", pads=[2**30] * 4),
        [fixed("n", [[[1.0]]], kind=np.float32)],
        IMAGES,
    ),
    "ConvTranspose in strides": (
        node("ConvTranspose", "x n", "y", strides=[2**30, 2**30]),
        [fixed("n", [[[1.0]]], kind=np.float32)],
        IMAGES,
    ),
    "AveragePool with margins": (node("AveragePool", "x", "y", kernel_shape=[1, 1], pads=[2**30] * 4), [], IMAGES),
    "MaxPool with margins": (
        node("MaxPool", "x", "y", kernel_shape=[2**30 + 1] * 2, pads=[2**30] * 4),
        [],
        IMAGES,
    ),
    "Gather": (node("Gather", "x n", "y"), [numpy_helper.from_array(np.zeros((300, 300), np.int64), "n")], SIGNAL),
    "a product of a column and a row": (node("Einsum", "x x", "y", equation="i,j->ij"), [], SIGNAL),
    "an Einsum that is large on the way": (node("Einsum", "x x x", "y", equation="i,j,k->"), [], SIGNAL),
}


@pytest.mark.parametrize(("made", "initialisers", "shape"), ENLARGERS.values(), ids=ENLARGERS.keys())
def test_inputs_that_would_be_made_huge_are_refused(
    made: onnx.NodeProto, initialisers: list[onnx.TensorProto], shape: tuple[int, ...]
) -> None:
    given = cr.ones(*shape)
    content = model_of([made], initialisers, [value("x", *shape)]).SerializeToString()
    with at_most(to_load(content) + LIMITS.activation_bytes), pytest.raises(GraphError, match="culprit"):
        graph.load(content, limits=LIMITS)(given)


@pytest.mark.parametrize("size", [8, 2**20, 2**31, 2**63 - 1])
def test_a_neighbourhood_wider_than_there_are_channels_costs_nothing(size: int) -> None:
    content = model_of([node("LRN", "x", "y", size=size)], inputs=[value("x", *IMAGES)]).SerializeToString()
    with at_most(to_load(content)):
        y: Any = graph.load(content, limits=LIMITS)(2 * cr.ones(*IMAGES))
    np.testing.assert_allclose(y.numpy(), 2 * (1 + 1e-4 / size * 4) ** -0.75, rtol=1e-6)


def test_broadcasting_that_would_be_huge_is_refused() -> None:
    inputs = [value("x", "n", 1), value("z", 1, "n")]
    for op in ("Add", "Pow", "MatMul", "Max", "Equal"):
        module = graph.load(model_of([node(op, "x z", "y")], inputs=inputs).SerializeToString(), limits=LIMITS)
        with at_most(LIMITS.activation_bytes), pytest.raises(GraphError, match=OVER):
            module(cr.ones(5000, 1), cr.ones(1, 5000))


def _doubled(first: str, times: int) -> list[onnx.NodeProto]:
    names = [first, *(f"d{i}" for i in range(times - 1)), "y"]
    return [
        helper.make_node("Concat", [a, a], [b], name=f"double {i}", axis=0) for i, (a, b) in enumerate(pairwise(names))
    ]


def test_doubling_again_and_again_is_refused() -> None:
    refused(model_of(_doubled("n", 60), settings(1, 2), inputs=[]), 'node "double 1[0-9]"')
    module = graph.load(model_of(_doubled("x", 60)).SerializeToString(), limits=LIMITS)
    with at_most(2 * LIMITS.activation_bytes), pytest.raises(GraphError, match=r'node "double 1[0-9]"'):
        module(cr.ones(2, 3))


def test_a_forward_of_many_results_is_refused() -> None:
    names = ["x", *(f"e{i}" for i in range(60)), "y"]
    nodes = [node("Exp", a, b, name=f"exp {b}") for a, b in pairwise(names)]
    module = graph.load(model_of(nodes, inputs=[value("x", "n")]).SerializeToString(), limits=LIMITS)
    with at_most(2 * LIMITS.activation_bytes), pytest.raises(GraphError, match=r'node "exp e[0-9]+"'):
        module(cr.ones(2**14))


# ---- Depth and number ----


@pytest.mark.parametrize("depth", [12, 25])
def test_deep_branches_are_refused(depth: int) -> None:
    """Twice as many messages with each."""
    limits = Limits(fields=2**22, nodes=LIMITS.nodes)
    inner = node("Relu", "x", f"y{depth}", name="innermost")
    for i in reversed(range(depth)):
        branch = helper.make_graph([inner], "b", [], [helper.make_empty_tensor_value_info(f"y{i + 1}")])
        other = helper.make_graph(
            [node("Relu", "x", f"y{i + 1}", name="n")], "b", [], [helper.make_empty_tensor_value_info(f"y{i + 1}")]
        )
        inner = node("If", "yes", f"y{i}", name=f"if {i}", then_branch=branch, else_branch=other)
    model = model_of([inner], [numpy_helper.from_array(np.array(True), "yes")], output="y0")
    if depth < 16:
        assert graph.load(model.SerializeToString(), limits=limits)(-cr.ones(2, 3)).tolist() == [[0.0] * 3] * 2
    else:
        refused(model.SerializeToString(), "the file nests messages deeper than 48", limits)


def test_a_million_messages_in_messages_are_refused() -> None:
    content = b""
    for _ in range(60):  # a graph in an attribute in a node in a graph
        for key in (b"\x0a", b"\x2a", b"\x32"):
            content = key + _varint(len(content)) + content
    refused(b"\x3a" + _varint(len(content)) + content, "deeper than 48|wire type|no ONNX model")


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def _many(count: int) -> bytes:
    one = node("Relu", "x", "z", name="").SerializeToString()
    nodes = (b"\x0a" + _varint(len(one)) + one) * count
    rest = value("y").SerializeToString()
    made = nodes + b"\x62" + _varint(len(rest)) + rest
    return b"\x3a" + _varint(len(made)) + made


def test_a_million_nodes_are_refused_before_they_are_parsed() -> None:
    content = _many(10**6)
    assert len(content) < 2**25
    with at_most(2**20), pytest.raises(GraphError, match="the file has more than 2000 fields, which is the limit"):
        graph.load(content, limits=LIMITS)


def test_nodes_are_counted() -> None:
    limits = Limits(fields=100_000, nodes=300)
    nodes = [node("Relu", "x", f"z{i}", name="") for i in range(300)]
    refused(model_of([*nodes, RELU]), "the graph has more than 300 nodes, which is the limit", limits)


def test_a_file_larger_than_allowed_is_refused() -> None:
    with pytest.raises(GraphError, match="the file has 1000 bytes; at most 999 are taken"):
        graph.load(bytes(1000), max_bytes=999)


@pytest.mark.parametrize("count", [10**5, 10**6])
def test_empty_messages_are_counted(count: int) -> None:
    content = b"\x3a" + _varint(2 * count) + b"\x0a\x00" * count
    with at_most(2**20), pytest.raises(GraphError, match="fields, which is the limit"):
        graph.load(content, limits=LIMITS)


# ---- Numbers ----


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


@pytest.mark.parametrize(("number", "content"), [(8, b"\x01" * 10_001), (7, bytes(4 * 10_001))], ids=["ints", "floats"])
def test_numbers_of_attributes_that_are_packed_are_counted(number: int, content: bytes) -> None:
    made = RELU.SerializeToString() + _field(5, _field(number, content))
    rest = model_of([RELU]).graph.output[0].SerializeToString()
    refused(_field(7, _field(1, made) + _field(12, rest)), "the file lists more than 10000 numbers, which is the limit")


@pytest.mark.parametrize("field", ["int64_data", "int32_data"])
def test_numbers_of_a_tensor_are_counted(field: str) -> None:
    made = onnx.TensorProto(name="w", data_type=onnx.TensorProto.INT64)
    getattr(made, field).extend([1] * 10_001)
    refused(model_of([RELU], [made]), "the file lists more than 10000 numbers, which is the limit")


def test_floats_of_a_tensor_are_not_counted() -> None:
    made = helper.make_tensor("w", FLOAT, [20_000], [0.5] * 20_000)
    content = model_of([node("Add", "x w", "y")], [made]).SerializeToString()
    with at_most(to_load(content)):
        module = graph.load(content, limits=LIMITS)
    assert module.state_dict()["w"].tolist() == [0.5] * 20_000


# ---- Functions ----


def function(name: str, *body: onnx.NodeProto) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["a"], ["b"], list(body), opsets)


def call(name: str, a: str, b: str) -> onnx.NodeProto:
    return helper.make_node(name, [a], [b], name="culprit", domain="own")


def test_functions_that_call_themselves_are_refused() -> None:
    itself = function("F", call("F", "a", "b"))
    refused(model_of([call("F", "x", "y")], functions=[itself]), "functions call functions deeper than 48")
    there, back = function("F", call("G", "a", "b")), function("G", call("F", "a", "b"))
    refused(model_of([call("F", "x", "y")], functions=[there, back]), "functions call functions deeper than 48")


def test_functions_that_double_again_and_again_are_refused() -> None:
    levels = [function("F0", node("Relu", "a", "b"))]
    levels += [function(f"F{i}", call(f"F{i - 1}", "a", "c"), call(f"F{i - 1}", "c", "b")) for i in range(1, 40)]
    refused(model_of([call("F39", "x", "y")], functions=levels), "the graph has more than 300 nodes")


def test_functions_that_carry_much_into_every_call_are_refused() -> None:
    big = numpy_helper.from_array(np.zeros(10_000, np.float32))
    body = function("F", node("Constant", "", "k", value=big), node("Slice", "k z o", "s"), node("Add", "a s", "b"))
    body.node.insert(0, node("Constant", "", "z", value_ints=[0]))
    body.node.insert(0, node("Constant", "", "o", value_ints=[1]))
    names = ["x", *(f"c{i}" for i in range(40)), "y"]
    calls = [call("F", a, b) for a, b in pairwise(names)]
    refused(model_of(calls, functions=[body]), "the functions of the file hold more than they may")


@pytest.mark.parametrize("what", ["name", "output", "metadata", "ints"])
def test_functions_whose_nodes_say_much_are_refused(what: str) -> None:
    """Names and lists are there once for each call, too."""
    inner = node("Relu", "a", "b")
    body = function("F", inner, node("Neg", "a", "z" * 10_000)) if what == "output" else function("F", inner)
    match what:
        case "name":
            body.node[0].name = "n" * 10_000
        case "metadata":
            body.node[0].metadata_props.add(key="k", value="v" * 10_000)
        case "ints":
            body.node[0].attribute.add(name="n", type=onnx.AttributeProto.INTS, ints=[1] * 1_000)
    names = ["x", *(f"c{i}" for i in range(60)), "y"]
    calls = [call("F", a, b) for a, b in pairwise(names)]
    refused(model_of(calls, functions=[body]), 'node "culprit/": the functions of the file hold more than they may')


def test_a_function_of_two_bodies_is_refused() -> None:
    one = function("F", node("Relu", "a", "b"))
    refused(model_of([call("F", "x", "y")], functions=[one, one]), 'function "own::F" is defined twice')


def test_a_function_with_a_cycle_is_refused() -> None:
    body = function("F", node("Add", "a d", "b", name="one"), node("Relu", "b", "d", name="two"))
    refused(model_of([call("F", "x", "y")], functions=[body]), "the graph has a cycle")
