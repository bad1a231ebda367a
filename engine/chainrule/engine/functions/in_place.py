"""Functions that write their result into the tensor: `x.add_(y)` is `add`, written to x.

The history of a tensor that is written to becomes that of the result. A view hands it on to its base; see
`autograd/views.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import numpy as np

from chainrule.engine.autograd.graph import Node, OpNode, Saved
from chainrule.engine.autograd.mode import state
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.autograd.views import CopySlices
from chainrule.engine.dtypes import DType, type_name
from chainrule.engine.errors import DTypeError, ShapeError
from chainrule.engine.functions import arithmetic
from chainrule.engine.functions.arguments import Number, Operand, index_of
from chainrule.engine.ops import elementwise
from chainrule.engine.ops import shape as shaping

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

P = ParamSpec("P")


def in_place(function: Callable[Concatenate[Tensor, P], Tensor]) -> Callable[Concatenate[Tensor, P], Tensor]:
    """The function that writes what `function` computes into its first argument, and returns that."""
    name = f"{function.__name__}_"

    @wraps(function)
    def written(input: Tensor, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        return write(input, name, function(input, *args, **kwargs))

    written.__name__ = written.__qualname__ = name
    written.__doc__ = f"`{function.__name__}`, written into the tensor itself."
    return written


def write(x: Tensor, name: str, result: Tensor) -> Tensor:
    """Writes what `result` holds into the memory of `x`, and makes its history that of `x`.

    Args:
        x: what is written to.
        name: of the function, `add_` say, for messages.
        result: computed from `x`, perhaps.

    Raises:
        ShapeError: the result has another shape.
        DTypeError: it is of a dtype that cannot be kept in that of `x`.
        AutogradError: autograd could not follow; see `Variable.check_writable`.
    """
    if result.shape != x.shape:
        raise ShapeError(f"output with shape {list(x.shape)} doesn't match the broadcast shape {list(result.shape)}")
    x.check_writable(name)
    if result.dtype != x.dtype:
        _require_castable(result.dtype, x.dtype)
        result = result.to(x.dtype)
    node = result._recorded() if state.enabled else None
    if node is None and state.enabled and x.requires_grad:  # its old value no longer has a part in it
        return write(x, name, shaping.copied(x, result.data.copy()))
    if node is None:
        np.copyto(x.data, result.data)
        x.counter.bump()
        return x
    before = x.gradient_edge() if x.requires_grad else None
    if isinstance(node, OpNode):
        _keep_old_value(node, x)
    np.copyto(x.data, result.data)
    x.counter.bump()
    if isinstance(node, OpNode):
        _share_new_value(node, x, result)
    _set_history(x, node, before)
    return x


def _keep_old_value(node: OpNode, x: Tensor) -> None:
    """Has a node keep a copy of what it saved of the memory that is about to be overwritten."""
    old: Tensor | None = None
    for saved in node.saved or ():
        if isinstance(saved, Saved) and saved.array is x.data:
            old = old or Variable.wrap(x.data.copy(order="K"), grad_fn=x._recorded())
            saved.array, saved.counter, saved.version, saved.tensor = old.data, old.counter, 0, old


def _share_new_value(node: OpNode, x: Tensor, result: Tensor) -> None:
    """Has a node that saved its output save the memory it was written to instead."""
    for saved in node.saved or ():
        if isinstance(saved, Saved) and saved.array is result.data:
            saved.array, saved.counter, saved.version = x.data, x.counter, x.counter.value


def _set_history(x: Tensor, node: Node, before: Node | None) -> None:
    retained = x.retains_grad
    if retained:
        x.forget_to_retain_grad()
    if x._view is None:
        x.set_history(node)
    else:
        base = x._view.base
        base.set_history(CopySlices(base, x.data, node, before))
        x._view.version = -1  # its node is found anew, as a part of the base
    if retained:
        x.retain_grad()  # of what it holds now


def _require_castable(source: DType, target: DType) -> None:
    rank = {"b": 0, "i": 1, "u": 1, "f": 2, "V": 2}
    if rank[source.kind] > rank[target.kind]:
        raise DTypeError(
            f"result type {type_name(source)} can't be cast to the desired output type {type_name(target)}"
        )


# ---- Of each element ----

add_ = in_place(arithmetic.add)
sub_ = in_place(arithmetic.sub)
mul_ = in_place(arithmetic.mul)
div_ = in_place(arithmetic.div)
clamp_ = in_place(arithmetic.clamp)
relu_ = in_place(arithmetic.relu)

# ---- Copies ----


def copy_(input: Tensor, src: Operand, non_blocking: bool = False) -> Tensor:  # noqa: ARG001 - PyTorch's argument
    """The elements of `src`, broadcast and converted, written here."""
    source = src if isinstance(src, Variable) else Variable.wrap(np.asarray(src))
    if source.data.dtype != input.dtype:
        source = elementwise.cast(source, dtype=input.dtype)
    return write(input, "copy_", shaping.copied(input, source))


def fill_(input: Tensor, value: Number | Tensor) -> Tensor:
    """Every element set to `value`."""
    return copy_(input, value)


def zero_(input: Tensor) -> Tensor:
    """Every element set to 0."""
    return copy_(input, 0)


def setitem(input: Tensor, index: Any, value: Operand) -> None:
    """input[index] = value, which is broadcast; leading dimensions of length one that are too many are dropped."""
    place = index_of(index)
    source = value if isinstance(value, Variable) else Variable.wrap(np.asarray(value))
    if shaping.is_basic(place):
        part = shaping.getitem(input, place)
        copy_(part, _without_leading_ones(source, part.ndim))
        return
    if source.data.dtype != input.dtype:
        source = elementwise.cast(source, dtype=input.dtype)
    write(input, "index_put_", shaping.overwrite(input, source, index=place))


def _without_leading_ones(x: Any, ndim: int) -> Tensor:
    extra = x.data.ndim - ndim
    fits = extra > 0 and x.data.shape[:extra] == (1,) * extra
    return shaping.reshape(x, shape=x.data.shape[extra:]) if fits else x
