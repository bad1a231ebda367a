"""Sequences of tensors, which no plan holds: the parts of a tensor that are all taken one by one.

PyTorch's exporter with torch.export writes `x.chunk(3)` and `x.split(4)` so, where it is not to optimise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chainrule.engine.graph.node import Node


def without_sequences(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, where each `SequenceAt` of a `SplitToSequence` takes its part from the tensor itself."""
    splits = {node.outputs[0]: node for node in nodes if node.op == "SplitToSequence" and not node.domain}
    return [_part(node, splits) for node in nodes] if splits else list(nodes)


def _part(node: Node, splits: dict[str, Node]) -> Node:
    split = splits.get(node.inputs[0]) if node.op == "SequenceAt" and not node.domain else None
    if split is None or len(node.inputs) != 2:
        return node
    x, *lengths = split.inputs
    inputs = (x, lengths[0] if lengths else "", node.inputs[1])
    return replace(node, domain="chainrule", op="SplitPart", opset=1, inputs=inputs, attributes=split.attributes)
