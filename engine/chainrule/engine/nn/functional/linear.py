"""Products with a weight."""

from __future__ import annotations

from chainrule.engine.errors import ShapeError
from chainrule.engine.nn.functional.arguments import check_same_dtype
from chainrule.engine.ops import linalg
from chainrule.engine.tensor import Tensor


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x·wᵀ + b, for x (..., I), w (O, I) and b (O).

    Raises:
        ShapeError: the last dimension of x is not I.
    """
    if input.ndim == 0 or weight.ndim != 2 or input.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: input of shape {list(input.shape)} does not fit weight of shape {list(weight.shape)}; "
            f"the last dimension of the input has to be {weight.shape[-1]}"
        )
    check_same_dtype("linear", input, weight, bias)
    return linalg.linear(input, weight, bias)
