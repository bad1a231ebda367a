"""Functions that write their result into the tensor: `x.add_(y)` is `add`, written to x.

The history of a tensor that is written to becomes that of the result. A view hands it on to its base; see
`autograd/views.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import numpy as np

from chainrule.engine.autograd.graph import OpNode, Saved
from chainrule.engine.autograd.mode import state
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import DType, type_name
from chainrule.engine.errors import DTypeError, ShapeError
from chainrule.engine.functions import (
    arithmetic,
    arranging,
    choosing,
    comparison,
    indexing,
    masking,
    reduction,
    shapes,
)
from chainrule.engine.functions.arguments import Number, Operand, operand_types
from chainrule.engine.ops import elementwise
from chainrule.engine.ops import shape as shaping
from chainrule.engine.watching import tell_written, watchers

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

P = ParamSpec("P")


def in_place(function: Callable[Concatenate[Tensor, P], Tensor]) -> Callable[Concatenate[Tensor, P], Tensor]:
    """The function that writes what `function` computes into its first argument, and returns that."""
    name = f"{function.__name__}_"

    def written(input: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        return write(input, name, function(input, *args, **kwargs))

    update_wrapper(written, function)
    written.__name__ = written.__qualname__ = name
    written.__doc__ = f"`{function.__name__}`, written into the tensor itself."
    return written


def write(x: Tensor, name: str, result: Tensor, *, fresh: bool = False) -> Tensor:
    """Writes what `result` holds into the memory of `x`, and makes its history that of `x`.

    Args:
        x: what is written to.
        name: of the function, `add_` say, for messages.
        result: computed from `x`, perhaps.
        fresh: whether the result's memory is its own, and may become that of `x`, if nothing else refers to that.

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
    node = result._recorded() if state.recording else None
    if node is None and state.recording and x.requires_grad:  # its old value no longer has a part in it
        return write(x, name, shaping.copied(x, result.data.copy()))
    if node is None:
        _fill(x, result, fresh)
        x.counter.bump()
        if watchers:
            tell_written(x, result)
        return x
    x.check_followed()
    before = x.gradient_edge() if x.requires_grad else None
    if isinstance(node, OpNode):
        _keep_old_value(node, x)
    _fill(x, result, fresh)
    x.counter.bump()
    if isinstance(node, OpNode):
        _share_new_value(node, x, result)
    x.rewrite_history(node, before)
    if watchers:
        tell_written(x, result)
    return x


def _fill(x: Tensor, result: Tensor, fresh: bool) -> None:
    if fresh and x._view is None and _is_sole(x) and x.data.strides == result.data.strides:
        x.data = result.data
    else:
        np.copyto(x.data, result.data)


def _is_sole(x: Tensor) -> bool:
    """Whether nothing but the tensor refers to its memory: neither to its array nor to the one that owns the memory."""
    array, owner = _references(x)
    return array <= _sole[0] and (owner is None or owner <= _sole[1])


def _references(x: Any) -> tuple[int, int | None]:
    """How often the array and the owner of its memory are referred to; as good as endlessly what cannot be told of."""
    array = x.data
    owner = array.base
    if owner is None:
        return sys.getrefcount(array), None
    if not isinstance(owner, np.ndarray) or owner.base is not None:
        return sys.maxsize, None
    return sys.getrefcount(array), sys.getrefcount(owner)


class _Holder:
    """What refers to an array as a tensor does, to count how often that is: it depends on the version of Python."""

    def __init__(self) -> None:
        self.data = np.empty(2)[:1]


def _counted() -> tuple[int, int]:
    array, owner = _references(_Holder())
    if owner is None or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return 0, 0  # without the lock, counts are no proof
    return array, owner


_sole = _counted()


