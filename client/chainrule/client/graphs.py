"""Graphs as they are sent and as they come back: ONNX files without weights, and what they say of a PyTorch module."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from chainrule.client import torch_modules
from chainrule.client.errors import InvalidInputError
from chainrule.client.networks import Arrays, Parcel, with_counters
from chainrule.engine import graph, nn

NOTES = "chainrule.state_dict"
"""The entry of a graph's metadata with what PyTorch's state_dict has besides the graph's, as JSON."""


@dataclass(frozen=True)
class Notes:
    """How the state_dict of a torch.nn.Module differs from that of its graph."""

    kept: tuple[str, ...] = ()
    """What the graph does not compute with: it is in the file as an initializer that no node takes."""
    same: Mapping[str, str] = field(default_factory=dict)
    """Further names of weights, and the name that the graph has for them."""
    left_out: tuple[str, ...] = ()
    """What the graph has and the state_dict has not: buffers that are not persistent."""


# What is sent.


def of_file(content: bytes) -> Parcel:
    """An ONNX file with its weights. Raises GraphError."""
    module = graph.load(content)
    return Parcel(graph=module.architecture, weights=_weights(module))


def of_module(module: nn.Module, example: object) -> Parcel:
    """A module of the engine that is of no family, with its weights.

    Raises:
        InvalidInputError: it has to be run once, and there is no example.
        GraphError: it cannot be exported.
    """
    if isinstance(module, graph.GraphModule):
        return Parcel(graph=module.architecture, weights=_weights(module))
    return of_file(exported(module, example))


def exported(module: nn.Module, example: Any) -> bytes:
    """A module of the engine as an ONNX file. Raises InvalidInputError if there is no example, or GraphError."""
    if example is None:
        raise InvalidInputError(
            f"{type(module).__name__} is exported by running it once: give example=, a batch of inputs"
        )
    return graph.export(module, example)


def of_torch(module: Any, example: object, weights: Arrays | None) -> Parcel:
    """A torch.nn.Module with its weights, or others, under the names of its state_dict. What that has besides those of
    the graph is noted in the file.

    Raises:
        InvalidInputError: it cannot be exported, or its weights would not be found again.
        GraphError: it has what cannot be trained here.
    """
    state = torch_modules.state_of(module)
    exported_file = torch_modules.exported(module, example)
    content, found = _without_weights(module, state, exported_file)
    notes = _notes(module, state, found)
    _check_learnt(module, notes, exported_file)
    if weights is not None:
        weights = with_counters(weights, state)
        _check_names(state, weights)
        state = weights
    architecture = ModelProto.FromString(content)
    names = {tensor.name for tensor in architecture.graph.initializer}
    architecture.graph.initializer.extend(
        numpy_helper.from_array(state[name], name) for name in notes.kept if name not in names
    )
    architecture.metadata_props.add(key=NOTES, value=json.dumps(asdict(notes)))
    return Parcel(
        graph=architecture.SerializeToString(deterministic=True),
        weights={name: state.get(name, array) for name, array in found.items()},
    )


def _without_weights(module: Any, state: Arrays, content: bytes) -> tuple[bytes, Arrays]:
    """The graph of a module without its weights, and what its state_dict has: what the module does not learn, as its
    buffers, is not learnt in the graph."""
    buffers = [name for name, _ in module.named_buffers()]
    for _ in range(2):  # what is learnt and should not be is known after the first
        architecture, weights = graph.split(content, buffers=buffers)
        loaded = graph.load(architecture)
        others = [loaded.names[name] for name, _ in loaded.named_parameters() if name not in state]
        if not others:
            return architecture, {**_weights(loaded), **weights}
        buffers += others
    raise InvalidInputError(
        f"the graph of {type(module).__name__} learns what is no parameter of it: {', '.join(others[:10])}; register "
        "it as a buffer, or export the module yourself and give the ONNX file"
    )


