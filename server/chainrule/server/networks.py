"""Networks as clients ask for them: what is wrong with an architecture, told before anything large is built of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import chainrule.engine as cr
from chainrule.engine import ConfigError, UnknownFamilyError, graph, models, nn
from chainrule.server.architecture import MAX_GRAPH_BYTES, Architecture, Buildable, Builtin, GraphArchitecture
from chainrule.server.errors import InvalidRequestError, Violation, echo
from chainrule.server.records import TensorSpec

MAX_PARAMETERS = 100_000_000
"""Parameters of the largest model that is accepted: 400 MB, of which creating it takes about three copies."""
LIMITS = graph.Limits(
    fields=500_000,
    numbers=2**20,
    nodes=20_000,
    weight_bytes=4 * MAX_PARAMETERS,
    folded_bytes=2**24,
    tensor_bytes=2**28,
    activation_bytes=2**30,
)
"""What a graph may allocate in the service's process. Workers may have more: they are the job's own."""
MAX_NAMED_NODES = 10
"""How many of the nodes that are not taken for one reason are named: what is wrong with a call has to fit into its
trailers."""
MAX_NODE_LENGTH = 80
MAX_CLASS_LABELS = 10_000
MAX_CLASS_LABEL_LENGTH = 200

_CONFIG = "model.builtin.config"
_GRAPH = "model.graph.digest"
_LABELS = "model.class_labels"


def build(architecture: Buildable, init_seed: int) -> nn.Module:
    """A network of at most MAX_PARAMETERS; of a graph, whose content is there, with weights that are yet to be loaded.
    Raises InvalidRequestError naming the field that is wrong."""
    match architecture:
        case Builtin():
            return _build_family(architecture, init_seed)
        case GraphArchitecture():
            return _build_graph(architecture)


def _build_family(architecture: Builtin, init_seed: int) -> nn.Module:
    try:
        num_parameters = models.family(architecture.family).num_parameters(architecture.config)
        if num_parameters > MAX_PARAMETERS:
            raise InvalidRequestError.of(
                _CONFIG,
                f"makes a model of {num_parameters:,} parameters; choose sizes that make at most {MAX_PARAMETERS:,}",
            )
        return architecture.build(cr.Generator(init_seed))
    except UnknownFamilyError as error:
        raise InvalidRequestError.of("model.builtin.family", str(error)) from error
    except ConfigError as error:
        raise InvalidRequestError.of(f"{_CONFIG}.{error.field}", f"is {echo(error.value)}: {error.message}") from error


def _build_graph(architecture: GraphArchitecture) -> nn.Module:
    try:
        module = in_service(architecture)
    except graph.UnsupportedError as error:
        raise InvalidRequestError(_unsupported(error)) from error
    except graph.GraphError as error:
        raise InvalidRequestError.of(
            _GRAPH, f'blob "{architecture.digest}" is no graph that can be trained: {error}'
        ) from error
    num_parameters = sum(parameter.numel() for parameter in module.parameters())
    if num_parameters > MAX_PARAMETERS:
        raise InvalidRequestError.of(
            _GRAPH, f"makes a model of {num_parameters:,} parameters; at most {MAX_PARAMETERS:,} are taken"
        )
    return module


def _unsupported(error: graph.UnsupportedError) -> list[Violation]:
    """The nodes that are not taken, by why."""
    names: dict[str, list[str]] = {}
    for name, operator, opset, reason in error.nodes:
        names.setdefault(f"{operator} (opset {opset}): {reason}", []).append(name)
    return [
        Violation(_GRAPH, f"has nodes that cannot be trained (docs/onnx.md lists what can): {why}: {_listed(found)}")
        for why, found in names.items()
    ]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f'"{name[:MAX_NODE_LENGTH]}"' for name in names[:MAX_NAMED_NODES])
    return shown if len(names) <= MAX_NAMED_NODES else f"{shown} and {len(names) - MAX_NAMED_NODES:,} more"


def in_service(architecture: Buildable) -> nn.Module:
    """A network with weights that are yet to be loaded, in the service's process: what a graph makes it allocate, also
    when it is run on one example, is bounded. Raises GraphError."""
    match architecture:
        case Builtin():
            return architecture.build()
        case GraphArchitecture():
            return graph.load(architecture.content, max_bytes=MAX_GRAPH_BYTES, limits=LIMITS)


# --- what a network says of itself -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Described:
    """What is stored of a network, by the names of a model's fields."""

    architecture: Architecture
    """With all settings of a family."""
    num_parameters: int
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    warnings: tuple[str, ...] = ()


def described(module: nn.Module, architecture: Buildable) -> Described:
    """What a network of this architecture says of itself."""
    num_parameters = sum(parameter.numel() for parameter in module.parameters())
    if not isinstance(module, graph.GraphModule):
        family, config = models.family_of(module)
        config = json.loads(json.dumps(config))  # as the store gives it back: lists for tuples
        return Described(Builtin(family, config), num_parameters)
    return Described(
        architecture, num_parameters, _specs(module.inputs), _specs(module.outputs), tuple(module.warnings)
    )


def _specs(declared: Sequence[graph.TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(spec.name, str(spec.dtype), tuple(map(_dimension, spec.shape or ()))) for spec in declared)


def _dimension(size: int | str | None) -> int | str:
    """A dimension; one that is free and has no name has the empty one."""
    if isinstance(size, str):
        return size
    return "" if size is None or size < 0 else size


def check_class_labels(labels: Sequence[str], network: Described) -> None:
    """Raises InvalidRequestError if labels cannot be told apart, or are not one for each class."""
    if not labels:
        return
    if len(labels) > MAX_CLASS_LABELS:
        raise InvalidRequestError.of(_LABELS, f"has {len(labels):,} labels; use at most {MAX_CLASS_LABELS:,}")
    violations = []
    first: dict[str, int] = {}
    for index, label in enumerate(labels):
        field = f"{_LABELS}[{index}]"
        if not 1 <= len(label) <= MAX_CLASS_LABEL_LENGTH:
            violations.append(
                Violation(field, f"is {echo(label)}; use a text of 1 to {MAX_CLASS_LABEL_LENGTH} characters")
            )
        if first.setdefault(label, index) != index:
            violations.append(Violation(field, f"is {echo(label)}, as is that of class {first[label]}; use another"))
    if violations:
        raise InvalidRequestError(violations)
    count = _num_classes(network)
    if count is not None and count != len(labels):
        raise InvalidRequestError.of(
            _LABELS, f"has {len(labels):,} labels, but the network tells {count:,} classes apart; use one for each"
        )


def _num_classes(network: Described) -> int | None:
    """How many classes a network tells apart; None where only its outputs would show."""
    if isinstance(network.architecture, Builtin):
        found = network.architecture.config.get("num_classes")
    else:
        found = network.outputs[0].shape[-1] if network.outputs and network.outputs[0].shape else None
    return found if isinstance(found, int) else None
