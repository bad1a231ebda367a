"""What is malformed, contradictory or too large is refused, by name, before memory is taken for it."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import chainrule.engine as cr
from chainrule.engine import graph
from tests.engine.graph.making import INT64, content, draw, model, node, tensor, value

SMALL = graph.Limits(folded_bytes=2**20, tensor_bytes=2**20, activation_bytes=2**22, weight_bytes=2**22, nodes=2000)
ROOM = 2**24
"""What a refusal may take: far less than what each of these files asks for."""


def changed(change: Callable[[Any], object], weights: dict[str, Any] | None = None) -> bytes:
    """x · w, with something wrong."""
    made = model([node("MatMul", "x w", "h", "product"), node("Relu", "h", "y", "last")], weights or {"w": draw(4, 4)})
    change(made)
    return bytes(made.SerializeToString())


def weight(**fields: Any) -> Callable[[Any], None]:
    def change(made: Any) -> None:
        for name, new in fields.items():
            old = getattr(made.graph.initializer[0], name)
            if isinstance(new, list):
                del old[:]
                old.extend(new)
            else:
                setattr(made.graph.initializer[0], name, new)

    return change


def external(made: Any) -> None:
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    made.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def sparse(made: Any) -> None:
    made.graph.sparse_initializer.add().values.name = "s"


def nested(depth: int) -> Callable[[Any], None]:
    def change(made: Any) -> None:
        attribute = made.graph.node[0].attribute.add(name="body", type=onnx.AttributeProto.GRAPH)
        for _ in range(depth):
            inner = attribute.g.node.add(op_type="If")
            attribute = inner.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)

    return change


MALFORMED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no graph with outputs"),
    "text": (b"hello, world", "these bytes are no ONNX model"),
    "cut short": (content([node("Relu", "x", "y")])[:-7], "these bytes are no ONNX model"),
    "no outputs": (changed(lambda m: m.graph.ClearField("output")), "no graph with outputs"),
    "shape lies": (changed(weight(dims=[400, 400])), r'initialiser "w": dimensions \[400, 400\] of float32 are 640000'),
    "shape is negative": (changed(weight(dims=[-4, -4])), r'initialiser "w": dimensions \[-4, -4\] are negative'),
    "shape overflows": (changed(weight(dims=[2**32, 2**32])), r'initialiser "w": .* its data is 64 bytes'),
    "many dimensions": (changed(weight(dims=[1] * 50)), 'initialiser "w": 50 dimensions'),
    "unknown type": (changed(weight(data_type=999)), 'initialiser "w": data type number 999'),
    "text as data": (changed(weight(data_type=TensorProto.STRING)), 'initialiser "w": data type STRING'),
    "external data": (changed(external), 'initialiser "w": its data is in another file'),
    "sparse": (changed(sparse), 'initialiser "s": it is sparse'),
    "name twice": (
        changed(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
        'initialiser "w": the name "w" is given to two values',
    ),
    "output twice": (
        changed(lambda m: m.graph.node.append(node("Relu", "x", "h", "again"))),
        r'node "again" \(Relu\): the name "h" is given to two values',
    ),
    "undefined input": (
        changed(lambda m: m.graph.node[1].input.__setitem__(0, "nobody")),
        r'node "last" \(Relu\): its input "nobody" is computed by no node',
    ),
    "undefined output": (
        changed(lambda m: m.graph.output.append(value("nobody"))),
        'output "nobody": its input "nobody" is computed by no node',
    ),
    "no such domain": (
        changed(lambda m: setattr(m.graph.node[0], "domain", "else")),
        r'node "product" \(MatMul\): the file does not import a version of its domain "else"',
    ),
    "too many inputs": (
        changed(lambda m: m.graph.node[1].input.extend(["x", "x"])),
        r'node "last" \(Relu\): it has 3 inputs, which do not fit its operator',
    ),
    "attribute twice": (
        changed(lambda m: m.graph.node[0].attribute.extend([helper.make_attribute("a", 1)] * 2)),
        r'node "product" \(MatMul\): attribute "a" is given twice',
    ),
    "deep": (changed(nested(40)), "nests messages deeper than 48"),
    "input is a list": (
        changed(lambda m: m.graph.input[0].type.sequence_type.elem_type.tensor_type.__setattr__("elem_type", 1)),
        'input "x": it is a sequence_type, not a tensor',
    ),
    "cycle": (
        content([node("Add", "x b", "a", "one"), node("Neg", "a", "b", "two"), node("Relu", "a", "y", "three")]),
        r'the graph has a cycle, in or before node "one" \(Add\), node "two" \(Neg\), node "three" \(Relu\)',
    ),
    "names that are no list": (
        changed(lambda m: m.metadata_props.add(key="chainrule.weights", value="[" * 100_000)),
        'metadata "chainrule.weights" is not a JSON list of names',
    ),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_malformed_is_refused(what: str) -> None:
    file, message = MALFORMED[what]
    for call in (graph.load, graph.check):
        with pytest.raises(graph.GraphError, match=message):
            call(file)


def test_a_file_may_not_be_too_large() -> None:
    with pytest.raises(graph.GraphError, match=r"the file has \d+ bytes; at most 100 are taken"):
        graph.load(changed(lambda m: None), max_bytes=100)


def test_only_bytes_are_loaded() -> None:
    with pytest.raises(graph.GraphError, match="loaded from bytes, not str"):
        graph.load("model.onnx")  # type: ignore[arg-type]


# ---- Large things from small files ----


def repeated(op: str, count: int) -> bytes:
    """x + x + x + … each time to itself: 2ᶜᵒᵘⁿᵗ times as much."""
    nodes = [
        node(op, f"{'x' if i == 0 else f'h{i}'} {'x' if i == 0 else f'h{i}'}", f"h{i + 1}", f"n{i}", axis=0)
        for i in range(count)
    ]
    return content([*nodes, node("Relu", f"h{count}", "y")])


def functions(depth: int) -> bytes:
    """f0 calls f1 twice, which calls f2 twice, …"""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    made = []
    for i in range(depth):
        inner = [
            helper.make_node(f"F{i + 1}", [a], [b], f"call{k}", domain="f") if i < depth - 1 else node("Neg", a, b)
            for k, (a, b) in enumerate((("a", "m"), ("m", "b")))
        ]
        made.append(helper.make_function("f", f"F{i}", ["a"], ["b"], inner, opsets))
    return content([helper.make_node("F0", ["x"], ["y"], "outer", domain="f")], functions=made, domains=["f"])


def recursive() -> bytes:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    body = [helper.make_node("F", ["a"], ["b"], "inner", domain="f")]
    made = helper.make_function("f", "F", ["a"], ["b"], body, opsets)
    return content([helper.make_node("F", ["x"], ["y"], "outer", domain="f")], functions=[made], domains=["f"])


def carried(times: int) -> bytes:
    """A function with a large constant, called often."""
    constant = helper.make_node("Constant", [], ["c"], "c", value=tensor("c", draw(1000, 100)))
    body = [constant, node("Add", "a c", "b")]
    made = helper.make_function("f", "F", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    calls = [
        helper.make_node("F", ["x" if i == 0 else f"h{i}"], [f"h{i + 1}"], f"n{i}", domain="f") for i in range(times)
    ]
    return content([*calls, node("Relu", f"h{times}", "y")], functions=[made], domains=["f"])


BIG = np.array([10**6, 10**6])
FOLDED: dict[str, tuple[bytes, str]] = {
    "ConstantOfShape": (
        content([node("ConstantOfShape", "s", "c"), node("Add", "x c", "y")], {"s": BIG}),
        "constantofshape",
    ),
    "Expand": (
        content([node("Expand", "one s", "c"), node("Add", "x c", "y")], {"one": np.array([1]), "s": BIG}),
        "expand",
    ),
    "Tile": (content([node("Tile", "m s", "c"), node("Add", "x c", "y")], {"m": np.array([[1]]), "s": BIG}), "tile"),
    "Range": (
        content(
            [node("Range", "a b c", "r"), node("Add", "x r", "y")],
            {"a": np.array(0), "b": np.array(10**12), "c": np.array(1)},
        ),
        "range",
    ),
    "OneHot": (
        content(
            [node("OneHot", "i d v", "h"), node("Add", "x h", "y")],
            {"i": np.array([1, 2]), "d": np.array(10**12), "v": np.array([0, 1])},
        ),
        "onehot",
    ),
    "Pad": (content([node("Pad", "m p", "c"), node("Add", "x c", "y")], {"m": np.array([1]), "p": BIG * 10**6}), "pad"),
    "a product of columns and rows": (
        content(
            [node("MatMul", "a b", "c"), node("Add", "x c", "y")],
            {"a": np.ones((10_000, 1), np.int64), "b": np.ones((1, 10_000), np.int64)},
        ),
        "matmul",
    ),
    "a sum of columns and rows": (
        content(
            [node("Add", "a b", "c"), node("Add", "x c", "y", "last")],
            {"a": np.ones((10_000, 1), np.int64), "b": np.ones((1, 10_000), np.int64)},
        ),
        "add",
    ),
    "many constants": (
        content(
            [
                *[node("ConstantOfShape", "s", f"c{i}", f"constant{i}") for i in range(100)],
                *[node("Add", f"{'x' if i == 0 else f'h{i}'} c{i}", f"h{i + 1}", f"sum{i}") for i in range(100)],
                node("Relu", "h100", "y"),
            ],
            {"s": np.array([300, 300])},
        ),
        "constant",
    ),
}


@pytest.mark.parametrize("what", FOLDED)
def test_constants_that_grow_are_refused(what: str) -> None:
    file, name = FOLDED[what]
    with measured(), pytest.raises(graph.GraphError, match=rf'node "{name}\d*" \(\w+\): .* bytes'):
        graph.load(file, limits=SMALL)


FORWARDS: dict[str, tuple[bytes, str]] = {
    "Expand": (content([node("Expand", "x s", "y")], {"s": np.array([10**9, 1, 4])}), "expand"),
    "Tile": (content([node("Tile", "x s", "y")], {"s": np.array([10**9, 1])}), "tile"),
    "Pad": (content([node("Pad", "x s", "y")], {"s": np.array([0, 10**9, 0, 0])}), "pad"),
    "Einsum": (content([node("Einsum", "x x x x x", "y", equation="ab,cd,ef,gh,ij->abcdefghij")]), "einsum"),
    "Concat": (repeated("Concat", 60), "n13"),
    "Upsampling": (
        content([node("Resize", "x - s", "y", mode="nearest")], {"s": np.array([1, 1e9], np.float32)}),
        "resize",
    ),
    "Convolution": (
        content(
            [node("Conv", "x w", "y", pads=[10**8, 10**8])], {"w": draw(1, 3, 1)}, inputs=[value("x", ("N", 3, 4))]
        ),
        "conv",
    ),
    "Pooling": (
        content(
            [node("MaxPool", "x", "y", kernel_shape=[10**8], pads=[10**8 - 1, 10**8 - 1])],
            inputs=[value("x", ("N", 3, 4))],
        ),
        "maxpool",
    ),
}


@pytest.mark.parametrize("what", FORWARDS)
def test_a_forward_that_grows_is_refused(what: str) -> None:
    file, name = FORWARDS[what]
    module = graph.load(file, limits=SMALL)
    shape = (8, *(n for n in module.inputs[0].shape or () if isinstance(n, int)))
    with measured(), pytest.raises(graph.GraphError, match=rf'node "{name}" \(\w+\): .*'):
        module(cr.tensor(draw(*shape)))


def test_a_forward_of_many_small_steps_is_bounded() -> None:
    count = 1000
    nodes = [node("Exp", "x" if i == 0 else f"h{i}", f"h{i + 1}", f"n{i}") for i in range(count)]
    module = graph.load(content([*nodes, node("Relu", f"h{count}", "y")]), limits=SMALL)
    with pytest.raises(graph.GraphError, match=r"the forward takes more than 4194304 bytes|at most"):
        module(cr.tensor(draw(1000, 4)))


def test_weights_apart_are_bounded() -> None:
    made = model([node("MatMul", "x w", "y")], inputs=[value("x"), value("w", (4, 10**12))])
    made.metadata_props.add(key="chainrule.weights", value='["w"]')
    with measured(), pytest.raises(graph.GraphError, match="the weights take 16000000000000 bytes; at most"):
        graph.load(made.SerializeToString())


def test_calls_of_functions_are_bounded() -> None:
    with measured(), pytest.raises(graph.GraphError, match="more than 2000 nodes"):
        graph.load(functions(30), limits=SMALL)
    with measured(), pytest.raises(graph.GraphError, match="functions call functions deeper than 48"):
        graph.load(recursive())
    with measured(), pytest.raises(graph.GraphError, match="functions of the file hold more than they may"):
        graph.load(carried(200), limits=SMALL)


def test_fields_are_counted_before_they_are_parsed() -> None:
    empty_nodes = b"\x0a\x00" * 3_000_000  # each would be a message of its own
    length = len(empty_nodes)
    varint = bytes([length & 127 | 128, length >> 7 & 127 | 128, length >> 14 & 127 | 128, length >> 21])
    with measured(), pytest.raises(graph.GraphError, match="more than 2000000 fields"):
        graph.load(b"\x3a" + varint + empty_nodes)


def test_integers_in_floats_clothing() -> None:
    """Indices and lengths that point nowhere are errors of the node, not of the process."""
    gather = graph.load(content([node("Gather", "w i", "y")], {"w": draw(5, 3)}, inputs=[value("i", ("N",), INT64)]))
    with pytest.raises(graph.GraphError, match=r'node "gather" \(Gather\): .* index 7 is out of bounds'):
        gather(cr.tensor(np.array([1, 7])))
    reshape = graph.load(content([node("Reshape", "x s", "y")], {"s": np.array([7, -1])}))
    with pytest.raises(
        graph.GraphError, match=r'node "reshape" \(Reshape\): it cannot be computed from inputs of shapes'
    ):
        reshape(cr.tensor(draw(2, 4)))


class measured:  # noqa: N801 - reads as a statement
    """Fails if what is inside takes more memory than a refusal may."""

    def __enter__(self) -> None:
        tracemalloc.start()

    def __exit__(self, *error: object) -> None:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < ROOM, peak


# ---- Damage ----


def test_damaged_files_are_refused_or_loaded() -> None:
    """Bytes changed at random, wherever: never another error than ours, never a large allocation."""
    weights = {"w": draw(4, 4), "bn.weight": draw(4), "s": np.array([0, -1])}
    whole = content(
        [
            node("MatMul", "x w", "a"),
            node("Add", "a bn.weight", "b"),
            node("Shape", "b", "shape"),
            node("Expand", "b shape", "c"),
            node("Reshape", "c s", "d", allowzero=0),
            node("Softmax", "d", "y", axis=-1),
        ],
        weights,
    )
    draws = random.Random(1)
    loaded = 0
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(draws.choice((1, 1, 2, 5))):
            damaged[draws.randrange(len(damaged))] = draws.randrange(256)
        with contextlib.suppress(graph.GraphError):
            module = graph.load(bytes(damaged), limits=SMALL)
            module(*map(example, module.inputs))
            loaded += 1
    assert loaded > 100


def example(spec: graph.TensorSpec) -> cr.Tensor:
    """Ones of the shape that an input is said to have, as far as that is small."""
    return cr.tensor(np.ones([n if isinstance(n, int) and n < 100 else 2 for n in spec.shape or ()], spec.dtype))
