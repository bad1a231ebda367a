"""Products of matrices and vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chainrule.engine.errors import DTypeError, ShapeError
from chainrule.engine.functions.arguments import as_operand
from chainrule.engine.ops import linalg
from chainrule.engine.ops.shape import squeeze, unsqueeze

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = ["matmul"]


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """input @ other by the dimensions: vectors, matrices, or batches of matrices that broadcast.

    Raises:
        ShapeError: an operand is 0-d, or the inner dimensions differ.
        DTypeError: the dtypes differ.
    """
    a, b = as_operand(input), as_operand(other)
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError(f"both arguments to matmul need to be at least 1D, but they are {a.ndim}D and {b.ndim}D")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ShapeError(
            f"mat1 and mat2 shapes cannot be multiplied ({_by(a.shape)} and {_by(b.shape)}): "
            f"{a.shape[-1]} columns meet {b.shape[-2 if b.ndim > 1 else 0]} rows"
        )
    if a.dtype != b.dtype:
        raise DTypeError(f"matmul: expected both to have the same dtype, but they are {a.dtype} and {b.dtype}")
    match a.ndim, b.ndim:
        case 1, 1:
            return linalg.dot(a, b)
        case 2, 1:
            return linalg.mv(a, b)
        case 2, 2:
            return linalg.mm(a, b)
        case 1, _:
            product = matmul(unsqueeze(a, shape=(1, *a.shape)), b)
            return squeeze(product, shape=product.shape[:-2] + product.shape[-1:])
        case _, 1:
            product = linalg.bmm(a, unsqueeze(b, shape=(*b.shape, 1)))
            return squeeze(product, shape=product.shape[:-1])
        case _:
            return linalg.bmm(a, b)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
