"""The traversal: gradients flow from the outputs to the leaves, each node once, consumers first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from chainrule.engine import kernels
from chainrule.engine.autograd.anomaly import anomaly
from chainrule.engine.autograd.graph import AccumulateGrad, Node, OpNode, OutputGradients, is_alias, lock_of
from chainrule.engine.autograd.hooking import (
    run_leaf_hooks,
    run_watched,
    through_leaf_hooks,
    through_prehooks,
    through_tensor_hooks,
)
from chainrule.engine.autograd.mode import state
from chainrule.engine.autograd.variable import Variable, is_tensor, set_grad
from chainrule.engine.dtypes import Array, float32, is_low_precision
from chainrule.engine.errors import AutogradError, ConfigError, ShapeError

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

Tensors: TypeAlias = "Tensor | Sequence[Tensor]"


def backward(
    tensors: Tensors,
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    *,
    inputs: Tensors | None = None,
) -> None:
    """Adds to `grad` of every leaf the gradient of `tensors`, each weighted by its entry of `grad_tensors`.

    Args:
        tensors: what to differentiate.
        grad_tensors: for each a weight in its shape; may be left out for those with one element.
        retain_graph: whether the graph can be walked again; `create_graph` by default.
        create_graph: whether the gradients are recorded themselves, for higher derivatives.
        inputs: adds to `grad` of these only; those that are no leaves keep their gradient, see `retain_grad`.

    Raises:
        AutogradError: nothing to differentiate, the graph was freed, or a saved tensor was overwritten.
    """
    outputs = _listed(tensors)
    leaves = None if inputs is None else _listed(inputs)
    if leaves is not None and not leaves:
        raise AutogradError("`inputs` argument to `backward()` cannot be empty.")
    roots = _roots(outputs, _weights(outputs, grad_tensors), create_graph)
    keep = create_graph if retain_graph is None else retain_graph
    if leaves is None:
        _traverse(roots, keep=keep, recording=create_graph)
        return
    for x in leaves:
        x.retain_grad()
    targets = {x.gradient_edge(): x for x in leaves}
    _traverse(roots, keep=keep, recording=create_graph, only=_leading_to(roots, targets))


def grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of `outputs` by `inputs`, returned rather than accumulated.

    Args:
        outputs: what to differentiate; several are added up.
        inputs: by what; leaves or intermediate results.
        grad_outputs: for each output a weight in its shape; may be left out for those with one element.
        retain_graph: whether the graph can be walked again; `create_graph` by default.
        create_graph: whether the gradients are recorded themselves, for higher derivatives.
        allow_unused: gives None for an input that the outputs do not depend on, instead of an error.
        materialize_grads: gives zeros for such an input.

    Raises:
        AutogradError: an input does not require a gradient or is not used; else as `backward`.
        ConfigError: `materialize_grads` where `allow_unused` is False.
    """
    if materialize_grads and allow_unused is False:
        raise ConfigError(
            "allow_unused",
            allow_unused,
            "Expected allow_unused to be True or not passed when materialize_grads=True, but got: allow_unused=False.",
        )
    outputs, inputs = _listed(outputs), _listed(inputs)
    if not inputs:
        raise AutogradError("grad requires non-empty inputs.")
    for x in inputs:
        if not x.requires_grad:
            raise AutogradError("One of the differentiated Tensors does not require grad")
    roots = _roots(outputs, _weights(outputs, grad_outputs), create_graph)
    keep = create_graph if retain_graph is None else retain_graph
    targets = {x.gradient_edge(): x for x in inputs}
    captured = _traverse(
        roots, keep=keep, recording=create_graph, only=_leading_to(roots, targets), capture=targets.keys()
    )
    gradients: list[Tensor | None] = []
    for x in inputs:
        g = captured.get(x.gradient_edge())
        if g is None and not (allow_unused or materialize_grads):
            raise AutogradError(
                "One of the differentiated Tensors appears to not have been used in the graph. "
                "Set allow_unused=True if this is the desired behavior."
            )
        if g is None and materialize_grads:
            g = np.zeros_like(x.data)
        gradients.append(g if g is None or is_tensor(g) else Variable.wrap(np.asarray(g)))
    return tuple(gradients)


