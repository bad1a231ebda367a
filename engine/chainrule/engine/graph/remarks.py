"""What may not be as the author of a file expects, found in the graph and said with a remedy."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from chainrule.engine.graph.node import Node
from chainrule.engine.graph.roles import Roles
from chainrule.engine.graph.source import Source, TensorSpec

_folded = re.compile(r"(onnx::Conv_\d+|.*\.weight_bias|.*_folded)")
"""The names of a convolution's bias that a batch normalisation has left behind: of either exporter of PyTorch."""
_REMEDY = (
    "export the module in training mode: torch.onnx.export(..., training=torch.onnx.TrainingMode.TRAINING, "
    "do_constant_folding=False), or with dynamo=True, optimize=False"
)


def found_in(source: Source, roles: Roles) -> list[str]:
    """What there is to say about a graph."""
    return [*_folded_norms(source), *_norms_of_keras(source), *_shared_vectors(source, roles)]


def freed(inputs: list[TensorSpec]) -> tuple[list[TensorSpec], list[str]]:
    """The inputs with the batch free, if the file fixes every length, and what to say about that."""
    shapes = [spec.shape for spec in inputs if spec.shape]
    if not shapes or any(not isinstance(n, int) for shape in shapes for n in shape):
        return inputs, []
    free = [replace(spec, shape=(None, *spec.shape[1:])) if spec.shape else spec for spec in inputs]
    return free, [
        "the file fixes the length of every dimension; the first of each input is taken as the batch and may vary, "
        "unless a node has its length written in: export with dynamic_axes={name: {0: 'batch'}}, or with dynamo=True, "
        "dynamic_shapes"
    ]


def _folded_norms(source: Source) -> list[str]:
    nodes = source.block.nodes
    kept = "some of " if any(node.op == "BatchNormalization" for node in nodes) else ""
    folded = [node.name for node in nodes if node.op in ("Conv", "ConvTranspose") and _has_norm(node)]
    if not folded or source.producer != "pytorch":
        return []
    names = ", ".join(f'"{name}"' for name in folded[:3])
    return [
        f"{len(folded)} convolutions ({names}{', ...' if len(folded) > 3 else ''}) have weights that no module had: "
        f"{kept}the network's BatchNorm layers were folded into them when it was exported for inference. It trains, "
        f"but without them, and its weights do not go back into the module; {_REMEDY}"
    ]


def _norms_of_keras(source: Source) -> list[str]:
    names = sorted({name.partition("/batchnorm/")[0] for name in source.weights if "/batchnorm/" in name})
    if not names or source.producer != "tf2onnx":
        return []
    return [
        f'BatchNormalization is a scale and a shift in this file, as it is in evaluation: "{names[0]}"'
        f"{f' and {len(names) - 1} others' if len(names) > 1 else ''}. They are learnt, its statistics are not moved; "
        "Dropout of Keras is not in the file at all"
    ]


def _has_norm(node: Node) -> bool:
    """Whether a convolution is said to be a normalisation's, or its bias is called as only those are."""
    return ".batchnorm." in node.module or (len(node.inputs) == 3 and _folded.fullmatch(node.inputs[2]) is not None)


def _shared_vectors(source: Source, roles: Roles) -> list[str]:
    """Vectors that several normalisations take, which an optimiser of graphs does to those that are equal."""
    if source.producer != "pytorch":
        return []
    layers = ("LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization")
    counts = Counter(x for node in roles.block.nodes if node.op in layers for x in node.inputs[1:3])
    shared = [name for name, n in counts.items() if n > 1 and name in roles.parameters]
    if not shared:
        return []
    return [
        f'"{shared[0]}"{f" and {len(shared) - 1} others" if len(shared) > 1 else ""}: several normalisations share it; '
        f"if they do not in the module, the exporter wrote equal weights once, and they are learnt as one; {_REMEDY}"
    ]
