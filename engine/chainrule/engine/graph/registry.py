"""The table of operators: one small function for each, from a node to what computes it.

    @operator("LeakyRelu", since=6)
    def leaky_relu(node: Node) -> Compute:
        slope = node.float("alpha", 0.01)
        return lambda x: F.leaky_relu(x, slope)

The function runs once, when a graph is loaded: attributes are read and checked then. What it returns is called in every
forward with the inputs as Tensors (None for an optional one that is not there) and returns a Tensor, or a tuple with
one for each output. Inputs named in `host` come as numpy arrays: shapes, axes, numbers that say *what* is computed;
no gradient goes to them, and they are usually known before the forward. What cannot be taken raises `Refused(reason)`.

An output may be larger than all inputs together. An operator that can do this returns `bounded(compute, elements)`,
where `elements(*inputs)` gives an upper bound of the elements of its outputs, or of anything in between, from the same
arguments without computing or allocating; see `check` in `program.py` for what holds without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from chainrule.engine.graph.node import Node

MAX_OPSET = 26
"""The newest opset of ONNX that the operators were compared with."""
ML_DOMAIN = "ai.onnx.ml"
MAX_ML_OPSET = 5

Compute = Callable[..., Any]


@dataclass(frozen=True)
class Bounded:
    """What computes a node, and how many elements it may give."""

    compute: Compute
    elements: Callable[..., int]


Bind = Callable[[Node], "Compute | Bounded"]
F = TypeVar("F", bound=Bind)


@dataclass(frozen=True)
class Operator:
    """An operator from one opset up to another."""

    domain: str
    op: str
    since: int
    until: int
    """The last opset it is taken in."""
    bind: Bind
    host: frozenset[int]
    weights: frozenset[int]
    stateful: bool
    of_shape: bool
    dynamic: bool
    itemsize: int


_table: dict[tuple[str, str], list[Operator]] = {}


def operator(
    *ops: str,
    since: int = 1,
    until: int | None = None,
    domain: str = "",
    host: Iterable[int] = (),
    weights: Iterable[int] = (),
    stateful: bool = False,
    of_shape: bool = False,
    dynamic: bool = False,
    itemsize: int = 1,
) -> Callable[[F], F]:
    """Enters a function in the table.

    Args:
        ops: the operators it is for; `node.op` says which.
        since: the first opset it is right for.
        until: the last; the newest there is by default.
        host: positions of inputs that are passed as numpy arrays, and get no gradient.
        weights: positions where what the file keeps without a name of its own is a weight all the same.
        stateful: the computation's first argument is the forward's `Run`: whether it trains.
        of_shape: the result depends on the input's shape only, never on its elements.
        dynamic: the shape of the result depends on the elements of the inputs.
        itemsize: the bytes that an element of the results, all of them together, may take where inputs are of narrower
            floats.
    """
    last = until if until is not None else MAX_ML_OPSET if domain == ML_DOMAIN else MAX_OPSET

    def enter(bind: F) -> F:
        for op in ops:
            rows = _table.setdefault((domain, op), [])
            rows.append(
                Operator(
                    domain,
                    op,
                    since,
                    last,
                    bind,
                    frozenset(host),
                    frozenset(weights),
                    stateful,
                    of_shape,
                    dynamic,
                    itemsize,
                )
            )
            rows.sort(key=lambda row: row.since)
        return bind

    return enter


def bounded(compute: Compute, elements: Callable[..., int]) -> Bounded:
    """A computation whose outputs may be larger than its inputs; see this module."""
    return Bounded(compute, elements)


def find(domain: str, op: str, opset: int) -> Operator | str:
    """The row for an operator in an opset, or the reason why there is none."""
    rows = _table.get((domain, op))
    if rows is None:
        return "the operator is not known here"
    fitting = [row for row in rows if row.since <= opset <= row.until]
    if fitting:
        return fitting[-1]
    return f"taken from opset {rows[0].since} to {rows[-1].until}"


@dataclass(frozen=True, order=True)
class Row:
    """A line of the table of operators: taken from one opset to another, both included."""

    domain: str
    op: str
    since: int
    until: int


def table() -> list[Row]:
    """Every operator with the opsets that it is taken in, in order of domain and name."""
    return sorted(
        Row(domain, op, min(r.since for r in rows), max(r.until for r in rows)) for (domain, op), rows in _table.items()
    )
