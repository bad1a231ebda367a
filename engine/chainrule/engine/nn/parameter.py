"""Tensors that a module keeps: a Parameter is learnt, a Buffer is not."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, default_dtype
from chainrule.engine.errors import DTypeError
from chainrule.engine.tensor import Tensor


class Parameter(Tensor):
    """A leaf that requires a gradient; assigned to an attribute of a Module, it becomes one of its parameters.

    It shares the memory of `data`; without `data` it has no elements. `parameter.data` is the array; what is assigned
    to it may also be a tensor, whose memory the parameter shares from then on.
    """

    __slots__ = ()

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        data = _tensor("Parameter", data)
        self._set(data.data, data.counter, None)
        self.requires_grad = requires_grad

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "data":
            value = _array(value)
        super().__setattr__(name, value)

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


def _array(data: object) -> Array:
    if isinstance(data, Variable):
        return data.data
    if isinstance(data, np.ndarray):
        return data
    raise DTypeError(
        f"Parameter.data is assigned a Tensor or an array, not {type(data).__name__}; convert it with tensor()"
    )


def _tensor(kind: str, data: Tensor | None) -> Tensor:
    if data is None:
        return Tensor.wrap(np.empty(0, default_dtype))
    if not isinstance(data, Tensor):
        raise DTypeError(f"{kind}() takes a Tensor, not {type(data).__name__}; convert it with tensor()")
    return data
