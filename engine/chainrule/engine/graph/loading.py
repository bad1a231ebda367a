"""From the bytes of an ONNX file to a module that trains, and back to an architecture and its weights."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from chainrule.engine.dtypes import Array, is_floating
from chainrule.engine.graph import operators
from chainrule.engine.graph.errors import GraphError
from chainrule.engine.graph.limits import MAX_BYTES, Limits
from chainrule.engine.graph.lowering import lower
from chainrule.engine.graph.module import GraphModule, in_order
from chainrule.engine.graph.program import Program
from chainrule.engine.graph.remarks import found_in, freed
from chainrule.engine.graph.roles import APART, BUFFERS, Roles, Weight, assign, names_in
from chainrule.engine.graph.source import Source, TensorSpec, parse, read
from chainrule.engine.graph.tensors import CODES
from chainrule.engine.tensor import Tensor

__all__ = ["Summary", "check", "join", "load", "split"]

_limits = Limits()
_ = operators  # fills the table


def load(content: bytes, *, max_bytes: int = MAX_BYTES, limits: Limits = _limits) -> GraphModule:
    """The graph in an ONNX file as a module that trains.

    Args:
        content: the file, with its weights or, as `split` gives it, without: then they are 0, variances 1, until
            `load_state_dict`.
        max_bytes: the largest file that is taken.
        limits: what loading and forwards may allocate.

    Raises:
        UnsupportedError: nodes cannot be taken; `nodes` has all of them.
        GraphError: the file is malformed, contradicts itself, or is beyond a limit; the message names the node, the
            tensor or the limit.
    """
    model = parse(content, limits, max_bytes)
    del content
    source, roles = _analysed(model, limits)
    needed = sum(math.prod(w.shape) * w.dtype.itemsize for w in roles.weights())
    if needed > limits.weight_bytes:
        raise GraphError(f"the weights take {needed} bytes; at most {limits.weight_bytes} are allowed")
    program = _compiled(source, roles, limits)
    values = {w.name: _initial(source, w) for w in roles.weights() if isinstance(source.weights[w.source], np.ndarray)}
    for norm in roles.norms.values():
        name = f"{norm.path}.num_batches_tracked" if norm.path else "num_batches_tracked"
        if isinstance(counted := source.weights.get(name), np.ndarray):
            values[name] = np.array(counted)
    program.source = _without_weights(model, source, roles)
    module = GraphModule(program, roles, values, source.inputs, source.outputs)
    in_order(module, _keys(source, roles))
    return module


def compiled(architecture: bytes, limits: Limits) -> Program:
    """The program of an architecture; what a program that was pickled becomes."""
    source, roles = _analysed(parse(architecture, limits), limits)
    program = _compiled(source, roles, limits)
    program.source = architecture
    return program


def _compiled(source: Source, roles: Roles, limits: Limits) -> Program:
    inputs = [spec.name for spec in source.inputs]
    return Program(roles.block, inputs, [*roles.parameters, *roles.buffers], roles.constants, limits)


def _analysed(model: ModelProto, limits: Limits) -> tuple[Source, Roles]:
    warnings = lower(model)
    source = read(model, limits, names_in(_metadata(model), APART))
    unlearnable = [name for name, array in source.weights.items() if _is_unlearnable(array)]
    if unlearnable:  # known from the elements, so it is noted for when these are elsewhere
        _set_metadata(model, BUFFERS, sorted({*names_in(_metadata(model), BUFFERS), *unlearnable}))
        source.metadata = _metadata(model)
    roles = assign(source)
    source.inputs, fixed = freed(source.inputs)
    roles.warnings += [*fixed, *warnings, *found_in(source, roles)]
    return source, roles


def _keys(source: Source, roles: Roles) -> list[str]:
    """The keys of the state_dict in the order of the file. Second names are left out: they come last, as of layers
    that share a weight with one before them."""
    by_source: dict[str, list[str]] = {}
    for weight in roles.weights():
        by_source.setdefault(weight.source, []).append(weight.name)
    for alias, value in roles.aliases.items():
        if alias in roles.first_names:
            by_source.setdefault(value, []).insert(0, alias)
    return [key for name in source.weights for key in by_source.get(name, ())]


def _is_unlearnable(array: Array | TensorSpec) -> bool:
    """Whether it has elements that are not finite, as masks that are added to scores have."""
    return isinstance(array, np.ndarray) and is_floating(array.dtype) and not np.isfinite(array).all()


def _initial(source: Source, weight: Weight) -> Array:
    array = source.weights[weight.source]
    assert isinstance(array, np.ndarray)
    return np.array(array.T if weight.transposed else array, order="C")


def _metadata(model: ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


# ---- Architecture and weights apart ----


def split(
    content: bytes, *, buffers: Iterable[str] = (), max_bytes: int = MAX_BYTES, limits: Limits = _limits
) -> tuple[bytes, dict[str, Array]]:
    """A file as an architecture without weights, and the weights.

    The architecture is ONNX, too: its weights are inputs of the graph, which the entry "chainrule.weights" of its
    metadata names, so that standard tools open it. `load` of it has the same `state_dict` keys as `load` of the file.

    Args:
        content: the file.
        buffers: initialisers that are to be kept but not learnt, such as `register_buffer` makes them.
        max_bytes: the largest file that is taken.
        limits: what reading may allocate.

    Raises:
        GraphError: the file cannot be read.
    """
    model = parse(content, limits, max_bytes)
    _set_metadata(model, BUFFERS, sorted({*names_in(_metadata(model), BUFFERS), *buffers}))
    source, roles = _analysed(model, limits)
    arrays = {w.name: _initial(source, w) for w in roles.weights() if isinstance(source.weights[w.source], np.ndarray)}
    values = {value: w.name for value, w in roles.parameters.items()}
    arrays |= {alias: arrays[values[v]] for alias, v in roles.aliases.items() if values.get(v) in arrays}
    arrays |= {f"{norm.path}.num_batches_tracked": np.array(0) for norm in roles.norms.values()}
    return _without_weights(model, source, roles), arrays


def join(
    architecture: bytes, arrays: Mapping[str, Any], *, max_bytes: int = MAX_BYTES, limits: Limits = _limits
) -> bytes:
    """The file of an architecture with weights in it: the inverse of `split`.

    Args:
        architecture: as `split` gives it.
        arrays: arrays or tensors by key of the state_dict; what the graph does not have is left out.
        max_bytes: the largest architecture that is taken.
        limits: what reading may allocate.

    Raises:
        GraphError: the architecture cannot be read, or a weight is missing or has another shape.
    """
    model = parse(architecture, limits, max_bytes)
    source, roles = _analysed(model, limits)
    tensors: dict[str, TensorProto] = {}
    rank = {key: i for i, key in enumerate(_keys(source, roles))}
    for weight in sorted(roles.weights(), key=lambda weight: rank[weight.name]):
        if weight.name not in arrays:
            raise GraphError(f'weight "{weight.name}" of the architecture is missing')
        given = arrays[weight.name]
        array = np.asarray(getattr(given, "data", given) if isinstance(given, Tensor) else given)
        if array.shape != weight.shape:
            raise GraphError(f'weight "{weight.name}" has the shape {list(weight.shape)}; got {list(array.shape)}')
        array = (array.T if weight.transposed else array).astype(weight.dtype, order="C")
        tensors[weight.source] = TensorProto(
            name=weight.source, dims=array.shape, data_type=CODES[weight.dtype], raw_data=array.tobytes()
        )
    inputs = [value for value in model.graph.input if value.name not in tensors]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    initialisers = [tensor for tensor in model.graph.initializer if tensor.name not in tensors]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*tensors.values(), *initialisers])
    _set_metadata(model, APART, [])
    return model.SerializeToString(deterministic=True)


def _without_weights(model: ModelProto, source: Source, roles: Roles) -> bytes:
    """The model's bytes with its weights as inputs; the model is changed."""
    renamed = _separated(model, roles)
    weights = {renamed.get(w.name, w.source): w for w in roles.weights()}
    graph = model.graph
    kept = [tensor for tensor in graph.initializer if tensor.name not in weights]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    nodes = [node for node in graph.node if not (len(node.output) == 1 and node.output[0] in weights)]
    del graph.node[:]
    graph.node.extend(nodes)
    there = {value.name for value in graph.input}
    order = {key: i for i, key in enumerate(_keys(source, roles))}
    for name in sorted(weights.keys() - there, key=lambda name: order[weights[name].name]):
        weight = weights[name]
        shape = weight.shape[::-1] if weight.transposed else weight.shape
        graph.input.append(helper.make_tensor_value_info(name, CODES[weight.dtype], shape))
    _set_metadata(model, APART, list(dict.fromkeys([*names_in(_metadata(model), APART), *weights])))
    return model.SerializeToString(deterministic=True)


