"""What happens to gradients on their way where someone watches: hooks, kept gradients, anomaly detection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.engine.autograd.anomaly import check_numbers, explain
from chainrule.engine.autograd.graph import Extra, Hook, Node, OutputGradients
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.errors import AutogradError


def through_leaf_hooks(variable: Variable, g: Any) -> Any:
    """The gradient of a leaf as its hooks leave it."""
    return g if variable._hooks is None else _through(variable._hooks.tensor_hooks.values(), g)


def through_tensor_hooks(extra: Extra, g: Any) -> Any:
    """The gradient of a node's output as the hooks of the output leave it; kept in its `grad`, if it keeps it."""
    g = _through(extra.tensor_hooks.values(), g)
    kept = None if extra.retained is None else extra.retained()
    if kept is not None:
        tensor = _as_tensor(g)
        kept.grad = tensor if kept.grad is None else kept.grad + tensor
    return g


def run_watched(node: Node, g: Any, recording: bool) -> Sequence[Any]:
    """Runs a node that may have hooks, while anomalies may be looked for."""
    extra = node.extra
    if extra is not None:
        for hook in list(extra.prehooks.values()):
            (g,) = _replaced(hook, (g,), hook((_as_tensor(g),)))
    try:
        gradients = node.gradients(g, recording=recording)
        check_numbers(node, gradients)
    except Exception as error:
        explain(node, error)
        raise
    if extra is not None:
        for hook in list(extra.hooks.values()):
            given = tuple(_as_tensor(gradient) for gradient in gradients), (_as_tensor(g),)
            gradients = _replaced(hook, gradients, hook(*given))
    return gradients


def _through(hooks: Any, g: Any) -> Any:
    for hook in list(hooks):
        given = _as_tensor(g)
        result = hook(given)
        if result is None:
            continue
        if not isinstance(result, Variable):
            raise AutogradError(f"hook '{_name(hook)}' gave {type(result).__name__}; it returns None or a Tensor")
        if result.data.shape != given.data.shape:
            raise AutogradError(
                f"hook '{_name(hook)}' has changed the size of value: {list(result.data.shape)}, "
                f"not {list(given.data.shape)}"
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


def _as_tensor(g: Any) -> Any:
    """A gradient as users see it."""
    if g is None or isinstance(g, Variable | OutputGradients):
        return g
    return Variable.wrap(np.asarray(g))


def _name(hook: Hook) -> str:
    return getattr(hook, "__name__", type(hook).__name__)
