"""Files that are broken, or made to do harm, are refused with a GraphError before they cost anything."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import chainrule.engine as cr
from chainrule.engine import graph
from chainrule.engine.dtypes import Array
from chainrule.engine.graph import GraphError, Limits, UnsupportedError

LIMITS = Limits(
    fields=2_000,
    nodes=300,
    weight_bytes=2**18,
    folded_bytes=2**18,
    tensor_bytes=2**19,
    activation_bytes=2**20,
)
STRUCTURES = 2**21
"""What the objects of 300 nodes, and of Python's own, may take."""
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def to_load(content: bytes, limits: Limits = LIMITS) -> int:
    """The bytes that loading may take at most, as the limits' docstring says."""
    return 3 * len(content) + 1024 * limits.fields + limits.weight_bytes + 2 * limits.folded_bytes + STRUCTURES


@contextmanager
def at_most(count: int) -> Iterator[None]:
    """At no moment are more bytes allocated."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak <= count


def refused(model: onnx.ModelProto | bytes, message: str, limits: Limits = LIMITS) -> GraphError:
    """The error of loading, which costs no more than it may."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    with at_most(to_load(content, limits)), pytest.raises(GraphError, match=message) as caught:
        graph.load(content, limits=limits)
    return caught.value


# ---- Files ----


def value(name: str, *shape: Any, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def fixed(name: str, *numbers: Any, kind: Any = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(numbers, kind), name)


def node(op: str, inputs: str, outputs: str, name: str = "culprit", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=name, **attributes)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    initialisers: Sequence[onnx.TensorProto] = (),
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    output: str = "y",
    opset: int = 18,
    **settings: Any,
) -> onnx.ModelProto:
    entering = [value("x", 2, 3)] if inputs is None else inputs
    made = helper.make_graph(
        list(nodes), "g", list(entering), [helper.make_empty_tensor_value_info(output)], list(initialisers)
    )
    settings.setdefault("opset_imports", [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)])
    return helper.make_model(made, ir_version=8, **settings)


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
        ([node("Relu", "nowhere", "y")], r'node "culprit" \(Relu\): its input "nowhere" is computed by no node'),
        ([node("Relu", "x", "y", name="first"), RELU], 'node "culprit" .*the name "y" is given to two values'),
        ([node("Split", "x", "y y", axis=1)], 'node "culprit" .*the name "y" is given to two values'),
        ([node("Relu", "x", "x"), node("Relu", "x", "y")], 'node "culprit" .*the name "x" is given to two values'),
        ([node("Relu", "x", "other")], 'output "y".*"y" is computed by no node'),
        ([node("Relu", "x x", "y")], 'node "culprit" .*it has 2 inputs'),
        ([node("Relu", "", "y")], 'node "culprit" .*it has 0 inputs'),
        ([node("Concat", "x x", "y")], 'node "culprit" .*attribute axis is missing'),
        ([node("Concat", "x x", "y", axis="one")], 'node "culprit" .*attribute axis is of kind str'),
        ([node("Invented", "x", "y")], 'node "culprit": ai.onnx::Invented'),
        ([helper.make_node("Relu", ["x"], ["y"], name="culprit", domain="far.away")], 'node "culprit" .*"far.away"'),
        ([helper.make_node("Relu", ["x"], ["y"], name="culprit", domain="own")], 'node "culprit": own::Relu'),
    ],
    ids=str,
)
def test_nodes_that_do_not_go_together_are_refused(nodes: list[onnx.NodeProto], message: str) -> None:
    refused(model_of(nodes), message)


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


def test_a_function_of_two_bodies_is_refused() -> None:
    one = function("F", node("Relu", "a", "b"))
    refused(model_of([call("F", "x", "y")], functions=[one, one]), 'function "own::F" is defined twice')


def test_a_function_with_a_cycle_is_refused() -> None:
    body = function("F", node("Add", "a d", "b", name="one"), node("Relu", "b", "d", name="two"))
    refused(model_of([call("F", "x", "y")], functions=[body]), "the graph has a cycle")


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
