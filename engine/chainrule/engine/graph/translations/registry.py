"""The table of translations: one small function for each operation of the engine.

    @exports(activation.leaky_relu)
    def leaky_relu(g: Emitter, call: Call) -> None:
        g.node("LeakyRelu", call.arguments["x"], out=call.outputs, alpha=call.arguments["slope"])

What is computed must have the bits of the engine's operation once `graph.load` has read it, in both directions. Where
no operator of ONNX is that, it is one of chainrule's own (`local.py`), which carries its meaning in ONNX's operators.

A function of the engine that is `watched` is followed as a whole where `when` says so of its arguments: what it
computes from is then known, which the operations inside, on arrays that it made, would not say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from chainrule.engine.graph.emitting import Emitter
    from chainrule.engine.graph.tracing import Call
    from chainrule.engine.ops.op import Op

Translate = Callable[["Emitter", "Call"], None]
When = Callable[[Mapping[str, Any]], bool]
F = TypeVar("F", bound=Translate)

_of_ops: dict[int, Translate] = {}
_of_functions: dict[str, Translate] = {}
_kept: list[Op] = []
whole: dict[str, When] = {}
"""When a function is followed as a whole."""


def exports(*ops: Op) -> Callable[[F], F]:
    """Enters the translation of operations."""

    def enter(translate: F) -> F:
        for op in ops:
            _of_ops[id(op)] = translate
            _kept.append(op)
        return translate

    return enter


def exports_whole(*names: str, when: When = lambda _: True) -> Callable[[F], F]:
    """Enters the translation of functions."""

    def enter(translate: F) -> F:
        for name in names:
            _of_functions[name] = translate
            whole[name] = when
        return translate

    return enter


def translation(key: Any) -> Translate | None:
    """That of an operation, or of a function by its name."""
    return _of_functions.get(key) if isinstance(key, str) else _of_ops.get(id(key))


def standard(op: Op, onnx_op: str, **attributes: Any) -> None:
    """Enters an operation that is one node of the same inputs."""

    def translate(g: Emitter, call: Call) -> None:
        tensors = [x for x in call.arguments.values() if hasattr(x, "dtype")]
        like = tensors[0].dtype if tensors else None
        g.node(onnx_op, *(g.name(call.arguments.get(name), like) for name in op.inputs), out=call.outputs, **attributes)

    exports(op)(translate)
