"""Reductions, what comes first in an order, and what cannot be exported since its shape depends on elements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.graph.errors import GraphError
from chainrule.engine.graph.symbols import Batch
from chainrule.engine.graph.tracing import Call, Value
from chainrule.engine.graph.translations import local
from chainrule.engine.graph.translations.registry import exports, exports_whole
from chainrule.engine.ops import loss, reduction, scan

if TYPE_CHECKING:
    from chainrule.engine.graph.emitting import Emitter


def axes_of(x: Value, dim: Any) -> list[int]:
    """The dimensions that are reduced."""
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return list(range(len(x.shape)))
    return sorted(axis % len(x.shape) for axis in ([dim] if isinstance(dim, int) else dim)) if x.shape else []


_nodes = {
    id(reduction.sum): "ReduceSum",
    id(reduction.mean): "ReduceMean",
    id(reduction.amax): "ReduceMax",
    id(reduction.amin): "ReduceMin",
    id(reduction.max_of_all): "ReduceMax",
    id(reduction.min_of_all): "ReduceMin",
    id(reduction.logsumexp): "ReduceLogSumExp",
    id(scan.prod): "ReduceProd",
}


@exports(
    reduction.sum,
    reduction.mean,
    reduction.amax,
    reduction.amin,
    reduction.max_of_all,
    reduction.min_of_all,
    reduction.logsumexp,
    scan.prod,
)
def reduced(g: Emitter, call: Call) -> None:
    """One node each."""
    x = call.arguments["x"]
    if not x.shape:
        g.alias(call.outputs[0], g.name(x))
        return
    axes = axes_of(x, call.arguments.get("dim"))
    keepdims = int(call.arguments.get("keepdim", False))
    g.node(_nodes[id(call.key)], x, g.ints(axes), out=call.outputs, keepdims=keepdims)


@exports(reduction.var, reduction.std, reduction.norm)
def spread(g: Emitter, call: Call) -> None:
    """Variance, standard deviation and norms."""
    x = call.arguments["x"]
    settings: dict[str, Any] = {
        "axes": axes_of(x, call.arguments["dim"]),
        "keepdims": int(call.arguments["keepdim"]),
    }
    if call.key is reduction.norm:
        p = float(call.arguments["p"])
        if math.isinf(p) or p == 0:
            raise GraphError(f"the norm of order {p} cannot be exported; compute it with abs and amax, say")
        g.local(local.norm, x, out=call.outputs, p=p, **settings)
        return
    function = local.var if call.key is reduction.var else local.std
    g.local(function, x, out=call.outputs, correction=float(call.arguments["correction"]), **settings)


@exports(reduction.argmax, reduction.argmin)
def arg(g: Emitter, call: Call) -> None:
    """The place of the first largest or smallest element."""
    x, dim = call.arguments["x"], call.arguments["dim"]
    op = "ArgMax" if call.key is reduction.argmax else "ArgMin"
    if dim is None:
        flat = g.node("Reshape", x, g.ints([-1]))
        g.node(op, flat, out=call.outputs, axis=0, keepdims=0)
        return
    g.node(op, x, out=call.outputs, axis=dim % len(x.shape), keepdims=int(call.arguments["keepdim"]))


@exports(loss.softmax, loss.log_softmax)
def softmax(g: Emitter, call: Call) -> None:
    """Shares along a dimension, or their logarithms."""
    op = "Softmax" if call.key is loss.softmax else "LogSoftmax"
    g.node(op, call.arguments["x"], out=call.outputs, axis=call.arguments["dim"])


# ---- The first in an order ----


def _along_one(given: Mapping[str, Any]) -> bool:
    return isinstance(given["dim"], int) and given["other"] is None and given["input"].data.ndim > 0


@exports_whole("max", "min", when=_along_one)
def extreme(g: Emitter, call: Call) -> None:
    """The first largest or smallest elements along a dimension, and where they are."""
    x, keepdim = call.arguments["input"], call.arguments["keepdim"]
    axis = call.arguments["dim"] % len(x.shape)
    values, indices = call.outputs
    where = g.node("ArgMax" if call.key == "max" else "ArgMin", x, axis=axis, keepdims=1)
    found = g.node("GatherElements", x, where, axis=axis)
    for value, name in ((values, found), (indices, where)):
        g.alias(value, name if keepdim else g.node("Squeeze", name, g.ints([axis])))


@exports_whole("sort", "topk", when=lambda given: given["input"].data.ndim > 0)
def ordered(g: Emitter, call: Call) -> None:
    """The elements in order, or the first of them, and where they are."""
    x = call.arguments["input"]
    axis = call.arguments["dim"] % len(x.shape)
    largest = call.arguments["descending"] if call.key == "sort" else call.arguments["largest"]
    count = x.shape[axis] if call.key == "sort" else call.arguments["k"]
    g.node("TopK", x, g.ints([count]), out=call.outputs, axis=axis, largest=int(largest), sorted=1)


@exports_whole("one_hot")
def one_hot(g: Emitter, call: Call) -> None:
    """1 in the place of the class, 0 elsewhere."""
    classes = call.arguments["num_classes"]
    if classes == -1:
        raise GraphError("one_hot without num_classes counts what its input holds; give the number of classes")
    truth = g.node("Equal", g.node("Unsqueeze", call.arguments["tensor"], g.ints([-1])), np.arange(classes))
    g.node("Cast", truth, out=call.outputs, to=7)


@exports_whole("count_nonzero")
def count_nonzero(g: Emitter, call: Call) -> None:
    """How many elements are not 0."""
    x = call.arguments["input"]
    truth = g.node("Cast", g.node("Cast", x, to=9), to=7)
    g.node("ReduceSum", truth, g.ints(axes_of(x, call.arguments["dim"])), out=call.outputs, keepdims=0)


# ---- What a graph cannot say ----


@exports_whole("masked_select", "nonzero", "argwhere", "unique", "bincount", "masked_scatter", "searchsorted")
def of_elements(g: Emitter, call: Call) -> None:  # noqa: ARG001 - every translation's arguments
    """What depends on the elements in a way that no graph of fixed shapes has."""
    raise GraphError(
        f'"{call.key}" cannot be exported: what it gives, or how much of it, depends on the elements; masks and where '
        "keep the shape"
    )


def static(n: Any, what: str) -> int:
    """A number that does not depend on the batch.

    Raises:
        GraphError: it does.
    """
    if isinstance(n, Batch):
        raise GraphError(f"{what} depends on how many examples there are, which cannot be exported")
    return int(n)