def _keep_old_value(node: OpNode, x: Tensor) -> None:
    """Has a node keep a copy of what it saved of the memory that is about to be overwritten."""
    old: Tensor | None = None
    for saved in node.saved or ():
        if isinstance(saved, Saved) and saved.array is x.data:
            if old is None:
                old = Variable.wrap(x.data.copy(order="K"), grad_fn=x._recorded())
            saved.array, saved.counter, saved.version, saved.tensor = old.data, old.counter, 0, old
            saved.view = None


def _share_new_value(node: OpNode, x: Tensor, result: Tensor) -> None:
    """Has a node that saved its output save the memory it was written to instead."""
    for saved in node.saved or ():
        if isinstance(saved, Saved) and saved.array is result.data:
            saved.array, saved.counter, saved.version = x.data, x.counter, x.counter.value


def _require_castable(source: DType, target: DType) -> None:
    rank = {"b": 0, "i": 1, "u": 1, "f": 2, "V": 2}
    if rank[source.kind] > rank[target.kind]:
        raise DTypeError(
            f"result type {type_name(source)} can't be cast to the desired output type {type_name(target)}"
        )


# ---- Of each element ----

abs_ = in_place(arithmetic.abs)
absolute_ = in_place(arithmetic.absolute)
acos_ = in_place(arithmetic.acos)
acosh_ = in_place(arithmetic.acosh)
add_ = in_place(arithmetic.add)
addcdiv_ = in_place(arithmetic.addcdiv)
addcmul_ = in_place(arithmetic.addcmul)
arccos_ = in_place(arithmetic.arccos)
arccosh_ = in_place(arithmetic.arccosh)
arcsin_ = in_place(arithmetic.arcsin)
arcsinh_ = in_place(arithmetic.arcsinh)
arctan_ = in_place(arithmetic.arctan)
arctan2_ = in_place(arithmetic.arctan2)
arctanh_ = in_place(arithmetic.arctanh)
asin_ = in_place(arithmetic.asin)
asinh_ = in_place(arithmetic.asinh)
atan_ = in_place(arithmetic.atan)
atan2_ = in_place(arithmetic.atan2)
atanh_ = in_place(arithmetic.atanh)
ceil_ = in_place(arithmetic.ceil)
clamp_ = in_place(arithmetic.clamp)
clamp_max_ = in_place(arithmetic.clamp_max)
clamp_min_ = in_place(arithmetic.clamp_min)
clip_ = in_place(arithmetic.clip)
copysign_ = in_place(arithmetic.copysign)
cos_ = in_place(arithmetic.cos)
cosh_ = in_place(arithmetic.cosh)
div_ = in_place(arithmetic.div)
divide_ = in_place(arithmetic.divide)
erf_ = in_place(arithmetic.erf)
exp_ = in_place(arithmetic.exp)
exp2_ = in_place(arithmetic.exp2)
expm1_ = in_place(arithmetic.expm1)
float_power_ = in_place(arithmetic.float_power)
floor_ = in_place(arithmetic.floor)
floor_divide_ = in_place(arithmetic.floor_divide)
fmod_ = in_place(arithmetic.fmod)
frac_ = in_place(arithmetic.frac)
heaviside_ = in_place(arithmetic.heaviside)
hypot_ = in_place(arithmetic.hypot)
ldexp_ = in_place(arithmetic.ldexp)
lerp_ = in_place(arithmetic.lerp)
log_ = in_place(arithmetic.log)
log10_ = in_place(arithmetic.log10)
log1p_ = in_place(arithmetic.log1p)
log2_ = in_place(arithmetic.log2)
logit_ = in_place(arithmetic.logit)
mul_ = in_place(arithmetic.mul)
multiply_ = in_place(arithmetic.multiply)
nan_to_num_ = in_place(arithmetic.nan_to_num)
neg_ = in_place(arithmetic.neg)
negative_ = in_place(arithmetic.negative)
pow_ = in_place(arithmetic.pow)
reciprocal_ = in_place(arithmetic.reciprocal)
relu_ = in_place(arithmetic.relu)
remainder_ = in_place(arithmetic.remainder)
round_ = in_place(arithmetic.round)
rsqrt_ = in_place(arithmetic.rsqrt)
sgn_ = in_place(arithmetic.sgn)
sigmoid_ = in_place(arithmetic.sigmoid)
sign_ = in_place(arithmetic.sign)
sin_ = in_place(arithmetic.sin)
sinh_ = in_place(arithmetic.sinh)
sqrt_ = in_place(arithmetic.sqrt)
square_ = in_place(arithmetic.square)
sub_ = in_place(arithmetic.sub)
subtract_ = in_place(arithmetic.subtract)
tan_ = in_place(arithmetic.tan)
tanh_ = in_place(arithmetic.tanh)
true_divide_ = in_place(arithmetic.true_divide)
trunc_ = in_place(arithmetic.trunc)
xlogy_ = in_place(arithmetic.xlogy)