def _traverse(
    roots: Iterable[tuple[Node, Any]],
    *,
    keep: bool,
    recording: bool,
    only: set[Node] | None = None,
    capture: Iterable[Node] = (),
) -> dict[Node, Any]:
    """Visits every node once, in falling order of their numbers.

    A node's number is higher than those of all it consumes, so when it comes up, all that flows into it has arrived.

    Args:
        roots: nodes with the gradient of their output.
        keep: whether the graph can be walked again.
        recording: whether gradients are Tensors, which record what is done with them.
        only: the nodes to visit, if not all.
        capture: nodes whose arrived gradient is returned; leaves among them do not accumulate.

    Returns:
        The gradients that arrived at the nodes in `capture`.
    """
    captured: dict[Node, Any] = dict.fromkeys(capture)
    arrived: dict[Node, Any] = {}
    pending: list[tuple[int, Node]] = []  # a heap of negative numbers with their nodes: the highest number first
    adding = only is None and not captured and not recording  # to the gradients of all leaves
    enabled = state.enabled
    state.set(recording, state.inference)
    try:
        for node, g in roots:
            if node in arrived:
                g = arrived[node] + g
            else:
                heappush(pending, (-node.sequence, node))
            arrived[node] = g
        while pending:
            node = heappop(pending)[1]
            g = arrived.pop(node)
            if type(node) is AccumulateGrad:
                if node.variable._extra is not None:
                    g = through_leaf_hooks(node.variable, g)
                if captured and node in captured:
                    captured[node] = g
                else:
                    _accumulate_at(node, g)
                continue
            if node.extra is not None:
                g = through_tensor_hooks(node.extra, g)
            if captured and node in captured:
                captured[node] = g
            edges = node.edges
            if only is not None and only.isdisjoint(edges):
                continue
            left = iter(_run(node, g, recording, arrived if adding else None))
            if not keep:
                node.free()
            for edge in edges:
                if edge is None:
                    continue
                gradient = next(left)
                if gradient is None or (only is not None and edge not in only):
                    continue
                if type(edge) is AccumulateGrad:
                    gradient = _own(gradient, g)
                if edge in arrived:
                    arrived[edge] = _sum(arrived[edge], gradient)
                else:
                    arrived[edge] = gradient
                    heappush(pending, (-edge.sequence, edge))
    finally:
        state.set(enabled, state.inference)
    return captured


def _run(node: Node, g: Any, recording: bool, arrived: dict[Node, Any] | None) -> Sequence[Any]:
    """The gradients of a node's inputs.

    Args:
        node: the node.
        g: the gradient of its output.
        recording: whether gradients are Tensors.
        arrived: the nodes at which some gradient has arrived, where those of leaves may be computed in their memory.
    """
    if node.extra is not None or anomaly.enabled:
        return run_watched(node, g, recording)
    if arrived is not None and type(node) is OpNode and node.plan.into:
        return node.gradients(g, recording=recording, memories=_memories(node, g, arrived))
    return node.gradients(g, recording=recording)


def _memories(node: OpNode, g: Any, arrived: dict[Node, Any]) -> dict[int, Array]:
    """The memory in which gradients of inputs are to be computed, by position: of leaves that have none yet."""
    memories = {}
    for position, place in node.plan.into:
        edge = node.edges[place]
        if type(edge) is AccumulateGrad and edge not in arrived and edge.variable._grad is None:
            memory = edge.variable.grad_memory
            if memory is not None and memory.shape == edge.variable.data.shape and memory.dtype == g.dtype:
                memories[position] = memory
    return memories


def _sum(g: Any, h: Any) -> Any:
    """g + h, of arrays, Tensors, or the gradients of several outputs; of half precision by a kernel for it."""
    if type(g) is np.ndarray and g.dtype is not float32 and is_low_precision(g.dtype):
        return kernels.add(g, h)
    return g + h


def _accumulate_at(node: AccumulateGrad, g: Any) -> None:
    extra = node.extra
    if extra is None:
        accumulate(node.variable, g)
        return
    g = through_prehooks(node, extra, g)
    accumulate(node.variable, g)
    run_leaf_hooks(extra, g)


