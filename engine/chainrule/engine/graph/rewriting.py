"""Nodes put in the place of some that exporters write and that cannot be computed as they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from chainrule.engine.graph.node import Node
from chainrule.engine.graph.source import reads


def without_sequences(nodes: list[Node], outputs: Sequence[str]) -> list[Node]:
    """Has parts of a tensor that are taken out of a list of parts taken out of the tensor.

    PyTorch's exporters write `x.split(...)` as SplitToSequence and a SequenceAt for each part.
    """
    makers = {node.outputs[0]: node for node in nodes if node.op == "SplitToSequence" and not node.domain}
    users: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        for x in reads(node):
            if x in makers:
                users[x].append(node)
    simple = {
        name: maker
        for name, maker in makers.items()
        if name not in outputs and all(user.op == "SequenceAt" and not user.domain for user in users[name])
    }
    kept = []
    for node in nodes:
        maker = simple.get(node.inputs[0]) if node.op == "SequenceAt" and len(node.inputs) == 2 else None
        if maker is not None:
            inputs = (maker.inputs[0], node.inputs[1], *maker.inputs[1:2])
            part = Node(node.name, "chainrule", "SequencePart", 1, inputs, node.outputs, maker.attributes)
            kept.append(part)
        elif not node.outputs or node.outputs[0] not in simple:
            kept.append(node)
    return kept