bitwise_and_ = in_place(comparison.bitwise_and)
bitwise_left_shift_ = in_place(comparison.bitwise_left_shift)
bitwise_not_ = in_place(comparison.bitwise_not)
bitwise_or_ = in_place(comparison.bitwise_or)
bitwise_right_shift_ = in_place(comparison.bitwise_right_shift)
bitwise_xor_ = in_place(comparison.bitwise_xor)
eq_ = in_place(comparison.eq)
ge_ = in_place(comparison.ge)
greater_ = in_place(comparison.greater)
greater_equal_ = in_place(comparison.greater_equal)
gt_ = in_place(comparison.gt)
le_ = in_place(comparison.le)
less_ = in_place(comparison.less)
less_equal_ = in_place(comparison.less_equal)
logical_and_ = in_place(comparison.logical_and)
logical_not_ = in_place(comparison.logical_not)
logical_or_ = in_place(comparison.logical_or)
logical_xor_ = in_place(comparison.logical_xor)
lt_ = in_place(comparison.lt)
ne_ = in_place(comparison.ne)
not_equal_ = in_place(comparison.not_equal)

# ---- Along a dimension ----

cumprod_ = in_place(reduction.cumprod)
cumsum_ = in_place(reduction.cumsum)

# ---- Of the elements that an index or a mask names ----

scatter_ = in_place(choosing.scatter)
scatter_add_ = in_place(choosing.scatter_add)
scatter_reduce_ = in_place(choosing.scatter_reduce)
index_add_ = in_place(choosing.index_add)
index_copy_ = in_place(choosing.index_copy)
index_fill_ = in_place(choosing.index_fill)
index_put_ = in_place(choosing.index_put)
masked_fill_ = in_place(masking.masked_fill)
masked_scatter_ = in_place(masking.masked_scatter)
tril_ = in_place(arranging.tril)
triu_ = in_place(arranging.triu)

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
    """input[index] = value, which is broadcast; leading dimensions of length one that are too many are dropped.

    Raises:
        DimensionError: the index is out of bounds.
        DTypeError: the value is no tensor and no number, or has another dtype than what it is put into.
        ShapeError: the value does not broadcast.
    """
    if not isinstance(value, operand_types):
        raise DTypeError(f"can't assign a {type(value).__name__} to a torch.{type_name(input.dtype)}Tensor")
    part, chosen = indexing.resolve(input, index)
    source: Any = value if isinstance(value, Variable) else Variable.wrap(np.asarray(value).astype(input.dtype))
    if chosen is None:
        extra = source.data.ndim - part.data.ndim
        if extra > 0 and source.data.shape[:extra] == (1,) * extra:
            source = shaping.reshape(source, shape=source.data.shape[extra:])
        copy_(part, source if source.data.ndim == 0 else shapes.expand(source, part.data.shape))
        return
    source = choosing.fitted(part, chosen, source)
    if state.recording and (part.requires_grad or source.requires_grad):
        write(part, "index_put_", shaping.overwrite(part, source, index=chosen))
        return
    part.check_writable("index_put_")
    part.data[chosen] = source.data
    part.counter.bump()
