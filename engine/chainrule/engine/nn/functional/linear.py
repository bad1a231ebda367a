"""Products with a weight."""

from __future__ import annotations

import math

from chainrule.engine.errors import ShapeError
from chainrule.engine.functions import linalg as products
from chainrule.engine.functions import reduction
from chainrule.engine.functions.autocast import active, lowered
from chainrule.engine.nn.functional.arguments import check_same_dtype
from chainrule.engine.ops import linalg
from chainrule.engine.tensor import Tensor

__all__ = ["bilinear", "linear"]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x·wᵀ + b, for x (..., I), w (O, I) and b (O), or for w (I) and y (...).

    Raises:
        ShapeError: the last dimension of x is not I, or b does not fit.
        DTypeError: the dtypes differ.
    """
    if active:
        input, weight, bias = lowered(input, weight, bias)
    x, w = input.data, weight.data
    fits = x.ndim and w.ndim == 2 and x.shape[-1] == w.shape[1] > 0 and x.dtype == w.dtype
    if fits and (bias is None or (bias.data.shape == w.shape[:1] and bias.data.dtype == x.dtype)):
        return linalg.linear(input, weight, bias)
    return _linear_of_others(input, weight, bias)


def _linear_of_others(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same of shapes that are seldom; others are refused."""
    if not input.ndim or not weight.ndim:
        raise ShapeError(
            f"both arguments to linear need to be at least 1D, but they are {input.ndim}D and {weight.ndim}D"
        )
    if weight.ndim > 2 or input.shape[-1] != weight.shape[-1]:
        rows = input.numel() // max(input.shape[-1], 1)
        raise ShapeError(
            f"mat1 and mat2 shapes cannot be multiplied ({rows}x{input.shape[-1]} and "
            f"{'x'.join(map(str, weight.shape[::-1]))}): the last dimension of the input has to be {weight.shape[-1]}"
        )
    check_same_dtype("linear", input, weight, bias)
    if weight.ndim == 1:
        y = products.matmul(input, weight)
        return y if bias is None else y + bias
    if bias is not None and bias.shape not in ((), (1,), weight.shape[:1]):
        raise ShapeError(
            f"The expanded size of the tensor ({weight.shape[0]}) must match the existing size ({bias.shape[-1]}) at "
            f"the last dimension: linear gives {weight.shape[0]} features, bias has shape {list(bias.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        bias = bias.expand(weight.shape[0])
    if not weight.shape[1]:  # sums of nothing
        y = products.matmul(input, weight.T)
        return y if bias is None else y + bias
    return linalg.linear(input, weight, bias)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """yₒ = x₁ᵀ·Wₒ·x₂ + bₒ, for x₁ (..., I), x₂ (..., J), W (O, I, J), b (O) and y (..., O).

    Raises:
        ShapeError: the shapes do not fit.
        DTypeError: the dtypes differ.
    """
    if input1.ndim != input2.ndim:
        raise ShapeError(f"bilinear(): input dimensions do not match: got {input1.ndim} and {input2.ndim}")
    for axis, (a, b) in enumerate(zip(input1.shape[:-1], input2.shape[:-1], strict=True)):
        if a != b:
            raise ShapeError(f"bilinear(): input batch dimensions do not match at dim {axis}: got {a} and {b}")
    out, in1, in2 = weight.shape
    for name, x, size in (("input1", input1, in1), ("input2", input2, in2)):
        if x.shape[-1] != size:
            raise ShapeError(
                f"bilinear(): {name} size does not match weight size: got {x.shape[-1]} but expected {size}"
            )
    check_same_dtype("bilinear", input1, weight, bias)
    check_same_dtype("bilinear", input2, weight, bias)
    columns = weight.permute(1, 0, 2).reshape(in1, out * in2)
    rows = input1.reshape(math.prod(input1.shape[:-1]), in1)
    halfway = linalg.mm(rows, columns).reshape(*input1.shape[:-1], out, in2)  # no `matmul`, which autocast lowers
    y = reduction.sum(halfway * input2.unsqueeze(-2), -1, dtype=input1.dtype)
    return y if bias is None else y + bias
