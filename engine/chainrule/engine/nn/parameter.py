"""A tensor that a module learns."""

from __future__ import annotations

from chainrule.engine.tensor import Tensor


class Parameter(Tensor):
    """A leaf that requires a gradient; assigned to an attribute of a Module, it becomes one of its parameters."""

    __slots__ = ()

    def __init__(self, data: Tensor, requires_grad: bool = True) -> None:
        self._set(data.data, data.counter, None)
        self.requires_grad = requires_grad

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()
