"""Checks of gradients against central differences, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from chainrule.engine.autograd.mode import enable_grad
from chainrule.engine.autograd.traversal import grad
from chainrule.engine.autograd.variable import Variable, is_tensor
from chainrule.engine.dtypes import Array
from chainrule.engine.errors import AutogradError

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

Function: TypeAlias = "Callable[..., Tensor | Sequence[Tensor]]"


class GradcheckError(AutogradError):
    """A gradient differs from the central difference."""


def gradcheck(
    func: Function,
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Whether the gradients of `func` agree with (f(x + ε) − f(x − ε)) / 2ε, element by element.

    Args:
        func: of the inputs, giving one tensor or several.
        inputs: those that require a gradient are checked; they should be float64.
        eps: ε.
        atol: the absolute difference allowed.
        rtol: the relative difference allowed.
        raise_exception: whether to raise instead of giving False.

    Raises:
        GradcheckError: they do not agree; the message names the input and shows both Jacobians.
        AutogradError: no input requires a gradient, or no output does.
    """
    arguments = _listed(inputs)
    if not any(y.requires_grad for y in _outputs(func, arguments)):
        raise AutogradError("gradcheck expects an input and an output that require gradients")
    return _agree(func, arguments, eps, atol, rtol, raise_exception)


def gradgradcheck(
    func: Function,
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Whether the gradients of the gradients of `func` agree with central differences; see `gradcheck`.

    `grad_outputs` weight the outputs of `func`; by default they are drawn, the same every time.
    """
    arguments = _listed(inputs)
    if grad_outputs is None:
        draws = np.random.default_rng(0)
        shapes = [y.shape for y in _outputs(func, arguments)]
        weights = [_leaf(np.asarray(draws.standard_normal(shape))) for shape in shapes]
    else:
        weights = _listed(grad_outputs)

    def gradients(*args: Any) -> tuple[Tensor, ...]:
        xs, gs = args[: len(arguments)], args[len(arguments) :]
        by = [x for x in xs if is_tensor(x) and x.requires_grad]
        found = grad(_outputs(func, xs), by, gs, create_graph=True, materialize_grads=True)
        return tuple(g for g in found if g is not None)

    return _agree(gradients, [*arguments, *weights], eps, atol, rtol, raise_exception)


def _agree(
    func: Function, arguments: Sequence[Any], eps: float, atol: float, rtol: float, raise_exception: bool
) -> bool:
    """Whether both Jacobians agree for each pair of an output and an input."""
    for number, y in enumerate(_outputs(func, arguments)):
        for position, x in enumerate(arguments):
            if not is_tensor(x) or not x.requires_grad:
                continue
            analytic, numeric = _analytic(y, x), _numeric(func, arguments, position, number, eps)
            if not np.allclose(analytic, numeric, rtol=rtol, atol=atol, equal_nan=True):
                if not raise_exception:
                    return False
                raise GradcheckError(
                    f"Jacobian mismatch for output {number} with respect to input {position},\n"
                    f"numerical:\n{numeric}\nanalytical:\n{analytic}"
                )
    if _is_linear(func, arguments):
        return True
    if raise_exception:
        raise GradcheckError("backward not multiplied by grad_output")
    return False


def _is_linear(func: Function, arguments: Sequence[Any]) -> bool:
    """Whether gradients of zero go to gradients of zero."""
    ys = [y for y in _outputs(func, arguments) if y.requires_grad]
    xs = [x for x in arguments if is_tensor(x) and x.requires_grad]
    zeros = [Variable.wrap(np.zeros_like(y.data)) for y in ys]
    return all(g is None or not g.data.any() for g in (grad(ys, xs, zeros, allow_unused=True) if ys else ()))


def _analytic(y: Tensor, x: Tensor) -> Array:
    """dy/dx as a matrix (elements of y, elements of x): a backward pass for each row."""
    jacobian = np.zeros((y.numel(), x.numel()))
    if y.requires_grad:
        for row in range(y.numel()):
            weight = np.zeros(y.shape, y.dtype)
            weight.flat[row] = 1
            (g,) = grad(y, x, Variable.wrap(weight), retain_graph=True, materialize_grads=True)
            assert g is not None
            jacobian[row] = g.data.ravel()
    return jacobian


def _numeric(func: Function, arguments: Sequence[Any], position: int, number: int, eps: float) -> Array:
    """dy/dx as a matrix (elements of y, elements of x): two forward passes for each column."""
    x: Tensor = arguments[position]

    def value(element: int, shift: float) -> Array:
        moved = x.data.copy()
        moved.flat[element] += shift
        replaced = [*arguments]
        replaced[position] = _leaf(moved)
        return np.array(_outputs(func, replaced)[number].data, np.float64).ravel()

    columns = [(value(n, eps) - value(n, -eps)) / (2 * eps) for n in range(x.numel())]
    return np.stack(columns, axis=1) if columns else np.zeros((_outputs(func, arguments)[number].numel(), 0))


def _outputs(func: Function, arguments: Sequence[Any]) -> list[Tensor]:
    """The floating outputs of `func`, recorded whatever the mode."""
    with enable_grad():
        result = func(*arguments)
    return [y for y in _listed(result) if y.is_floating_point()]


def _listed(tensors: Tensor | Sequence[Any]) -> list[Any]:
    return [tensors] if is_tensor(tensors) else list(tensors)


def _leaf(array: Array) -> Tensor:
    leaf = Variable.wrap(array)
    leaf.requires_grad = True
    return leaf