def _separated(model: ModelProto, roles: Roles) -> dict[str, str]:
    """Has weights that the file keeps once, but that are learnt apart, read from values of their own.

    Returns:
        The names of those values, by key of the state_dict.
    """
    renamed = {
        w.name: value for value, w in [*roles.parameters.items(), *roles.buffers.items()] if value in roles.copies
    }
    shared = {source for source, n in Counter(w.source for w in roles.weights()).items() if n > 1}
    by_name = {w.name: w for w in roles.norm_weights if w.source in shared}
    nodes = {node.output[0]: node for node in model.graph.node if node.output}
    for output, norm in roles.norms.items():
        for i, key in enumerate(("weight", "bias", "running_mean", "running_var"), 1):
            name = f"{norm.path}.{key}"
            if name in by_name and output in nodes:
                nodes[output].input[i] = name
                renamed[name] = name
    return renamed


def _set_metadata(model: ModelProto, key: str, names: list[str]) -> None:
    others = [entry for entry in model.metadata_props if entry.key != key]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    if names:
        model.metadata_props.add(key=key, value=json.dumps(names))


# ---- What is in a file ----


@dataclass(frozen=True)
class Summary:
    """What a file has, without a module made of it."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: dict[str, TensorSpec]
    """By key of the state_dict."""
    buffers: dict[str, TensorSpec]
    """Running statistics included."""
    operators: dict[str, int]
    """How many nodes of each operator."""
    warnings: tuple[str, ...]


def check(content: bytes, *, max_bytes: int = MAX_BYTES, limits: Limits = _limits) -> Summary:
    """What is in an ONNX file, after everything that `load` checks.

    Raises:
        UnsupportedError: nodes cannot be taken.
        GraphError: the file is malformed, contradicts itself, or is beyond a limit.
    """
    module = load(content, max_bytes=max_bytes, limits=limits)
    counts = Counter(node.op_type for node in parse(module.architecture, limits).graph.node)
    return Summary(
        module.inputs,
        module.outputs,
        {name: TensorSpec(name, p.dtype, p.shape) for name, p in module.named_parameters()},
        {name: TensorSpec(name, b.dtype, b.shape) for name, b in module.named_buffers()},
        dict(sorted(counts.items())),
        module.warnings,
    )
