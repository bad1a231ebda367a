"""Products with Jacobians and Hessians, and whole ones, of functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from chainrule.engine.autograd.mode import enable_grad
from chainrule.engine.autograd.traversal import grad
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.errors import AutogradError, DTypeError, UnsupportedError
from chainrule.engine.functions.joining import stack

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Some: TypeAlias = "Tensor | tuple[Tensor, ...]"
Many: TypeAlias = "tuple[Tensor, ...]"


def vjp(
    func: Callable[..., Some], inputs: Some, v: Some | None = None, create_graph: bool = False, strict: bool = False
) -> tuple[Some, Some]:
    """The outputs of `func`, and vᵀ·J.

    Args:
        func: of the inputs, giving a tensor or a tuple of them.
        inputs: where.
        v: a weight in the shape of each output; may be left out of a single output with one element.
        create_graph: whether the result can be differentiated again.
        strict: whether an output that does not depend on an input is an error rather than zeros.

    Returns:
        The outputs, and for each input the product, in its shape.

    Raises:
        AutogradError: `v` does not fit, or independence under `strict`.
    """
    xs, xs_is_tuple = _leaves("inputs", inputs, create_graph)
    ys, ys_is_tuple = _call(func, xs, strict)
    weights = _weights("v", v, ys)
    products = _gradients(ys, xs, weights, create_graph, strict)
    return _like(_finished(ys, create_graph), ys_is_tuple), _like(_finished(products, create_graph), xs_is_tuple)


def jvp(
    func: Callable[..., Some], inputs: Some, v: Some | None = None, create_graph: bool = False, strict: bool = False
) -> tuple[Some, Some]:
    """The outputs of `func`, and J·v: the derivative of uᵀ·J by u, times v.

    Args, errors: as `vjp`, but `v` has the shapes of the inputs, and the products those of the outputs.
    Source: https://j-towns.github.io/2017/06/12/A-new-trick.html
    """
    xs, _ = _leaves("inputs", inputs, create_graph)
    directions = _weights("v", v, xs)
    ys, ys_is_tuple = _call(func, xs, strict)
    with enable_grad():
        us = [_leaf(np.zeros_like(y.data)) for y in ys]
        pulled = _gradients(ys, xs, us, True, strict)
        products = _gradients(pulled, us, directions, create_graph, strict)
    return _like(_finished(ys, create_graph), ys_is_tuple), _like(_finished(products, create_graph), ys_is_tuple)


def jacobian(
    func: Callable[..., Some],
    inputs: Some,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: Literal["reverse-mode"] = "reverse-mode",
) -> Any:
    """J[i…, j…] = ∂yᵢ/∂xⱼ, with the dimensions of the output and then those of the input.

    Returns:
        A tensor for one output and one input; else a tuple by outputs, by inputs, or of tuples by both.

    Raises:
        AutogradError: independence under `strict`.
        UnsupportedError: forward mode, or `vectorize`.
    """
    _only_reverse(vectorize, strategy)
    xs, xs_is_tuple = _leaves("inputs", inputs, create_graph)
    ys, ys_is_tuple = _call(func, xs, strict)
    rows = tuple(_like(_jacobian_of(y, xs, create_graph, strict), xs_is_tuple) for y in ys)
    return rows if ys_is_tuple else rows[0]


def _jacobian_of(y: Tensor, xs: Many, create_graph: bool, strict: bool) -> Many:
    """The Jacobian of one output by each input: a backward pass for each element of the output."""
    rows: list[list[Tensor]] = [[] for _ in xs]
    for element in range(y.numel()):
        weight = np.zeros(y.shape, y.dtype)
        weight.flat[element] = 1
        found = _gradients((y,), xs, (Variable.wrap(weight),), create_graph, strict, keep=True)
        for row, gradient in zip(rows, found, strict=True):
            row.append(gradient)
    return _finished(
        [
            stack(row).reshape(*y.shape, *x.shape) if row else Variable.wrap(np.zeros((*y.shape, *x.shape), x.dtype))
            for row, x in zip(rows, xs, strict=True)
        ],
        create_graph,
    )


def hessian(
    func: Callable[..., Tensor],
    inputs: Some,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: Literal["reverse-mode"] = "reverse-mode",
) -> Any:
    """H[i…, j…] = ∂²y/∂xᵢ∂xⱼ of a function with one element.

    Returns:
        A tensor for one input, else a tuple of tuples by both.

    Raises:
        AutogradError: `func` gives more than one element, or independence under `strict`.
        UnsupportedError: forward mode, or `vectorize`.
    """
    _only_reverse(vectorize, outer_jacobian_strategy)
    xs_is_tuple = isinstance(inputs, tuple)

    def gradients(*xs: Tensor) -> Some:
        y = _scalar(func, xs)
        found = _gradients((y,), xs, (None,), True, strict)
        return found if xs_is_tuple else found[0]

    return jacobian(gradients, inputs, create_graph, strict)


def vhp(
    func: Callable[..., Tensor], inputs: Some, v: Some | None = None, create_graph: bool = False, strict: bool = False
) -> tuple[Tensor, Some]:
    """The value of a function with one element, and vᵀ·H; args and errors as `vjp`."""
    xs, xs_is_tuple = _leaves("inputs", inputs, create_graph)
    weights = _weights("v", v, xs)
    with enable_grad():
        y = _scalar(func, xs)
        slopes = _gradients((y,), xs, (None,), True, strict)
        products = _gradients(slopes, xs, weights, create_graph, strict)
    return _finished((y,), create_graph)[0], _like(_finished(products, create_graph), xs_is_tuple)


def hvp(
    func: Callable[..., Tensor], inputs: Some, v: Some | None = None, create_graph: bool = False, strict: bool = False
) -> tuple[Tensor, Some]:
    """The value of a function with one element, and H·v, which is vᵀ·H: H is symmetric. See `vhp`."""
    return vhp(func, inputs, v, create_graph, strict)


# ---- Parts ----


def _leaves(name: str, inputs: Some, create_graph: bool) -> tuple[Many, bool]:
    """The inputs, out of their graphs unless the result is to lead back into them."""
    listed = inputs if isinstance(inputs, tuple) else (inputs,)
    for x in listed:
        if not isinstance(x, Variable):
            raise DTypeError(f"The {name} must be a Tensor or a tuple of Tensors, but one is {type(x).__name__}")
    with enable_grad():
        return tuple(
            x.view(x.shape) if create_graph and x.requires_grad else _leaf(x.data) for x in listed
        ), isinstance(inputs, tuple)


def _leaf(array: Any) -> Tensor:
    leaf = Variable.wrap(array)
    leaf.requires_grad = True
    return leaf


def _call(func: Callable[..., Some], xs: Many, strict: bool) -> tuple[Many, bool]:
    with enable_grad():
        result = func(*xs)
    ys = result if isinstance(result, tuple) else (result,)
    for number, y in enumerate(ys):
        if not isinstance(y, Variable):
            raise DTypeError(
                f"The outputs of the user-provided function must be Tensors, but number {number} is {type(y).__name__}"
            )
        if strict and not y.requires_grad:
            raise AutogradError(
                f"Output {number} of the user-provided function does not require gradients. The outputs must be "
                "computed in a differentiable manner from the input when running in strict mode."
            )
    return ys, isinstance(result, tuple)


def _scalar(func: Callable[..., Tensor], xs: Many) -> Tensor:
    (y, *more), _ = _call(func, xs, False)
    if more or y.numel() != 1:
        raise AutogradError("The Tensor returned by the function given to hessian should contain a single element")
    return y.reshape(())


def _weights(name: str, v: Some | None, like: Many) -> Many:
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise AutogradError(f"The vector {name} can only be None if the function has a single element there")
        return (Variable.wrap(np.ones_like(like[0].data)),)
    listed = v if isinstance(v, tuple) else (v,)
    if len(listed) != len(like):
        raise AutogradError(f"{name} has {len(listed)} tensors where {len(like)} are needed")
    for number, (weight, x) in enumerate(zip(listed, like, strict=True)):
        if weight.shape != x.shape:
            raise AutogradError(
                f"Entry {number} of {name} has invalid size: should be {list(x.shape)} but got {list(weight.shape)}."
            )
    return listed


def _gradients(
    ys: Sequence[Tensor],
    xs: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    create_graph: bool,
    strict: bool,
    keep: bool | None = None,
) -> Many:
    """Σ weightᵀ · ∂y/∂x for each x; zeros where nothing depends on it, or an error if `strict`."""
    used = [(y, weight) for y, weight in zip(ys, weights, strict=True) if y.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(xs)
    if used:
        found = grad(
            [y for y, _ in used],
            list(xs),
            [weight for _, weight in used],
            retain_graph=keep or create_graph,
            create_graph=create_graph,
            allow_unused=True,
        )
    for number, g in enumerate(found):
        if g is None and strict:
            raise AutogradError(f"The output is independent of input {number}. This is not allowed in strict mode.")
    return tuple(Variable.wrap(np.zeros_like(x.data)) if g is None else g for x, g in zip(xs, found, strict=True))


def _finished(tensors: Sequence[Tensor], create_graph: bool) -> Many:
    return tuple(tensors) if create_graph else tuple(x.detach() for x in tensors)


def _like(tensors: Many, is_tuple: bool) -> Some:
    return tensors if is_tuple else tensors[0]


def _only_reverse(vectorize: bool, strategy: str) -> None:
    if vectorize:
        raise UnsupportedError("vectorize=True is not supported: there is no vmap; leave it out")
    if strategy != "reverse-mode":
        raise UnsupportedError(f"strategy {strategy!r} is not supported: there is no forward mode; use 'reverse-mode'")
