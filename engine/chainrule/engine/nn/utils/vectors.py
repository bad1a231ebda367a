"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from chainrule.engine.autograd.mode import no_grad
from chainrule.engine.errors import DTypeError, ShapeError
from chainrule.engine.functions.joining import cat
from chainrule.engine.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The elements of all parameters, row by row, one parameter after another; gradients flow through."""
    return cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Writes the elements of `vec` (n,) into parameters that have n elements together; no gradient flows through.

    Raises:
        DTypeError: `vec` is no Tensor.
        ShapeError: the parameters do not have n elements together; nothing is written then.
    """
    if not isinstance(vec, Tensor):
        raise DTypeError(f"expected Tensor, but got: {type(vec).__name__}")
    listed = list(parameters)
    total = sum(parameter.numel() for parameter in listed)
    if vec.numel() != total:
        raise ShapeError(f"the vector has {vec.numel()} elements, the parameters {total}; they need as many")
    start = 0
    with no_grad():
        for parameter in listed:
            stop = start + parameter.numel()
            parameter.copy_(vec[start:stop].reshape(*parameter.shape))
            start = stop
