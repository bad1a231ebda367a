"""Functions that choose elements: indices, gathering, and writing to what an index names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chainrule.engine.functions.arguments import axis_of, index_of
from chainrule.engine.ops import shape as shaping

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = ["gather"]


def getitem(input: Tensor, index: Any) -> Tensor:
    """input[index]"""
    return shaping.getitem(input, index_of(index))


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """out[i][j] = input[index[i][j]][j], for dim = 0."""
    return shaping.gather(input, dim=axis_of(input, dim), index=index.data)
