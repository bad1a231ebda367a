"""What happens to gradients on their way where someone watches: hooks, kept gradients, anomaly detection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.engine.autograd.anomaly import check_numbers, explain
from chainrule.engine.autograd.graph import Extra, Hook, Node, OutputGradients
from chainrule.engine.autograd.variable import Variable, is_tensor
from chainrule.engine.errors import AutogradError, DTypeError


def through_leaf_hooks(variable: Variable, g: Any) -> Any:
    """The gradient of a leaf as its hooks leave it."""
    extra = variable._extra
    return _copied(_through(extra.tensor_hooks.values(), g)) if extra is not None and extra.tensor_hooks else g


def through_tensor_hooks(extra: Extra, g: Any) -> Any:
    """The gradient of a node's output as the hooks of the output leave it; kept in its `grad`, if it keeps it."""
    g = _through(extra.tensor_hooks.values(), g)
    kept = None if extra.retained is None else extra.retained()
    if kept is not None:
        tensor = _as_tensor(g)
        kept._grad = tensor.clone() if kept._grad is None else kept._grad + tensor  # its owner may write to it
    return g


def run_watched(node: Node, g: Any, recording: bool) -> Sequence[Any]:
    """Runs a node that may have hooks, while anomalies may be looked for."""
    extra = node.extra
    if extra is not None:
        g = through_prehooks(node, extra, g)
    try:
        gradients = node.gradients(g, recording=recording)
        check_numbers(node, gradients)
    except Exception as error:
        explain(node, error)
        raise
    return gradients if extra is None else _through_hooks(node, extra, gradients, g)


def through_prehooks(node: Node, extra: Extra, g: Any) -> Any:
    """The gradients of a node's outputs as its prehooks leave them."""
    for hook in list(extra.prehooks.values()):
        before = _of_outputs(node, g)
        after = _replaced(hook, before, hook(tuple(map(_as_tensor, before))))
        g = OutputGradients(enumerate(after)) if isinstance(g, OutputGradients) else _copied(after[0])
    return g


def run_leaf_hooks(extra: Extra, g: Any) -> None:
    """Shows the hooks of a leaf's node what was added to its gradient; it has no inputs, whose they could replace."""
    for hook in list(extra.hooks.values()):
        _replaced(hook, (), hook((), (_as_tensor(g),)))


def _through_hooks(node: Node, extra: Extra, gradients: Sequence[Any], g: Any) -> Sequence[Any]:
    """The gradients of a node's inputs as its hooks leave them, who see None for an input that requires none."""
    for hook in list(extra.hooks.values()):
        left = iter(gradients)
        before = [None if edge is None else next(left) for edge in node.edges]
        given = tuple(map(_as_tensor, before)), tuple(map(_as_tensor, _of_outputs(node, g)))
        after = _replaced(hook, before, hook(*given))
        gradients = [_copied(gradient) for gradient, edge in zip(after, node.edges, strict=True) if edge is not None]
    return gradients


def _of_outputs(node: Node, g: Any) -> Sequence[Any]:
    """The gradient of each output of a node; None where none arrived."""
    return [g.get(position) for position in range(node.number_of_outputs)] if isinstance(g, OutputGradients) else (g,)


def _through(hooks: Any, g: Any) -> Any:
    for hook in list(hooks):
        given = _as_tensor(g)
        result = hook(given)
        if result is None:
            continue
        if not isinstance(result, Variable):
            raise DTypeError(f"expected Variable, but hook '{_name(hook)}' returned '{type(result).__name__}'")
        if result.data.shape != given.data.shape:
            raise AutogradError(
                f"hook '{_name(hook)}' has changed the size of value: {list(result.data.shape)}, "
                f"not {list(given.data.shape)}"
            )
        if result.data.dtype != given.data.dtype:
            raise DTypeError(
                f"hook '{_name(hook)}' has changed the type of value (was {given.data.dtype} got {result.data.dtype})"
            )
        g = result if isinstance(g, Variable) else result.data
    return g


def _replaced(hook: Hook, before: Sequence[Any], after: Any) -> Sequence[Any]:
    """The gradients that a node's hook leaves: what it returned, or those it was given."""
    if after is None:
        return before
    listed = after if isinstance(after, tuple) else (after,)
    if len(listed) != len(before):
        raise AutogradError(f"hook '{_name(hook)}' gave {len(listed)} gradients; there are {len(before)}")
    return [
        new if new is None or isinstance(old, Variable) or not isinstance(new, Variable) else new.data
        for old, new in zip(before, listed, strict=True)
    ]


def _copied(g: Any) -> Any:
    """A gradient that a hook was shown, and may have kept, for a leaf that may write to it."""
    if g is None or isinstance(g, OutputGradients):
        return g
    return g.clone() if is_tensor(g) else g.copy()


def _as_tensor(g: Any) -> Any:
    """A gradient as users see it."""
    if g is None or isinstance(g, Variable):
        return g
    return Variable.wrap(np.asarray(g))


def _name(hook: Hook) -> str:
    return getattr(hook, "__name__", type(hook).__name__)
