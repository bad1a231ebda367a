"""Tensors that a module keeps: a Parameter is learnt, a Buffer is not."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import default_dtype
from chainrule.engine.errors import DTypeError
from chainrule.engine.tensor import Tensor


class Parameter(Tensor):
    """A leaf that requires a gradient; assigned to an attribute of a Module, it becomes one of its parameters.

    It shares the memory of `data`; without `data` it has no elements.
    """

    __slots__ = ()

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        data = _tensor("Parameter", data)
        self._set(data.data, data.counter, None)
        self.requires_grad = requires_grad

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class Buffer(Tensor):
    """A tensor that, assigned to an attribute of a Module, becomes one of its buffers.

    It shares the memory of `data`; without `data` it has no elements.

    Attributes:
        persistent: whether it is part of the module's state_dict.
    """

    persistent: bool = True

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        data = _tensor("Buffer", data)
        self._set(data.data, data.counter, None)
        self.requires_grad = data.requires_grad
        self.persistent = persistent


def _tensor(kind: str, data: Tensor | None) -> Tensor:
    if data is None:
        return Tensor.wrap(np.empty(0, default_dtype))
    if not isinstance(data, Tensor):
        raise DTypeError(f"{kind}() takes a Tensor, not {type(data).__name__}; convert it with tensor()")
    return data