def _notes(module: Any, state: Arrays, found: Arrays) -> Notes:
    """What differs between a module's state_dict and that of its graph. Raises InvalidInputError if a weight would not
    be found again."""
    tensors = module.state_dict()
    places = {name: (tensors[name].data_ptr(), state[name].shape) for name in state}
    known = {places[name]: name for name in found if name in places}
    lacking = [name for name in state if name not in found]
    same = {name: known[places[name]] for name in lacking if state[name].size and places[name] in known}
    kept = tuple(name for name in lacking if name not in same)
    left_out = tuple(name for name in found if name not in state)
    strange = [name for name in found if name in state and found[name].shape != state[name].shape]
    strange += [name for name in kept if any(_has_values_of(found[other], state[name]) for other in left_out)]
    if strange:
        raise InvalidInputError(
            f"weights of {type(module).__name__} have other names or shapes in its graph: {', '.join(strange[:10])}; "
            "once trained they could not be loaded back. Export it yourself and give the ONNX file: then weights have "
            "the names that they have there"
        )
    return Notes(kept, same, left_out)


def _check_learnt(module: Any, notes: Notes, content: bytes) -> None:
    """Raises InvalidInputError if the graph computes with a parameter and does not learn it."""
    initializers = {tensor.name for tensor in ModelProto.FromString(content).graph.initializer}
    parameters = {name for name, _ in module.named_parameters()}
    constant = [name for name in notes.kept if name in parameters & initializers]
    if constant:
        raise InvalidInputError(
            f"parameters of {type(module).__name__} cannot be trained where its graph has them: "
            f"{', '.join(constant[:10])}; register them as buffers, or compute with them otherwise"
        )


def _has_values_of(array: np.ndarray, other: np.ndarray) -> bool:
    """Whether an array is another one, or its transpose."""
    return array.size == other.size > 1 and np.array_equal(np.sort(array, None), np.sort(other, None))


def _check_names(state: Arrays, weights: Arrays) -> None:
    lacking, strange = sorted(state.keys() - weights.keys()), sorted(weights.keys() - state.keys())
    if lacking or strange:
        raise InvalidInputError(
            f"weights lacks {lacking[:10]} of the module's state_dict, and has {strange[:10]} besides"
        )


def _weights(module: nn.Module) -> Arrays:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


# What comes back.


def completed(weights: Arrays, content: bytes) -> Arrays:
    """A graph's weights as the state_dict of the torch.nn.Module that it was made of, if it was made of one."""
    model = ModelProto.FromString(content)
    notes = _read_notes(model)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name in notes.kept}
    own = {name: array for name, array in weights.items() if name not in notes.left_out}
    return {**own, **stored, **{name: weights[one] for name, one in notes.same.items()}}


def _read_notes(model: ModelProto) -> Notes:
    text = next((entry.value for entry in model.metadata_props if entry.key == NOTES), None)
    return Notes() if text is None else Notes(**json.loads(text))


def module_of(content: bytes) -> graph.GraphModule:
    """A graph as a module of the engine, whose weights are yet to be loaded."""
    return graph.load(content)


def joined(content: bytes, weights: Arrays) -> bytes:
    """A graph with weights as an ONNX file for inference: BatchNorm uses its running statistics, and dropout does
    nothing."""
    model = ModelProto.FromString(graph.join(content, weights))
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        _evaluating(nodes)
    _drop_unused(model)
    return model.SerializeToString(deterministic=True)


def _drop_unused(model: ModelProto) -> None:
    """Leave out the constants that no node takes any more. Where nodes have graphs in them, that is left alone."""
    if any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        return
    used = {value.name for value in model.graph.output} | {name for node in model.graph.node for name in node.input}
    nodes = [node for node in model.graph.node if node.op_type != "Constant" or used.intersection(node.output)]
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(initializers)


def _evaluating(nodes: Iterable[NodeProto]) -> None:
    for node in nodes:
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Dropout":
            del node.input[2:]  # whether it is training; without, it is not
        elif node.op_type == "BatchNormalization":
            del node.output[1:]  # the statistics of the batch
            for attribute in node.attribute:
                if attribute.name == "training_mode":
                    attribute.i = 0
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _evaluating(inner.node)
