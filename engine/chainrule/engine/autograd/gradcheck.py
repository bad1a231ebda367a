"""Checks of gradients against central differences, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.engine.autograd.mode import enable_grad
from chainrule.engine.autograd.traversal import grad
from chainrule.engine.dtypes import Array
from chainrule.engine.errors import AutogradError
from chainrule.engine.tensor import Tensor

Function = Callable[..., Tensor | Sequence[Tensor]]


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
    """
    arguments = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [i for i, x in enumerate(arguments) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise AutogradError("gradcheck expects at least one input tensor to require gradient")
    with enable_grad():
        outputs = _floating_outputs(func(*arguments))
    if not any(y.requires_grad for y in outputs):
        raise AutogradError("gradcheck: no output of the function requires a gradient")
    for number, y in enumerate(outputs):
        for i in checked:
            analytic = _analytic(y, arguments[i])
            numeric = _numeric(func, arguments, i, number, eps)
            if not np.allclose(analytic, numeric, rtol=rtol, atol=atol, equal_nan=True):
                if not raise_exception:
                    return False
                raise GradcheckError(
                    f"Jacobian mismatch for output {number} with respect to input {i},\n"
                    f"numerical:\n{numeric}\nanalytical:\n{analytic}"
                )
    return True


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
    arguments = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [i for i, x in enumerate(arguments) if isinstance(x, Tensor) and x.requires_grad]
    with enable_grad():
        outputs = _floating_outputs(func(*arguments))
    if grad_outputs is None:
        draws = np.random.default_rng(0)
        weights = [Tensor(np.asarray(draws.standard_normal(y.shape)), requires_grad=True) for y in outputs]
    else:
        weights = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)

    def first_gradients(*args: Any) -> tuple[Tensor, ...]:
        xs, gs = args[: len(arguments)], args[len(arguments) :]
        ys = _floating_outputs(func(*xs))
        gradients = grad(ys, [xs[i] for i in checked], gs, create_graph=True, materialize_grads=True)
        return tuple(g for g in gradients if g is not None)

    return gradcheck(
        first_gradients, (*arguments, *weights), eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception
    )


def _analytic(y: Tensor, x: Tensor) -> Array:
    """dy/dx as a matrix (elements of y, elements of x), a backward pass for each row."""
    jacobian = np.zeros((y.numel(), x.numel()))
    if not y.requires_grad:
        return jacobian
    for row in range(y.numel()):
        weight = np.zeros(y.shape, y.dtype)
        weight.flat[row] = 1
        (g,) = grad(y, x, Tensor.wrap(weight), retain_graph=True, materialize_grads=True)
        assert g is not None
        jacobian[row] = g.data.ravel()
    return jacobian


def _numeric(func: Function, arguments: Sequence[Any], i: int, number: int, eps: float) -> Array:
    """dy/dx as a matrix (elements of y, elements of x), two forward passes for each column."""
    x: Tensor = arguments[i]

    def value(shift: float, element: int) -> Array:
        moved = x.data.copy()
        moved.flat[element] += shift
        replaced = [*arguments]
        replaced[i] = Tensor(moved, requires_grad=True)
        with enable_grad():  # the function may itself differentiate
            y = _floating_outputs(func(*replaced))[number]
        return np.array(y.data, np.float64).ravel()

    columns = [(value(eps, n) - value(-eps, n)) / (2 * eps) for n in range(x.numel())]
    return np.stack(columns, axis=1) if columns else np.zeros((_floating_outputs(func(*arguments))[number].numel(), 0))


def _floating_outputs(result: Tensor | Sequence[Tensor]) -> list[Tensor]:
    outputs = [result] if isinstance(result, Tensor) else list(result)
    return [y for y in outputs if y.is_floating_point()]
