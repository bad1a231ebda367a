"""From a module of the engine to a model in ONNX: `export`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
from onnx import helper

from chainrule.engine.autograd.mode import enable_grad, no_grad
from chainrule.engine.dtypes import Array
from chainrule.engine.graph.emitting import Emitter, tensor_of, type_of
from chainrule.engine.graph.errors import GraphError
from chainrule.engine.graph.loading import load
from chainrule.engine.graph.symbols import Batch, Comparison, difference
from chainrule.engine.graph.tracing import INPUT, RESULT, STATE, Trace, Value, tensors_in, trace, values_in
from chainrule.engine.graph.translations import elementwise, layers, local, reducing, shaping
from chainrule.engine.graph.translations.registry import translation, whole
from chainrule.engine.nn.layers.batch_norm import _BatchNorm, collect_batch_statistics
from chainrule.engine.nn.module import Module
from chainrule.engine.random import Generator, using
from chainrule.engine.tensor import Tensor

TRANSLATIONS = (elementwise, layers, reducing, shaping)
"""The modules whose import fills the table of translations."""
OPSETS = range(21, 25)
"""The versions of ONNX's operators that a model can be written in."""
DEFAULT_OPSET = 21
BUFFERS = "chainrule.buffers"
"""The entry of a model's metadata that names, as JSON, the initialisers that are kept but not learnt."""
ALIASES = "chainrule.aliases"
"""The entry that has, by each further name of a parameter or buffer that has several, its first."""
_sizes = (4, 6)
_most_bytes = 2**31 - 1


