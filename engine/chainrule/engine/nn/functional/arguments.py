"""What the layers' functions do with their arguments before they compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.engine.errors import DTypeError
from chainrule.engine.nn.functional.checks import SettingError
from chainrule.engine.tensor import Tensor

Ints = int | Sequence[int]


def ints(name: str, field: str, value: Ints, count: int, message: str) -> tuple[int, ...]:
    """`count` integers: one of them for all, or as many as that.

    Args:
        name: of the function.
        field: of the argument.
        message: what to say of another number of them.

    Raises:
        DTypeError: no integers.
        SettingError: another number of them.
    """
    numbers: tuple[Any, ...] = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    for n in numbers:
        if not isinstance(n, int | np.integer):
            raise DTypeError(f"{name}(): argument '{field}' must be tuple of ints, not {type(n).__name__}")
    if len(numbers) == 1:
        numbers = numbers * count
    if len(numbers) != count:
        raise SettingError(field, value, message)
    return tuple(int(n) for n in numbers)


def repeated(value: Ints, count: int) -> tuple[int, ...]:
    """A sequence as a tuple, and a number `count` times, unchecked: as layers keep their settings."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * count


def check_same_dtype(name: str, input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    for what, other in (("weight", weight), ("bias", bias)):
        if other is not None and other.dtype != input.dtype:
            raise DTypeError(
                f"{name}: input is {input.dtype} and {what} {other.dtype}; convert one of them with .to(dtype)"
            )
