"""Upper bounds of the elements of results, for `bounded`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from chainrule.engine.dtypes import Array
from chainrule.engine.errors import ShapeError
from chainrule.engine.functions.shapes import broadcast_shapes
from chainrule.engine.tensor import Tensor


def integers(numbers: Array) -> list[int]:
    """Axes, lengths or positions that the graph has computed, as Python's integers.

    Raises:
        ShapeError: they are of a dtype that is not of integers.
    """
    if numbers.dtype.kind not in "iu":
        raise ShapeError(f"axes, lengths and positions are integers, not {numbers.dtype}")
    found: list[int] = numbers.reshape(-1).tolist()
    return found


def integer(numbers: Array) -> int:
    """The first of them. Raises ShapeError: there is none, or none of integers."""
    found = integers(numbers)
    if not found:
        raise ShapeError("a number is expected where there is none")
    return found[0]


def lengths(numbers: Array) -> tuple[int, ...]:
    """A shape that the graph has computed.

    Raises:
        ShapeError: a length is negative or no integer.
    """
    shape = tuple(integers(numbers))
    if any(n < 0 for n in shape):
        raise ShapeError(f"a shape of {list(shape)}")
    return shape


def product(shape: Iterable[int]) -> int:
    """The elements of a shape, however many."""
    return math.prod(shape)


def of_matmul(a: Tensor, b: Tensor) -> int:
    """The elements of a product of matrices."""
    rows = a.shape[-2] if a.ndim > 1 else 1
    columns = b.shape[-1] if b.ndim > 1 else 1
    return product(broadcast_shapes(a.shape[:-2], b.shape[:-2])) * rows * columns


def of_einsum(equation: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """The elements of the largest product on the way, operands being multiplied from left to right."""
    left, _, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    sizes: dict[str, int] = {}
    around = 1
    for term, shape in zip(terms, shapes, strict=False):
        head, dots, tail = term.partition("...")
        inner = len(shape) - len(head) - len(tail) if dots else 0
        around *= product(max(n, 1) for n in shape[len(head) : len(head) + inner])
        for letter, n in zip(head + tail, (*shape[: len(head)], *shape[len(head) + inner :]), strict=False):
            sizes[letter] = max(sizes.get(letter, 1), n)
    largest, open_labels = 1, set()
    for i, term in enumerate(terms):
        open_labels |= set(term) - {"."}
        wanted = set(right).union(*terms[i + 1 :]) if right else set(left)
        open_labels &= wanted
        largest = max(largest, product(sizes.get(letter, 1) for letter in open_labels))
    return largest * around
