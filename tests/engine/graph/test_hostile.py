"""Files that are broken, or made to do harm, are refused with a GraphError before they cost anything."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import chainrule.engine as cr
from chainrule.engine import graph
from chainrule.engine.dtypes import Array
from chainrule.engine.graph import GraphError, Limits, UnsupportedError
from tests.engine.graph.hostile import FLOAT, INT64, LIMITS, at_most, fixed, model_of, node, refused, to_load, value


def small() -> onnx.ModelProto:
    """A valid file that has a bit of everything."""
    branches = {
        f"{which}_branch": helper.make_graph(
            [node(op, "r", f"{which}_y", name=f"{which}_node")], which, [], [value(f"{which}_y")]
        )
        for which, op in (("then", "Relu"), ("else", "Sigmoid"))
    }
    body = [node("Mul", "a b", "c", name="inner"), node("Add", "c b", "d", name="last")]
    function = helper.make_function("own", "Twice", ["a", "b"], ["d"], body, [helper.make_opsetid("", 18)])
    nodes = [
        node("Conv", "x w", "c", name="conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c bn.weight bn.bias bn.running_mean bn.running_var", "b", name="bn"),
        node("Flatten", "b", "f", name="flat"),
        node("MatMul", "f fc.weight", "m", name="product"),
        node("Add", "m fc.bias", "p", name="sum"),
        helper.make_node("Twice", ["p", "p"], ["t"], name="call", domain="own"),
        node("Shape", "t", "s", name="shape"),
        node("Gather", "s first", "n", name="count"),
        node("Greater", "n first", "g", name="more"),
        node("Reshape", "t wanted", "r", name="reshape"),
        node("If", "g", "i", name="if", **branches),
        node("Softmax", "i", "y", name="softmax", axis=-1),
    ]
    floats = np.random.default_rng(0)
    weights = {"w": (2, 1, 3, 3), "fc.weight": (18, 4), "fc.bias": (4,)} | {
        f"bn.{k}": (2,) for k in ("weight", "bias", "running_mean", "running_var")
    }
    initialisers = [
        *(numpy_helper.from_array(floats.random(shape, np.float32), name) for name, shape in weights.items()),
        numpy_helper.from_array(np.array(0), "first"),
        fixed("wanted", 2, -1),
    ]
    return model_of(nodes, initialisers, [value("x", "batch", 1, 3, 3)], functions=[function])


IMAGE = np.ones((2, 1, 3, 3), np.float32)


def forward(content: bytes, limits: Limits = LIMITS) -> Any:
    """What happens to a file that was accepted: it is loaded and called."""
    module = graph.load(content, limits=limits).eval()
    given = [np.zeros([n if isinstance(n, int) else 2 for n in spec.shape or ()], spec.dtype) for spec in module.inputs]
    return module(*map(cr.tensor, given)) if sum(x.size for x in given) < 10_000 else None


# ---- Bytes ----


def test_the_valid_file_is_taken() -> None:
    content = small().SerializeToString()
    with at_most(to_load(content)):
        module = graph.load(content, limits=LIMITS)
    assert module(cr.tensor(IMAGE)).shape == (2, 4)


def test_a_file_that_is_cut_short_is_refused() -> None:
    content = small().SerializeToString()
    for end in range(0, len(content), 7):
        with pytest.raises(GraphError):
            forward(content[:end])


@pytest.mark.parametrize("content", [b"", b"\x00", b"\xff" * 100, b"PK\x03\x04" + bytes(200), b"{}", b"\x08" * 999])
def test_bytes_that_are_no_model_are_refused(content: bytes) -> None:
    refused(content, "these bytes are no ONNX model")


def test_a_model_without_outputs_is_refused() -> None:
    model = model_of([RELU])
    model.graph.ClearField("output")
    refused(model, "these bytes are no ONNX model: there is no graph with outputs in them")


def test_only_bytes_are_loaded() -> None:
    with pytest.raises(GraphError, match="loaded from bytes, not str"):
        graph.load("model.onnx")  # type: ignore[arg-type]


def _other(content: bytes, dice: random.Random) -> bytes:
    """The file with a few bytes changed, left out, repeated or put in."""
    changed = bytearray(content)
    for _ in range(dice.randint(1, 3)):
        at, far = dice.randrange(len(changed)), dice.randint(1, 12)
        match dice.randrange(5):
            case 0:
                changed[at] = dice.randrange(256)
            case 1:
                changed[at] ^= 1 << dice.randrange(8)
            case 2:
                del changed[at : at + far]
            case 3:
                changed[at:at] = changed[at : at + far]
            case _:
                changed[at:at] = dice.randbytes(far)
    return bytes(changed)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(8))
def test_changed_bytes_give_a_module_or_a_graph_error(seed: int) -> None:
    dice, content = random.Random(seed), small().SerializeToString()
    with at_most(to_load(content) + 3 * LIMITS.activation_bytes):
        for _ in range(60):
            changed = _other(content, dice)
            with suppress(GraphError):
                forward(changed)


def _nodes(made: Any) -> Iterator[Any]:
    for one in made.node:
        yield one
        for attribute in one.attribute:
            yield from _nodes(attribute.g)


def _damages(model: onnx.ModelProto) -> list[Callable[[random.Random], object]]:
    """Changes of a model that leave it a valid message."""
    nodes = [*_nodes(model.graph), *model.functions[0].node]
    values = [name for one in nodes for name in (*one.input, *one.output)] + ["", "nothing"]
    odd = [0, 1, -1, 7, 2**31, 2**62, -(2**63), 2**63 - 1]

    def rewire(dice: random.Random) -> None:
        one = dice.choice([n for n in nodes if n.input])
        one.input[dice.randrange(len(one.input))] = dice.choice(values)

    def rename(dice: random.Random) -> None:
        one = dice.choice([n for n in nodes if n.output])
        one.output[dice.randrange(len(one.output))] = dice.choice(values)

    def shorten(dice: random.Random) -> None:
        one = dice.choice(nodes)
        names = dice.choice([one.input, one.output])
        del names[dice.randrange(len(names) + 1) :]

    def lengthen(dice: random.Random) -> None:
        one = dice.choice(nodes)
        dice.choice([one.input, one.output]).append(dice.choice(values))

    def replace(dice: random.Random) -> None:
        one = dice.choice(nodes)
        one.op_type, one.domain = dice.choice([row for row in graph.operators() if not row.domain]).op, ""

    def attribute(dice: random.Random) -> None:
        name = dice.choice(["axis", "axes", "perm", "pads", "strides", "group", "k", "to", "value", "kernel_shape"])
        given: Any = dice.choice(odd) if dice.random() < 0.5 else [dice.choice(odd) for _ in range(dice.randint(1, 4))]
        dice.choice(nodes).attribute.append(helper.make_attribute(name, given))

    def dims(dice: random.Random) -> None:
        tensor = dice.choice(model.graph.initializer)
        tensor.dims.append(dice.choice(odd))

    def numbers(dice: random.Random) -> None:
        tensor = dice.choice([t for t in model.graph.initializer if t.data_type == INT64])
        count = len(tensor.raw_data) // 8
        tensor.raw_data = np.array([dice.choice(odd) for _ in range(count)], np.int64).tobytes()

    def drop(dice: random.Random) -> None:
        del model.graph.node[dice.randrange(len(model.graph.node))]

    return [rewire, rename, shorten, lengthen, replace, attribute, dims, numbers, drop]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("seed", range(8))
def test_damaged_models_give_a_module_or_a_graph_error(seed: int) -> None:
    dice = random.Random(seed)
    with at_most(to_load(small().SerializeToString()) + 3 * LIMITS.activation_bytes):
        for _ in range(40):
            model = small()
            damages = _damages(model)
            for _ in range(dice.randint(1, 2)):
                try:
                    dice.choice(damages)(dice)
                except IndexError:  # an earlier damage took what this one changes
                    continue
            with suppress(GraphError):
                forward(model.SerializeToString())


# ---- Nodes that contradict each other ----

RELU = node("Relu", "x", "y")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Add", "x z", "y"), node("Relu", "y", "z", name="back")], r'cycle, in or before node "culprit" \(Add\)'),
        ([node("Relu", "y", "y")], r'cycle, in or before node "culprit" \(Relu\)'),
        (
            [
                helper.make_node(op, names.split(), [made], made)
                for op, names, made in (("Add", "x b", "a"), ("Neg", "a", "b"), ("Relu", "a", "y"))
            ],
            r'the graph has a cycle, in or before node "a" \(Add\), node "b" \(Neg\), node "y" \(Relu\)',
        ),
        ([node("Relu", "nowhere", "y")], r'node "culprit" \(Relu\): its input "nowhere" is computed by no node'),
        ([node("Relu", "x", "y", name="first"), RELU], 'node "culprit" .*the name "y" is given to two values'),
        ([node("Split", "x", "y y", axis=1)], 'node "culprit" .*the name "y" is given to two values'),
        ([node("Relu", "x", "x"), node("Relu", "x", "y")], 'node "culprit" .*the name "x" is given to two values'),
        ([node("Relu", "x", "other")], 'output "y".*"y" is computed by no node'),
        ([node("Relu", "x x", "y")], 'node "culprit" .*it has 2 inputs'),
        ([node("Relu", "", "y")], 'node "culprit" .*it has 0 inputs'),
        ([node("Concat", "x x", "y")], 'node "culprit" .*attribute axis is missing'),
        ([node("Concat", "x x", "y", axis="one")], 'node "culprit" .*attribute axis is of kind str'),
        ([helper.make_node("Identity", [""], ["y"], name="culprit")], 'node "culprit" .*that it needs is not there'),
        ([node("Invented", "x", "y")], 'node "culprit": ai.onnx::Invented'),
        ([helper.make_node("Relu", ["x"], ["y"], name="culprit", domain="far.away")], 'node "culprit" .*"far.away"'),
        ([helper.make_node("Relu", ["x"], ["y"], name="culprit", domain="own")], 'node "culprit": own::Relu'),
    ],
    ids=str,
)
def test_nodes_that_do_not_go_together_are_refused(nodes: list[onnx.NodeProto], message: str) -> None:
    refused(model_of(nodes), message)


def test_an_attribute_that_is_given_twice_is_refused() -> None:
    twice = node("Relu", "x", "y")
    twice.attribute.extend([helper.make_attribute("a", 1)] * 2)
    refused(model_of([twice]), r'node "culprit" \(Relu\): attribute "a" is given twice')


@pytest.mark.parametrize("opset", [-1, 0, 5, 27, 10**6, 2**62])
def test_versions_that_are_not_known_are_refused(opset: int) -> None:
    assert 'node "culprit"' in refused(model_of([RELU], opset=opset), r"ai.onnx::Relu .*taken from opset 6 to").message


def test_a_domain_without_a_version_is_refused() -> None:
    model = model_of([RELU], opset_imports=[helper.make_opsetid("own", 1)])
    refused(model, r'node "culprit" \(Relu\): the file does not import a version of its domain "ai.onnx"')


def test_a_loop_is_refused() -> None:
    body = helper.make_graph(
        [node("Identity", "go", "on", name="a"), node("Relu", "v", "w", name="b")],
        "body",
        [value("i", kind=INT64), value("go", kind=TensorProto.BOOL), value("v", 2, 3)],
        [value("on", kind=TensorProto.BOOL), value("w", 2, 3)],
    )
    times, go = numpy_helper.from_array(np.array(2**62), "times"), numpy_helper.from_array(np.array(True), "yes")
    error = refused(
        model_of([node("Loop", "times yes x", "y", body=body)], [times, go]), 'node "culprit": ai.onnx::Loop'
    )
    assert isinstance(error, UnsupportedError)


def test_a_condition_that_is_not_there_is_refused() -> None:
    branch = helper.make_graph([node("Relu", "x", "z")], "b", [], [value("z", 2, 3)])
    missing = helper.make_node("If", [""], ["y"], name="if", then_branch=branch, else_branch=branch)
    refused(model_of([missing]), r'node "if" \(If\): it needs a condition')


# ---- Initialisers ----


def tensor(kind: int = FLOAT, dims: Sequence[int] = (2, 3), **fields: Any) -> onnx.TensorProto:
    return TensorProto(name="w", data_type=kind, dims=dims, **fields)


def elsewhere(location: str) -> onnx.TensorProto:
    made = tensor(data_location=TensorProto.EXTERNAL)
    made.external_data.add(key="location", value=location)
    return made


SIX = bytes(24)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (tensor(raw_data=SIX[:-1]), "are 24 bytes, its data is 23 bytes"),
        (tensor(raw_data=SIX, dims=[2, 4]), "are 32 bytes, its data is 24 bytes"),
        (tensor(dims=[2**40], raw_data=SIX), "bytes, its data is 24 bytes"),
        (tensor(dims=[2**32, 2**32], raw_data=b""), "bytes, its data is 0 bytes"),
        (tensor(dims=[2**62, 4], raw_data=b""), "bytes, its data is 0 bytes"),
        (tensor(dims=[-2, -3], raw_data=SIX), "are negative"),
        (tensor(dims=[-(2**63)], raw_data=SIX), "are negative"),
        (tensor(dims=[1] * 33, raw_data=SIX[:4]), "33 dimensions"),
        (tensor(dims=[1] * 1000, raw_data=SIX[:4]), "1000 dimensions"),
        (tensor(float_data=[0.0] * 5), "are 6 elements, its data has 5"),
        (tensor(dims=[2**40]), "elements, its data has 0"),
        (tensor(TensorProto.INT8, dims=[1], int32_data=[300]), "elements that int8 does not hold"),
        (tensor(TensorProto.STRING, dims=[1], string_data=[b"text"]), "data type STRING is not supported"),
        (tensor(TensorProto.COMPLEX64, raw_data=2 * SIX), "data type COMPLEX64 is not supported"),
        (tensor(TensorProto.UNDEFINED, raw_data=SIX), "data type UNDEFINED is not supported"),
        (tensor(1234, raw_data=SIX), "data type number 1234 is not supported"),
        (tensor(raw_data=SIX, segment=TensorProto.Segment(begin=0, end=3)), "segment"),
        *((elsewhere(p), "its data is in another file") for p in ("weights.bin", "../../etc/passwd", "/dev/zero", "")),
        (tensor(raw_data=SIX, external_data=[onnx.StringStringEntryProto(key="offset", value="1")]), "another file"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_initialisers_that_lie_are_refused(made: onnx.TensorProto, message: str) -> None:
    assert 'initialiser "w"' in refused(model_of([node("Add", "x w", "y")], [made]), message).message
    constant = node("Constant", "", "w", value=made)
    assert 'node "culprit"' in refused(model_of([constant, node("Add", "x w", "y", name="n")]), message).message


def test_initialisers_of_one_name_are_refused() -> None:
    made = tensor(raw_data=SIX)
    refused(model_of([node("Add", "x w", "y")], [made, made]), 'initialiser "w": the name "w" is given to two values')
    refused(model_of([node("Add", "x w", "w")], [made]), 'node "culprit" .*"w" is given to two values')


def test_sparse_initialisers_are_refused() -> None:
    sparse = onnx.SparseTensorProto(values=tensor(dims=[1], raw_data=SIX[:4]), dims=[2**40])
    model = model_of([node("Add", "x w", "y")])
    model.graph.sparse_initializer.append(sparse)
    refused(model, 'initialiser "w": it is sparse')
    constant = node("Constant", "", "w")
    constant.attribute.append(helper.make_attribute("sparse_value", sparse))
    refused(model_of([constant, node("Add", "x w", "y", name="n")]), 'node "culprit"')


def test_an_architecture_that_asks_for_huge_weights_is_refused() -> None:
    model = model_of([node("MatMul", "x w", "y")], inputs=[value("x", 2, 3), value("w", 3, 2**40)])
    model.metadata_props.add(key="chainrule.weights", value='["w"]')
    refused(model, "the weights take .* bytes; at most 262144 are allowed")


@pytest.mark.parametrize("note", ["", "{", "[1]", '{"w": 1}', "[" * 100_000, "null"])
def test_metadata_that_makes_no_sense_is_refused(note: str) -> None:
    model = model_of([RELU])
    model.metadata_props.add(key="chainrule.weights", value=note)
    refused(model, 'metadata "chainrule.weights" is not a JSON list of names')


# ---- Names ----


@pytest.mark.parametrize("name", [b"xyzzy", b"culprit"])
def test_names_that_are_no_text_are_refused(name: bytes) -> None:
    model = model_of([node("Relu", "x", "xyzzy"), node("Relu", "xyzzy", "y", name="n")])
    content = model.SerializeToString()
    refused(content.replace(name, b"\xff\xfe" + name[2:]), "a text that is not UTF-8, at byte")


def test_an_attribute_that_is_no_text_is_refused() -> None:
    model = model_of([node("Pad", "x p", "y", mode="reflect")], [fixed("p", 0, 1, 0, 1)])
    refused(model.SerializeToString().replace(b"reflect", b"\xff\xfeflect"), "is no text|not UTF-8|culprit")


@pytest.mark.parametrize("name", ["", ".", "..", "a..b", "forward", "__class__", "_parameters.x", "training", "\x00"])
def test_odd_names_of_weights_do_no_harm(name: str) -> None:
    model = model_of([helper.make_node("Add", ["x", name], ["y"], name="n")], [fixed(name, 1, 2, 3, kind=np.float32)])
    if not name:
        refused(model, "an initialiser has no name")
        return
    module = graph.load(model.SerializeToString(), limits=LIMITS)
    assert [p.tolist() for p in module.parameters()] == [[1, 2, 3]]
    assert module(cr.zeros(2, 3)).tolist() == [[1, 2, 3]] * 2
    assert callable(module.forward)


# ---- Inputs ----


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (value("x", -3), 'input "x": a dimension of -3'),
        (value("x", 2, kind=TensorProto.STRING), 'input "x": data type STRING'),
        (value("x", 2, kind=0), 'input "x": data type'),
        (onnx.ValueInfoProto(name="x"), 'input "x": it is a value without a type'),
        (helper.make_tensor_sequence_value_info("x", FLOAT, [2]), 'input "x": it is a sequence_type'),
        (value("", 2), "an input of the graph has no name"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_inputs_that_make_no_sense_are_refused(given: onnx.ValueInfoProto, message: str) -> None:
    refused(model_of([RELU], inputs=[given]), message)


def test_an_input_whose_shape_is_a_lie_is_refused() -> None:
    module = graph.load(model_of([RELU], inputs=[value("x", 2**40, 2**40)]).SerializeToString(), limits=LIMITS)
    with at_most(2**18), pytest.raises(GraphError, match='input "x" has the shape'):
        module(cr.ones(2, 3))


@pytest.mark.parametrize(
    "made",
    [
        node("Reshape", "x n", "y"),
        node("Unsqueeze", "x n", "y"),
        node("Squeeze", "x n", "y"),
        node("Expand", "x n", "y"),
        node("Tile", "x n", "y"),
        node("ReduceSum", "x n", "y"),
        node("TopK", "x n", "y i"),
        node("Slice", "x n n", "y"),
        node("CumSum", "x n", "y"),
        node("Pad", "x n", "y"),
        node("Split", "x n", "y"),
    ],
    ids=lambda made: made.op_type,
)
def test_axes_and_lengths_that_are_no_integers_are_refused(made: onnx.NodeProto) -> None:
    content = model_of([made], [fixed("n", 1.5, kind=np.float32)]).SerializeToString()
    with pytest.raises(GraphError, match=r'node "culprit" .*are integers, not float32'):
        graph.load(content, limits=LIMITS)(cr.ones(2, 3))


def test_indices_and_lengths_that_point_nowhere_are_errors_of_the_node() -> None:
    table, rows = numpy_helper.from_array(np.ones((5, 3), np.float32), "w"), value("x", "N", kind=INT64)
    gather = graph.load(model_of([node("Gather", "w x", "y")], [table], [rows]).SerializeToString(), limits=LIMITS)
    with pytest.raises(GraphError, match=r'node "culprit" \(Gather\): .* index 7 is out of bounds'):
        gather(cr.tensor(np.array([1, 7])))
    reshape = graph.load(model_of([node("Reshape", "x s", "y")], [fixed("s", 7, -1)]).SerializeToString())
    with pytest.raises(GraphError, match=r'node "culprit" \(Reshape\): it cannot be computed from inputs of shapes'):
        reshape(cr.ones(2, 3))


def test_outputs_whose_shape_is_a_lie_are_not_relied_on() -> None:
    model = model_of([RELU])
    model.graph.output[0].CopyFrom(value("y", 2**40, 7))
    model.graph.value_info.append(value("x", 2**60))
    content = model.SerializeToString()
    with at_most(to_load(content)):
        y: Any = graph.load(content, limits=LIMITS)(cr.ones(2, 3))
    assert y.shape == (2, 3)


def arrays_of(content: bytes) -> dict[str, Array]:
    return graph.split(content, limits=LIMITS)[1]


@pytest.mark.parametrize("act", [graph.check, graph.load, arrays_of], ids=["check", "load", "split"])
def test_every_way_in_refuses(act: Callable[[bytes], object]) -> None:
    with pytest.raises(GraphError, match=r'initialiser "w".*another file'):
        act(model_of([node("Add", "x w", "y")], [elsewhere("../../etc/passwd")]).SerializeToString())
