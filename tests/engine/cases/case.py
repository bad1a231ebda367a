"""What a row of the table of operations is: how to call it, on what.

Calls are written once for chainrule and PyTorch: `m` is either module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array

Make = Callable[[np.random.Generator], Array]


@dataclass(frozen=True)
class Case:
    """An operation called on inputs of given shapes."""

    op: str
    call: Callable[..., Any]
    inputs: tuple[Callable[[np.random.Generator], Array], ...]
    torch: bool = True
    note: str = ""

    @property
    def id(self) -> str:
        return f"{self.op}-{self.note}" if self.note else self.op

    def arrays(self, dtype: str = "float64") -> list[Array]:
        draws = np.random.default_rng(7)
        return [
            array if array.dtype.kind != "f" else array.astype(dtype) for array in (make(draws) for make in self.inputs)
        ]


# ---- Inputs ----


def normal(*size: int) -> Callable[[np.random.Generator], Array]:
    return lambda draws: np.asarray(draws.standard_normal(size))


def positive(*size: int) -> Callable[[np.random.Generator], Array]:
    return lambda draws: np.asarray(draws.uniform(0.5, 2.0, size))


def away_from_zero(*size: int) -> Callable[[np.random.Generator], Array]:
    return lambda draws: np.asarray(draws.uniform(0.2, 2.0, size) * draws.choice([-1, 1], size))


def apart(*size: int) -> Callable[[np.random.Generator], Array]:
    """Numbers that no small step can bring out of their order."""
    return lambda draws: draws.permutation(np.arange(float(np.prod(size)))).reshape(size) / 10


def transposed(*size: int) -> Callable[[np.random.Generator], Array]:
    """Not contiguous in memory."""
    return lambda draws: np.asarray(draws.standard_normal(size[::-1])).T


def channels_last(*size: int) -> Callable[[np.random.Generator], Array]:
    n, c, h, w = size
    return lambda draws: np.asarray(draws.standard_normal((n, h, w, c))).transpose(0, 3, 1, 2)


def truth(*size: int) -> Callable[[np.random.Generator], Array]:
    return lambda draws: draws.integers(0, 2, size).astype(bool)


def whole(*size: int) -> Callable[[np.random.Generator], Array]:
    """Integers from −4 to 4."""
    return lambda draws: draws.integers(-4, 5, size)


def given(values: Any) -> Callable[[np.random.Generator], Array]:
    """The same numbers always."""
    return lambda draws: np.array(values)
