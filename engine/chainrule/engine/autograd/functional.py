"""Products with Jacobians and Hessians, and whole ones, of functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from chainrule.engine.autograd.mode import enable_grad
from chainrule.engine.autograd.traversal import grad
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import is_floating
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
    xs, xs_is_tuple = _leaves("vjp", inputs, create_graph)
    ys, ys_is_tuple = _call("vjp", func, xs, strict)
    weights = _weights("vjp", v, ys, ys_is_tuple, "user-provided function returns")
    found = _gradients(ys, xs, weights, create_graph)
    products = _filled(found, xs, strict, create_graph, "output", "jacobian")
    return _like(_finished(ys, create_graph), ys_is_tuple), _like(_finished(products, create_graph), xs_is_tuple)


def jvp(
    func: Callable[..., Some], inputs: Some, v: Some | None = None, create_graph: bool = False, strict: bool = False
) -> tuple[Some, Some]:
    """The outputs of `func`, and J·v: the derivative of uᵀ·J by u, times v.

    Args, errors: as `vjp`, but `v` has the shapes of the inputs, and the products those of the outputs.
    Source: https://j-towns.github.io/2017/06/12/A-new-trick.html
    """
    xs, xs_is_tuple = _leaves("jvp", inputs, create_graph)
    directions = _weights("jvp", v, xs, xs_is_tuple, "input to the user-provided function is")
    ys, ys_is_tuple = _call("jvp", func, xs, strict)
    with enable_grad():
        us = [_leaf(np.zeros_like(y.data)) if is_floating(y.dtype) else y for y in ys]
        pulled = _filled(_gradients(ys, xs, us, True), xs, strict, False, "output", "jacobian")
        found = (
            _gradients(pulled, us, directions, create_graph) if any(y.requires_grad for y in ys) else [None] * len(ys)
        )
        products = _filled(found, ys, strict, create_graph, "gradient", "jacobian")
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
    xs, xs_is_tuple = _leaves("jacobian", inputs, create_graph)
    ys, ys_is_tuple = _call("jacobian", func, xs, strict)
    rows = tuple(_like(_jacobian_of(y, number, xs, create_graph, strict), xs_is_tuple) for number, y in enumerate(ys))
    return rows if ys_is_tuple else rows[0]


def _jacobian_of(y: Tensor, number: int, xs: Many, create_graph: bool, strict: bool) -> Many:
    """The Jacobian of one output by each input: a backward pass for each element of the output."""
    rows: list[list[Tensor]] = [[] for _ in xs]
    for element in range(y.numel()):
        weight = np.zeros(y.shape, y.dtype)
        weight.flat[element] = 1
        found = _gradients((y,), xs, (Variable.wrap(weight),), create_graph, keep=True)
        filled = _filled(found, xs, strict, create_graph, f"output {number}", "jacobian")
        for row, gradient in zip(rows, filled, strict=True):
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
    _, xs_is_tuple = _tensors("inputs", "hessian", inputs)

    def gradients(*xs: Tensor) -> Some:
        y = _scalar("hessian", func, xs, strict)
        return _like(_slopes(y, xs, strict), xs_is_tuple)

    return jacobian(gradients, inputs, create_graph, strict)


def vhp(
    func: Callable[..., Tensor], inputs: Some, v: Some | None = None, create_graph: bool = False, strict: bool = False
) -> tuple[Tensor, Some]:
    """The value of a function with one element, and vᵀ·H; args and errors as `vjp`."""
    return _hessian_product("vhp", func, inputs, v, create_graph, strict)


def hvp(
    func: Callable[..., Tensor], inputs: Some, v: Some | None = None, create_graph: bool = False, strict: bool = False
) -> tuple[Tensor, Some]:
    """The value of a function with one element, and H·v, which is vᵀ·H: H is symmetric. See `vhp`."""
    return _hessian_product("hvp", func, inputs, v, create_graph, strict)


def _hessian_product(
    name: str, func: Callable[..., Tensor], inputs: Some, v: Some | None, create_graph: bool, strict: bool
) -> tuple[Tensor, Some]:
    xs, xs_is_tuple = _leaves(name, inputs, create_graph)
    weights = _weights(name, v, xs, xs_is_tuple, "input to the user-provided function is")
    y = _scalar(name, func, xs, strict)
    with enable_grad():
        found = _gradients(_slopes(y, xs, strict), xs, weights, create_graph)
        products = _filled(found, xs, strict, create_graph, "jacobian", "hessian")
    return _finished((y,), create_graph)[0], _like(_finished(products, create_graph), xs_is_tuple)


# ---- Parts ----


def _tensors(what: str, name: str, given: Any) -> tuple[Many, bool]:
    """What was given, as a tuple of tensors, and whether it was one."""
    for number, x in enumerate(given if isinstance(given, tuple) else (given,)):
        if not isinstance(x, Variable):
            wrong = f"value at index {number}" if isinstance(given, tuple) else f"given {what}"
            raise DTypeError(
                f"The {what} given to {name} must be either a Tensor or a tuple of Tensors but the {wrong} has type "
                f"{type(x)}."
            )
    return given if isinstance(given, tuple) else (given,), isinstance(given, tuple)


def _leaves(name: str, inputs: Some, create_graph: bool) -> tuple[Many, bool]:
    """The inputs, out of their graphs unless the result is to lead back into them."""
    listed, is_tuple = _tensors("inputs", name, inputs)
    with enable_grad():
        xs = [x.view(x.shape) if create_graph and x.requires_grad else _leaf(x.data) for x in listed]
    return tuple(xs), is_tuple


def _leaf(array: Any) -> Tensor:
    leaf = Variable.wrap(array)
    leaf.requires_grad = True
    return leaf


def _call(name: str, func: Callable[..., Any], xs: Many, strict: bool) -> tuple[Many, bool]:
    with enable_grad():
        ys, is_tuple = _tensors("outputs of the user-provided function", name, func(*xs))
    for number, y in enumerate(ys):
        if strict and not y.requires_grad:
            raise AutogradError(
                f"Output {number} of the user-provided function does not require gradients. The outputs must be "
                "computed in a differentiable manner from the input when running in strict mode."
            )
    return ys, is_tuple


def _scalar(name: str, func: Callable[..., Any], xs: Many, strict: bool) -> Tensor:
    ys, is_tuple = _call(name, func, xs, strict)
    if is_tuple:
        raise AutogradError(f"The function given to {name} should return a single Tensor")
    if ys[0].numel() != 1:
        raise AutogradError(f"The Tensor returned by the function given to {name} should contain a single element")
    return ys[0]


def _slopes(y: Tensor, xs: Many, strict: bool) -> Many:
    """The gradient of one element, to be differentiated again."""
    slopes = _filled(_gradients((y,), xs, (None,), True), xs, strict, False, "output", "jacobian")
    for number, slope in enumerate(slopes):
        if strict and not slope.requires_grad:
            raise AutogradError(
                "While computing the hessian, found that the jacobian of the user-provided function with respect to "
                f"input {number} is independent of the input. This is not allowed in strict mode. You should ensure "
                "that your function is twice differentiable and that the jacobian depends on the inputs (this would "
                "be violated by a linear function for example)."
            )
    return slopes


def _weights(name: str, v: Some | None, like: Many, like_is_tuple: bool, needed: str) -> Many:
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise AutogradError(f"The vector v can only be None if the {needed} a single Tensor with a single element.")
        return (Variable.wrap(np.ones_like(like[0].data)),)
    listed, _ = _tensors("v", name, v)
    if len(listed) != len(like):
        wrong = f"v is a tuple of invalid length: should be {len(like)} but got {len(listed)}."
        raise AutogradError(wrong if like_is_tuple else "The given v should contain a single Tensor.")
    for number, (weight, x) in enumerate(zip(listed, like, strict=True)):
        if weight.shape != x.shape:
            raise AutogradError(
                f"{f'Entry {number} in ' if like_is_tuple else ''}v has invalid size: should be {list(x.shape)} but "
                f"got {list(weight.shape)}."
            )
    return listed


def _gradients(
    ys: Sequence[Tensor],
    xs: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    create_graph: bool,
    keep: bool | None = None,
) -> Sequence[Tensor | None]:
    """Σ weightᵀ · ∂y/∂x for each x; None where nothing depends on it."""
    used = [(y, weight) for y, weight in zip(ys, weights, strict=True) if y.requires_grad]
    if not used:
        return [None] * len(xs)
    return grad(
        [y for y, _ in used],
        list(xs),
        [weight for _, weight in used],
        retain_graph=keep or create_graph,
        create_graph=create_graph,
        allow_unused=True,
    )


def _filled(
    found: Sequence[Tensor | None], like: Sequence[Tensor], strict: bool, create_graph: bool, of: str, slope: str
) -> Many:
    """Gradients with zeros for those that are None; an error for them if `strict`, and for constants to differentiate.

    Args:
        found: the gradients.
        like: of their shapes.
        strict, create_graph: as given by the user.
        of: whose gradients they are, for messages.
        slope: what they are, for messages.
    """
    for number, g in enumerate(found):
        if strict and g is None:
            what = (
                f"The gradient with respect to the input is independent of entry {number} in the grad_outputs when "
                "using the double backward trick to compute forward mode gradients."
                if of == "gradient"
                else f"{of.capitalize() if of[-1].isdigit() else f'The {of}'} of the user-provided function is "
                f"independent of input {number}."
            )
            raise AutogradError(f"{what} This is not allowed in strict mode.")
        if strict and create_graph and g is not None and not g.requires_grad:
            raise AutogradError(
                f"The {slope} of the user-provided function is independent of input {number}. This is not allowed in "
                "strict mode when create_graph=True."
            )
    return tuple(Variable.wrap(np.zeros_like(x.data)) if g is None else g for x, g in zip(like, found, strict=True))


def _finished(tensors: Sequence[Tensor], create_graph: bool) -> Many:
    return tuple(tensors) if create_graph else tuple(x.detach() for x in tensors)


def _like(tensors: Many, is_tuple: bool) -> Some:
    return tensors if is_tuple else tensors[0]


def _only_reverse(vectorize: bool, strategy: str) -> None:
    if vectorize:
        raise UnsupportedError("vectorize=True is not supported: there is no vmap; leave it out")
    if strategy != "reverse-mode":
        raise UnsupportedError(f"strategy {strategy!r} is not supported: there is no forward mode; use 'reverse-mode'")