def export(
    module: Module,
    example: Tensor | Array | Sequence[Tensor | Array],
    *,
    opset: int = DEFAULT_OPSET,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> bytes:
    """The module as a model in ONNX, whose batch has any size: the dimension "N".

    The module is called twice, with batches of two sizes made of the example's: what is the same in both calls is the
    graph. It is called as in training, so that BatchNormalization and Dropout are in the graph, which evaluates them in
    other tools and trains them in `graph.load`; parts of a module in training mode that do not train themselves stay
    frozen. Nothing of the module changes. Initialisers are named as in the state_dict.

    Args:
        module: any module of the engine.
        example: an input, or several for a module that takes several; the first dimension of each is the batch.
        opset: the version of ONNX's operators, 21 to 24.
        input_names: by default those of the parameters of `forward`.
        output_names: by default "output", or "output_0" and so on.

    Raises:
        GraphError: the module does what no graph can say; the message names the module inside and the operation.
    """
    if opset not in OPSETS:
        raise GraphError(f"opset {opset} is not written; take one from {OPSETS[0]} to {OPSETS[-1]}")
    inputs = _inputs(example)
    names = _input_names(module, len(inputs), input_names)
    described = _state_of(module)
    _check_state(described, names)
    traces = [_traced(module, inputs, size, number) for number, size in enumerate(_sizes)]
    followed = Comparison(traces[0], traces[1], _sizes).run()
    content = _model(module, described, followed, names, output_names, opset)
    _check_evaluation(module, inputs, content, traces[0])
    return content


# ---- Calling the module ----


def _inputs(example: Any) -> list[Array]:
    given = list(example) if isinstance(example, tuple | list) else [example]
    arrays = [x.data if isinstance(x, Tensor) else np.asarray(x) for x in given]
    if not arrays or any(x.ndim == 0 or not len(x) for x in arrays) or len({len(x) for x in arrays}) > 1:
        shapes = [list(x.shape) for x in arrays]
        raise GraphError(
            f"an example has one or more inputs whose first dimension is one batch of at least 1, got shapes {shapes}"
        )
    return arrays


def _batch(x: Array, size: int, number: int) -> Array:
    """A batch of this size; the second is of the same elements in another order, so that what depends on them shows."""
    rows = np.arange(size) % len(x)
    batch = x[rows]
    return np.ascontiguousarray(np.flip(batch)) if number else np.ascontiguousarray(batch)


def _traced(module: Module, inputs: Sequence[Array], size: int, number: int) -> Trace:
    tensors = [Tensor(_batch(x, size, number)) for x in inputs]
    with (
        _undisturbed(module),
        enable_grad(),
        using(Generator(number)),
        collect_batch_statistics(module),
    ):
        traced = trace(module, tensors, whole)
    return _pruned(traced)


def _check_evaluation(module: Module, inputs: Sequence[Array], content: bytes, training: Trace) -> None:
    """Raises GraphError unless the graph, which was followed in training, evaluates to what the module does."""
    tensors = [Tensor(_batch(x, _sizes[0], 0)) for x in inputs]
    with _undisturbed(module), using(Generator(0)):
        module.eval()
        evaluating = _pruned(trace(module, tensors, whole))
        with no_grad():
            expected = tensors_in(module(*tensors))
            loaded = load(content).eval()
            found = tensors_in(loaded(*tensors))
    if len(expected) != len(found):
        raise GraphError(
            f"the module gives {len(found)} tensors in training and {len(expected)} in evaluation; a graph gives the "
            "same in both: export a module that does"
        )
    for y, e in zip(found, expected, strict=True):
        close = y.shape == e.shape and np.allclose(
            y.data.astype(np.float64), e.data.astype(np.float64), rtol=1e-3, atol=1e-5, equal_nan=True
        )
        if not close:
            raise GraphError(
                f"{difference(training, evaluating)}. A graph computes the same in both, but for dropout and the "
                "statistics of BatchNorm: export a module that does"
            )


@contextmanager
def _undisturbed(module: Module) -> Iterator[None]:
    """The module in training, if it does not train; afterwards all of its state and modes are as before."""
    modes = [(part, part.training) for part in module.modules()]
    tensors = [*module.parameters(), *module.buffers()]
    kept = [(x, x.data, x.data.copy(), x.counter.value) for x in tensors]
    if not module.training:
        module.train()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for x, array, elements, version in kept:
            if x.counter.value != version or x.data is not array:
                x.data = array
                np.copyto(array, elements)


def _pruned(traced: Trace) -> Trace:
    """Without the calls that the result does not need."""
    needed = {id(value) for value in values_in(traced.result)}
    calls = []
    for call in reversed(traced.calls):
        if any(id(y) in needed for y in call.outputs):
            calls.append(call)
            needed.update(id(value) for value in values_in(call.arguments))
    traced.calls = calls[::-1]
    return traced


# ---- Names ----


def _input_names(module: Module, count: int, given: Sequence[str] | None) -> list[str]:
    if given is not None:
        names = list(given)
        if len(names) != count or len(set(names)) < count or not all(names):
            raise GraphError(f"input_names has to name {count} inputs, each its own, got {names}")
        return names
    parameters = inspect.signature(module.forward).parameters.values()
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = positional[:count] if len(positional) >= count else [f"input_{i}" for i in range(count)]
    taken = module.state_dict()
    return [f"{name}_input" if name in taken else name for name in names]


def _output_names(count: int, given: Sequence[str] | None, taken: Sequence[str]) -> list[str]:
    if given is None:
        return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
    names = list(given)
    if len(names) != count or len({*names, *taken}) < count + len(taken) or not all(names):
        raise GraphError(f"output_names has to name {count} outputs, each by a name that no input has, got {names}")
    return names


def _check_state(state: _State, names: Sequence[str]) -> None:
    both = [name for name in names if name in state.tensors or name in state.aliases]
    if both:
        raise GraphError(f'an input cannot be named "{both[0]}", which is a parameter or buffer; choose another name')
    size = sum(x.data.nbytes for x in state.tensors.values())
    if size > _most_bytes:
        raise GraphError(f"{size:,} bytes of parameters and buffers are more than an ONNX file holds, which is 2 GiB")


# ---- The model ----


def _model(
    module: Module,
    described: _State,
    traced: Trace,
    input_names: Sequence[str],
    output_names: Sequence[str] | None,
    opset: int,
) -> bytes:
    inputs = [value for value in traced.values if value.kind == INPUT]
    state = {value.number: value.name for value in traced.values if value.kind == STATE}
    entered = {value.number: name for value, name in zip(inputs, input_names, strict=True)}
    emitter = Emitter(input_names[0], {**entered, **state}, opset, _momenta(module), described.aliases)
    results = values_in(traced.result)
    if not results or len(results) != len(_leaves(traced.result)):
        raise GraphError("the module has to return a tensor, or a tuple, list or dict of tensors")
    outputs = _output_names(len(results), output_names, input_names)
    for name in outputs:
        emitter.reserve(name)
    for call in traced.calls:
        emitter.at(call)
        translate = translation(call.key)
        where = f'module "{call.path}"' if call.path else "the module itself"
        if translate is None:
            raise GraphError(
                f'{where}: the operation "{call.name.strip("_")}" cannot be said in ONNX (docs/onnx.md lists what can)'
            )
        try:
            translate(emitter, call)
        except GraphError as error:
            raise GraphError(f"{where}: {error.message}") from None
    nodes = _named_outputs(emitter, results, outputs)
    graph = helper.make_graph(
        nodes,
        type(module).__name__,
        [_info(value, name) for value, name in zip(inputs, input_names, strict=True)],
        [_info(value, name) for value, name in zip(results, outputs, strict=True)],
        initializer=[tensor_of(x.data, name) for name, x in described.tensors.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    if emitter.functions:
        opsets.append(helper.make_opsetid(local.DOMAIN, local.VERSION))
    model = helper.make_model(
        graph,
        opset_imports=opsets,
        functions=list(emitter.functions.values()),
        producer_name="chainrule",
        producer_version=version("chainrule"),
        ir_version=10,
    )
    state_entries = {BUFFERS: described.buffers, ALIASES: described.aliases}
    helper.set_model_props(model, {key: json.dumps(names) for key, names in state_entries.items() if names})
    return bytes(model.SerializeToString(deterministic=True))


def _leaves(result: Any) -> list[Any]:
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, tuple | list):
        return [leaf for part in result for leaf in _leaves(part)]
    return [result]


def _momenta(module: Module) -> dict[str, float | None]:
    """The momentum with which running means move, by their names."""
    return {
        f"{path}.running_mean" if path else "running_mean": part.momentum
        for path, part in module.named_modules()
        if isinstance(part, _BatchNorm)
    }


def _named_outputs(emitter: Emitter, results: Sequence[Value], names: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes, of which those that compute an output call it by its name."""
    made = {name: node for node in emitter.nodes for name in node.output}
    renamed: dict[str, str] = {}
    emitter.at_top()
    for value, name in zip(results, names, strict=True):
        found = emitter.name(value)
        if found in made and found not in renamed and made[found].op_type != "Constant" and value.kind == RESULT:
            renamed[found] = name
        else:
            emitter.nodes.append(helper.make_node("Identity", [found], [name], name=f"{name}/Identity"))
    for node in emitter.nodes:
        for names_of in (node.input, node.output):
            for i, given in enumerate(names_of):
                if given in renamed:
                    names_of[i] = renamed[given]
    return emitter.nodes


def _info(value: Value, name: str) -> onnx.ValueInfoProto:
    shape = [str(n) if isinstance(n, Batch) else n for n in value.shape]
    return helper.make_tensor_value_info(name, type_of(value.dtype), shape)


@dataclass(frozen=True, slots=True)
class _State:
    """What a module keeps."""

    tensors: dict[str, Tensor]
    """Each once, by its first name, in the order of the state_dict."""
    aliases: dict[str, str]
    """By each further name, the first."""
    buffers: list[str]
    """First names of what is no parameter."""


def _state_of(module: Module) -> _State:
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, x in module.state_dict(keep_vars=True).items():
        if not isinstance(x, Tensor):
            raise GraphError(f'the extra state "{name}" of the module is no tensor and cannot be exported')
        if id(x) in first:
            aliases[name] = first[id(x)]
        else:
            first[id(x)] = name
            tensors[name] = x
    parameters = {id(x) for x in module.parameters()}
    return _State(
        tensors,
        aliases,
        [name for name, x in tensors.items() if id(x) not in parameters],
    )
