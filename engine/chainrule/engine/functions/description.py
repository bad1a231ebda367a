"""Functions that say what a tensor is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chainrule.engine.autograd.variable import is_tensor
from chainrule.engine.dtypes import is_floating
from chainrule.engine.functions.arguments import require_tensor

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = ["is_complex", "is_floating_point", "is_tensor", "numel"]


def is_complex(input: Tensor) -> bool:
    """False: there are no tensors of complex numbers."""
    require_tensor("is_complex", input)
    return False


def is_floating_point(input: Tensor) -> bool:
    """Whether its elements are floating-point numbers."""
    require_tensor("is_floating_point", input)
    return is_floating(input.data.dtype)


def numel(input: Tensor) -> int:
    """The number of elements."""
    require_tensor("numel", input)
    return input.data.size
