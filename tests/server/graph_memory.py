"""What loading a file takes of a process, protobuf's own memory included: `python -m tests.server.graph_memory SHARE`.

For each kind of file that makes the most of one of the service's limits, divided by SHARE, a process of its own loads
it. Prints a JSON list of [kind, bytes taken, bytes that it may take, what came of it].
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from onnx import helper

from chainrule.engine import graph
from chainrule.server.networks import LIMITS


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def file_of(*parts: bytes, after: bytes = b"") -> bytes:
    """A model of these fields of its graph, from x to y."""
    x, y = (helper.make_tensor_value_info(name, 1, ("N", 4)).SerializeToString() for name in "xy")
    opset = helper.make_opsetid("", 17).SerializeToString()
    made = b"".join(parts) + field(11, x) + field(12, y)
    return varint(8) + varint(8) + field(7, made) + field(8, opset) + after


def node(op: str, inputs: list[str], outputs: list[str], more: bytes = b"") -> bytes:
    return field(1, helper.make_node(op, inputs, outputs).SerializeToString() + more)


def chain(limits: graph.Limits) -> bytes:
    count = limits.nodes - 1
    names = ["x", *(f"a{i}" for i in range(count)), "y"]
    return file_of(*(node("Relu", [names[i]], [names[i + 1]]) for i in range(count + 1)))


def outputs(limits: graph.Limits) -> bytes:
    each = limits.fields // 100 - 10
    splits = (node("Split", ["x"], [f"a{i}_{j}" for j in range(each)]) for i in range(100))
    return file_of(*splits, node("Relu", ["x"], ["y"]))


def attributes(limits: graph.Limits) -> bytes:
    """Graphs, each of nothing."""
    many = (field(5, field(1, b"%d" % i) + b"\xa0\x01\x05" + field(6, b"")) for i in range(limits.fields // 4 - 10))
    return file_of(node("Relu", ["x"], ["y"], b"".join(many)))


def metadata(limits: graph.Limits) -> bytes:
    return file_of(node("Relu", ["x"], ["y"]), after=field(14, b"") * (limits.fields - 40))


def initialisers(limits: graph.Limits) -> bytes:
    many = (
        field(5, field(8, b"%d" % i) + b"\x10\x01" + field(1, b"\x01") + field(9, b"1234"))
        for i in range(limits.fields // 5 - 10)
    )
    return file_of(node("Relu", ["x"], ["y"]), *many)


def integers(limits: graph.Limits) -> bytes:
    listed = field(1, b"a") + b"\xa0\x01\x07" + field(8, b"\xff\x7f" * limits.numbers)
    return file_of(node("Relu", ["x"], ["y"], field(5, listed)))


def elements(limits: graph.Limits) -> bytes:
    count = limits.numbers - 1
    tensor = field(8, b"w") + field(1, varint(count)) + b"\x10\x07" + field(7, b"\x7f" * count)
    return file_of(node("Relu", ["x"], ["y"]), field(5, tensor))


def weights(limits: graph.Limits) -> bytes:
    count = limits.weight_bytes // 16
    tensor = field(8, b"w") + field(1, varint(count)) + b"\x10\x01" + field(9, np.ones(count, np.float32).tobytes())
    return file_of(node("Add", ["x", "w"], ["y"]), field(5, tensor))


PRICES = {"fields": 2**10, "numbers": 96, "nodes": 2**13, "weight_bytes": 1}
"""What one of what a limit counts may take, as `graph.Limits` says."""
KINDS: dict[Callable[[graph.Limits], bytes], str] = {
    chain: "nodes",
    outputs: "fields",
    attributes: "fields",
    metadata: "fields",
    initialisers: "fields",
    integers: "numbers",
    elements: "numbers",
    weights: "weight_bytes",
}
"""And which limit each kind of file makes the most of."""
SLACK = 2**21
"""What an allocator may take at once."""


def peak() -> int:
    """The most memory that this process has had."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def apart(function: Callable[[], Any]) -> Any:
    """What a function gives, called in a process of its own."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        with os.fdopen(reading) as answers:
            answer = answers.read()
        os.waitpid(child, 0)
        return json.loads(answer)
    with os.fdopen(writing, "w") as answer_file:
        json.dump(function(), answer_file)
    os._exit(0)


def loaded(file: Path, limits: graph.Limits) -> tuple[int, str]:
    """What loading takes beside the content, and what comes of it."""
    content = file.read_bytes()
    before = peak()
    try:
        graph.load(content, limits=limits)
    except graph.GraphError as error:
        return peak() - before, error.message
    return peak() - before, "loaded"


def measured(kind: Callable[[graph.Limits], bytes], limits: graph.Limits, folder: Path) -> list[object]:
    """The file is made in another process than it is loaded in, as that takes memory, too."""
    file = folder / kind.__name__
    size = apart(lambda: file.write_bytes(kind(limits)))
    taken, outcome = apart(lambda: loaded(file, limits))
    allowed = 3 * size + PRICES[KINDS[kind]] * getattr(limits, KINDS[kind]) + SLACK
    return [kind.__name__, taken, allowed, outcome]


def main(share: int) -> None:
    shared = {name: getattr(LIMITS, name) // share for name in (*PRICES, "folded_bytes")}
    with TemporaryDirectory() as folder:
        found = [measured(kind, replace(LIMITS, **shared), Path(folder)) for kind in KINDS]
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
