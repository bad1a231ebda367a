"""A graph as a module that trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.creation import tensor
from chainrule.engine.dtypes import Array, is_floating
from chainrule.engine.graph.errors import GraphError
from chainrule.engine.graph.program import Program, Run, Tracer, replay
from chainrule.engine.graph.roles import Norm, Roles
from chainrule.engine.graph.source import TensorSpec
from chainrule.engine.nn.layers.batch_norm import BatchNorm2d
from chainrule.engine.nn.module import Module
from chainrule.engine.nn.parameter import Parameter
from chainrule.engine.tensor import Tensor


class GraphScope(Module):
    """What has one path in the names of a graph's weights; it computes nothing by itself."""

    def extra_repr(self) -> str:
        return ", ".join(f"{name}: {list(p.shape)}" for name, p in self._parameters.items() if p is not None)


class GraphBatchNorm(BatchNorm2d):
    """A BatchNorm of as many dimensions as the graph gives it."""

    dimensions: ClassVar[tuple[int, ...]] = (2, 3, 4, 5)

    def _fused(self, following: Module, *args: Any) -> Any:  # noqa: ARG002
        return None


class GraphModule(Module):
    """A graph that was loaded: a module with its weights as parameters and its statistics as buffers.

    Called with the graph's inputs, in order or by name, it gives a Tensor if the graph has one output, else a dict
    with a Tensor for each, by name, in the order of the file. Dropout and BatchNorm follow `train()` and `eval()`,
    whatever the file says. Weights have the names that the file gives them, in modules along their dots.

    Attributes:
        inputs: what the graph takes. A dimension that may vary has its symbol, or None.
        outputs: what it gives, as far as the file says.
        warnings: what may not be as its author expects, each with a remedy.
        names: for each key of the state_dict that is in the file, the initialiser there.

    Raises:
        GraphError: inputs that do not fit, or that a node cannot compute with; the message names the input or node.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    warnings: tuple[str, ...]
    names: Mapping[str, str]

    def __init__(
        self,
        program: Program,
        roles: Roles,
        values: Mapping[str, Array],
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        """`values`: the first value of each weight that has one, by its key; the others are 0, and variances 1."""
        super().__init__()
        object.__setattr__(self, "inputs", tuple(inputs))
        object.__setattr__(self, "outputs", tuple(outputs))
        object.__setattr__(self, "warnings", tuple(roles.warnings))
        object.__setattr__(self, "names", {w.name: w.source for w in roles.weights()})
        self._program = program
        self._places: list[tuple[str, dict[str, Any], str, bool]] = []  # value, registry, name, whether transposed
        self._norms: dict[str, Module] = {}
        for norm in roles.norms.values():
            self._add_norm(norm, values)
        for learnt, weights in ((True, roles.parameters), (False, roles.buffers)):
            for value, weight in weights.items():
                scope, name = self._scope(weight.name)
                array = values.get(weight.name)
                start = Variable.wrap(np.zeros(weight.shape, weight.dtype) if array is None else array)
                registry: dict[str, Any] = scope._parameters if learnt else scope._buffers
                registry[name] = Parameter(start) if learnt else start
                self._places.append((value, registry, name, weight.transposed))
        places = {value: self._places[i] for i, value in enumerate([*roles.parameters, *roles.buffers])}
        for alias, value in roles.aliases.items():
            if value in places:
                scope, name = self._scope(alias)
                _, registry, known, _ = places[value]
                scope._parameters[name] = registry[known]

    @property
    def architecture(self) -> bytes:
        """The graph without its weights, as ONNX: `load` of it gives this module with other values."""
        return self._program.source

    def forward(self, *args: Any, **kwargs: Any) -> Tensor | dict[str, Tensor]:
        tensors = self._given(args, kwargs)
        program = self._program
        given: dict[int, Tensor] = dict(zip(program.inputs, tensors, strict=True))
        slots = program.slots
        for value, registry, name, transposed in self._places:
            weight = registry[name]
            given[slots[value]] = weight.t() if transposed else weight
        run = Run(self.training, self._norms.__getitem__)
        signature = tuple([(x.data.shape, x.data.dtype) for x in tensors])
        plan = program.plan(signature)
        if plan is None:
            results, plan = Tracer(program, run).trace(given)
            program.remember(signature, plan)
        else:
            values = replay(plan, given, run)
            results = [values[slot] for slot in program.outputs]
        if len(results) == 1:
            return results[0]
        return {spec.name: result for spec, result in zip(self.outputs, results, strict=True)}

    def extra_repr(self) -> str:
        return f"{', '.join(map(_written, self.inputs))} -> {', '.join(map(_written, self.outputs))}"

    # ---- Weights ----

    def _scope(self, path: str) -> tuple[Module, str]:
        """The module that has what is at a path, made if it is not there, and the name in it."""
        scope: Module = self
        *parents, name = path.split(".")
        for parent in parents:
            inner = scope._modules.get(parent)
            if inner is None:
                inner = scope._modules[parent] = GraphScope()
            scope = inner
        return scope, name

    def _add_norm(self, norm: Norm, values: Mapping[str, Array]) -> None:
        if norm.path in self._norms:
            return
        layer = GraphBatchNorm(norm.features, norm.epsilon, norm.momentum, affine=norm.affine, dtype=norm.dtype)
        for name, value in (*layer.named_parameters(), *layer.named_buffers()):
            array = values.get(f"{norm.path}.{name}")
            if array is not None:
                value.data = array
        scope, name = self._scope(norm.path)
        scope._modules[name] = layer
        self._norms[norm.path] = layer

    # ---- Inputs ----

    def _given(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
        names = [spec.name for spec in self.inputs]
        unknown = [name for name in kwargs if name not in names[len(args) :]]
        if len(args) > len(names) or unknown or len(args) + len(kwargs) < len(names):
            raise GraphError(
                f"the graph takes {len(names)} inputs ({', '.join(names)}); got {len(args)} in order"
                + (f" and {', '.join(kwargs)} by name" if kwargs else "")
            )
        values = [*args, *(kwargs[name] for name in names[len(args) :])]
        return [_fitting(spec, value) for spec, value in zip(self.inputs, values, strict=True)]


def _fitting(spec: TensorSpec, value: Any) -> Tensor:
    """A value as the input that a graph declares: integers are converted to the dtype it names."""
    if isinstance(value, np.ndarray):
        value = tensor(value)
    if not isinstance(value, Tensor):
        raise GraphError(f'input "{spec.name}" is a Tensor; got {type(value).__name__}')
    shape = value.data.shape
    if spec.shape is not None and (
        len(shape) != len(spec.shape)
        or any(isinstance(n, int) and n != m for n, m in zip(spec.shape, shape, strict=True))
    ):
        raise GraphError(f'input "{spec.name}" has the shape {_dims(spec.shape)}; got {list(shape)}')
    if is_floating(value.data.dtype) != is_floating(spec.dtype):
        raise GraphError(f'input "{spec.name}" is of {spec.dtype}; got {value.data.dtype}: convert it first')
    if value.data.dtype != spec.dtype and not is_floating(spec.dtype):
        return value.to(spec.dtype)
    return value


def _written(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.dtype}{'' if spec.shape is None else _dims(spec.shape)}"


def _dims(shape: Sequence[int | str | None]) -> str:
    return f"[{', '.join('?' if n is None else str(n) for n in shape)}]"


def in_order(module: Module, keys: Sequence[str], prefix: str = "") -> None:
    """Has a module keep its weights, and the modules inside, in the order of these keys; others come last."""
    first: dict[str, int] = {}
    for place, key in enumerate(keys):
        if key.startswith(prefix):
            first.setdefault(key[len(prefix) :].partition(".")[0], place)
    registries: tuple[dict[str, Any], ...] = (module._modules, module._parameters, module._buffers)
    for registry in registries:
        entries = sorted(registry.items(), key=lambda entry: first.get(entry[0], len(keys)))
        registry.clear()
        registry.update(entries)
    for name, inner in module._modules.items():
        if inner is not None:
            in_order(inner, keys, f"{prefix}{name}.")