def accumulate(variable: Variable, gradient: Any) -> None:
    """Adds an array, or a recorded Tensor, to `variable.grad`; from one thread at a time."""
    with lock_of(variable):
        grad = variable._grad
        if is_tensor(gradient):
            set_grad(variable, gradient if grad is None else grad + gradient)
        elif grad is None:
            set_grad(variable, Variable.wrap(_placed(variable, gradient)))
        else:
            if grad.data is gradient:
                raise AutogradError("two backward passes at once have computed a gradient in one grad_memory")
            grad.data += gradient
            grad.counter.bump()
    if variable._extra is not None:
        for hook in list(variable._extra.after.values()):
            hook(variable)


def _placed(variable: Variable, gradient: Any) -> Array:
    """The first gradient of a leaf, in the memory that it has for it."""
    array: Array = gradient if type(gradient) is np.ndarray else np.asarray(gradient)
    memory = variable.grad_memory
    if memory is None or memory is array:
        return array
    if memory.shape != array.shape or memory.dtype != array.dtype:
        raise ShapeError(
            f"grad_memory has {memory.dtype} of shape {list(memory.shape)}, the gradient is {array.dtype} of shape "
            f"{list(array.shape)}: the tensor was given other data since; set grad_memory again"
        )
    np.copyto(memory, array)
    return memory


def _own(gradient: Any, g: Any) -> Any:
    """The gradient, copied if it shares memory with `g` or repeats its own: a leaf keeps it and may write to it."""
    if type(gradient) is type(g) is np.ndarray:
        if gradient.base is None:
            return gradient.copy() if gradient is g else gradient
        return gradient.copy() if 0 in gradient.strides or is_alias(gradient, g) else gradient
    arrived = g.values() if isinstance(g, OutputGradients) else (g,)
    if is_tensor(gradient):
        array = gradient.data
        return gradient.clone() if 0 in array.strides or any(is_alias(array, y.data) for y in arrived) else gradient
    return gradient.copy() if 0 in gradient.strides or any(is_alias(gradient, y) for y in arrived) else gradient


def _roots(outputs: Sequence[Tensor], weights: Sequence[Tensor | None], recording: bool) -> list[tuple[Node, Any]]:
    """The nodes of the outputs with the gradients to start from."""
    roots: list[tuple[Node, Any]] = []
    for number, (y, weight) in enumerate(zip(outputs, weights, strict=True)):
        if not y.requires_grad:
            raise AutogradError(f"element {number} of tensors does not require grad and does not have a grad_fn")
        g: Array | Tensor
        if weight is None:
            if y.data.size != 1:
                raise AutogradError("grad can be implicitly created only for scalar outputs")
            g = np.ones(y.data.shape, y.data.dtype)
        else:
            if weight.shape != y.shape:
                raise ShapeError(
                    f"Mismatch in shape: grad_output[{number}] has a shape of {list(weight.shape)} "
                    f"and output[{number}] has a shape of {list(y.shape)}."
                )
            g = weight.to(y.dtype) if recording else weight.data.astype(y.dtype, copy=y.grad_fn is None)
            if g is weight and y.grad_fn is None:
                g = weight.clone()  # a leaf owns its gradient
        roots.append((y.gradient_edge(), Variable.wrap(g) if recording and isinstance(g, np.ndarray) else g))
    return roots


def _leading_to(roots: Iterable[tuple[Node, Any]], targets: Iterable[Node]) -> set[Node]:
    """The nodes on a way from a root to a target, both included."""
    reachable: dict[int, Node] = {}
    stack = [node for node, _ in roots]
    while stack:
        node = stack.pop()
        if node.sequence not in reachable:
            reachable[node.sequence] = node
            stack.extend(filter(None, node.edges))
    leading = set(targets)
    for _, node in sorted(reachable.items()):  # what a node consumes comes before it
        if not leading.isdisjoint(node.edges):
            leading.add(node)
    return leading


def _listed(tensors: Tensors) -> Sequence[Tensor]:
    return (tensors,) if is_tensor(tensors) else tuple(tensors)


def _weights(outputs: Sequence[Tensor], weights: Tensor | Sequence[Tensor | None] | None) -> Sequence[Tensor | None]:
    if weights is None:
        return (None,) * len(outputs)
    listed = (weights,) if is_tensor(weights) else tuple(weights)
    if len(listed) != len(outputs):
        raise AutogradError(f"{len(outputs)} outputs were given {len(listed)} gradients; give one for each")
    return listed
