"""How the gradients that leave and enter a module on the way back are shown to its hooks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.autograd.function import Function
from chainrule.engine.autograd.mode import is_grad_enabled
from chainrule.engine.errors import AutogradError
from chainrule.engine.tensor import Tensor

if TYPE_CHECKING:
    from chainrule.engine.nn.module import Module

Gradients = tuple[Tensor | None, ...]
Watcher = Callable[[Gradients], Sequence[Tensor | None]]


class BackwardHookFunction(Function):
    """The identity of some tensors; their gradients become what a watcher makes of them."""

    @staticmethod
    def forward(ctx: Any, watcher: Watcher, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.watcher = watcher
        ctx.set_materialize_grads(False)
        same = tuple(Tensor.wrap(x.data, counter=x.counter) for x in tensors)
        ctx.mark_non_differentiable(*[y for x, y in zip(tensors, same, strict=True) if not x.requires_grad])
        return same

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *ctx.watcher(gradients)


class Crossing:
    """One call of a module: the way back enters it at the outputs and leaves it at the inputs.

    Args:
        before: hooks that are given the gradients of the outputs, and may replace them.
        after: hooks that are given those of inputs and outputs, and may replace those of the inputs.
    """

    def __init__(
        self, module: Module, before: Sequence[Callable[..., Any]], after: Sequence[Callable[..., Any]]
    ) -> None:
        self.module = module
        self.before = before
        self.after = after
        self.of_outputs: Gradients | None = None
        self.num_inputs = 0
        self.watches_inputs = False

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, watched."""
        self.num_inputs = len(args)
        shapes = {place: (x.shape, x.dtype) for place, x in enumerate(args) if isinstance(x, Tensor)}

        def leave(gradients: Gradients) -> Gradients:
            zeros = {place: Tensor.wrap(np.zeros(*described)) for place, described in shapes.items()}
            return self._leave(tuple(zeros.get(p) if g is None else g for p, g in enumerate(gradients)))

        watched: tuple[Any, ...] = _watched(args, leave)
        self.watches_inputs = watched is not args
        return watched

    def outputs(self, result: Any) -> Any:
        """What the forward computed, watched."""
        if isinstance(result, Tensor):
            return _watched((result,), self._enter)[0]
        if isinstance(result, tuple):
            return _watched(result, self._enter)
        warnings.warn(
            "For backward hooks to be called, module output should be a Tensor or a tuple of Tensors but received "
            f"{type(result)}",
            stacklevel=2,
        )
        return result

    def _enter(self, gradients: Gradients) -> Gradients:
        for hook in self.before:
            replaced = hook(self.module, gradients)
            if replaced is not None:
                gradients = _checked(replaced, gradients, "Backward pre hook", "grad_output")
        self.of_outputs = gradients
        if not self.watches_inputs:
            self._call_without_inputs(gradients)
        return gradients

    def _leave(self, gradients: Gradients) -> Gradients:
        if self.of_outputs is None:  # nothing that the module computed was used
            return gradients
        for hook in self.after:
            replaced = hook(self.module, gradients, self.of_outputs)
            if replaced is not None:
                gradients = _checked(replaced, gradients, "Backward hook", "grad_input")
        self.of_outputs = None
        return gradients

    def _call_without_inputs(self, gradients: Gradients) -> None:
        warnings.warn(
            "Full backward hook is firing when gradients are computed with respect to module outputs since no inputs "
            "require gradients.",
            stacklevel=2,
        )
        for hook in self.after:
            replaced = hook(self.module, (None,) * self.num_inputs, gradients)
            if replaced is not None and not (isinstance(replaced, tuple) and all(g is None for g in replaced)):
                raise AutogradError(
                    "Backward hook for Modules where no input requires gradient should always return None or None for "
                    "all gradients."
                )
        self.of_outputs = None


def _watched(values: tuple[Any, ...], watcher: Callable[[Gradients], Gradients]) -> Any:
    """The values with their tensors watched: the watcher has a gradient for each value, None where it is no tensor."""
    places = [place for place, value in enumerate(values) if isinstance(value, Tensor)]
    if not is_grad_enabled() or not any(values[place].requires_grad for place in places):
        return values

    def watch(gradients: Gradients) -> list[Tensor | None]:
        spread: list[Tensor | None] = [None] * len(values)
        for place, gradient in zip(places, gradients, strict=True):
            spread[place] = gradient
        left = watcher(tuple(spread))
        return [left[place] for place in places]

    made = list(values)
    tensors = BackwardHookFunction.apply(watch, *[values[place] for place in places])
    for place, tensor in zip(places, tensors, strict=True):
        made[place] = tensor
    return tuple(made) if type(values) is tuple else type(values)(*made)


def _checked(replaced: Any, before: Gradients, hook: str, name: str) -> Gradients:
    listed = replaced if isinstance(replaced, tuple) else (replaced,)
    if len(listed) != len(before):
        raise AutogradError(
            f"{hook} returned an invalid number of {name}, got {len(listed)}, but expected {len(before)}"
        )
    return listed
