"""What the layers' functions do with their arguments before they compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.engine.errors import ConfigError, DTypeError, ShapeError
from chainrule.engine.kernels.geometry import Pair, output_size
from chainrule.engine.tensor import Tensor

IntOrPair = int | Sequence[int]


def pair(name: str, value: IntOrPair, *, minimum: int) -> Pair:
    """(n, n) of n, and a pair of itself.

    Raises:
        ConfigError: another length, or a number below the minimum.
    """
    numbers: tuple[Any, ...] = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(numbers) != 2 or not all(isinstance(n, int | np.integer) and n >= minimum for n in numbers):
        raise ConfigError(name, value, f"expected an integer of at least {minimum}, or a pair of them")
    return int(numbers[0]), int(numbers[1])


def check_window(name: str, shape: Sequence[int], window: Pair, stride: Pair, padding: Pair, dilation: Pair) -> None:
    sizes = [output_size(shape[2 + i], window[i], stride[i], padding[i], dilation[i]) for i in (0, 1)]
    if min(sizes) < 1:
        raise ShapeError(
            f"{name}: kernel size {window} with dilation {dilation} can't be greater than the input "
            f"{tuple(shape[2:])} with padding {padding}"
        )


def check_same_dtype(name: str, input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    for what, other in (("weight", weight), ("bias", bias)):
        if other is not None and other.dtype != input.dtype:
            raise DTypeError(
                f"{name}: input is {input.dtype} and {what} {other.dtype}; convert one of them with .to(dtype)"
            )
