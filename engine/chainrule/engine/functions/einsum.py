"""Sums of products by Einstein's convention, brought down to products of matrices."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.errors import DTypeError, ShapeError
from chainrule.engine.functions.arranging import diagonal
from chainrule.engine.functions.autocast import active, lowered
from chainrule.engine.functions.linalg import mm
from chainrule.engine.functions.reduction import sum as total
from chainrule.engine.functions.shapes import movedim, permute, reshape, unsqueeze
from chainrule.engine.ops import elementwise, linalg

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = ["einsum"]

_letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
Label = str | int
"""A letter, or -n for the n-th last dimension that an ellipsis stands for."""


def einsum(equation: Any, *operands: Any) -> Tensor:
    """The products of elements whose dimensions are named alike, summed over the names that the output lacks.

    einsum("bij,bjk->bik", a, b) is a batch of matrix products, einsum("ii", a) a trace, einsum("i,j->ij", a, b) an
    outer product; `...` stands for any dimensions more, which broadcast. Operands are multiplied from left to right.

    Args:
        equation: the names of the dimensions of each operand and, behind `->`, of the output: by default those that
            occur once, sorted. Or the operands, each followed by a list of numbers from 0 to 51 for its names.
        operands: the tensors, or one list of them.

    Raises:
        ShapeError: the equation is not well-formed, or does not fit the shapes.
    """
    if not isinstance(equation, str):
        equation, operands = _from_lists([equation, *operands])
    tensors: list[Tensor] = list(
        operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    )
    for x in tensors:
        if not isinstance(x, Variable):
            raise DTypeError(f"einsum(): operands must be Tensors, not {type(x).__name__}")
    if not tensors:
        raise ShapeError("einsum(): must provide at least one operand")
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors):
        which = "fewer" if len(tensors) < len(terms) else "more"
        raise ShapeError(f"einsum(): {which} operands were provided than specified in the equation")
    labels = [_labels(equation, term, x.data.ndim, i) for i, (term, x) in enumerate(zip(terms, tensors, strict=True))]
    output = _output(equation, right, labels) if arrow else _implied_output(labels)
    parts = [_with_each_label_once(x, names, i) for i, (x, names) in enumerate(zip(tensors, labels, strict=True))]
    _check_sizes(parts)
    x, names = parts[0]
    for position in range(1, len(parts)):
        later = {name for _, others in parts[position + 1 :] for name in others}
        x, names = _multiplied(x, names, *parts[position], kept=later.union(output))
    x, names = _summed(x, names, set(output))
    return permute(x, [names.index(name) for name in output])


# ---- The equation ----


def _from_lists(arguments: list[Any]) -> tuple[str, tuple[Any, ...]]:
    """The equation of operands that are each followed by their names as numbers."""
    if len(arguments) < 2 or not isinstance(arguments[0], Variable):
        raise DTypeError(f"einsum(): argument 'equation' (position 1) must be str, not {type(arguments[0]).__name__}")
    operands, terms = arguments[0 : len(arguments) // 2 * 2 : 2], arguments[1::2]
    spelled = [_spelled(term) for term in terms]
    equation = ",".join(spelled)
    if len(arguments) % 2:
        equation += "->" + _spelled(arguments[-1])
    return equation, tuple(operands)


def _spelled(names: Sequence[Any]) -> str:
    if not isinstance(names, Sequence):
        raise DTypeError(f"einsum(): expected a list of ints after each operand, not {type(names).__name__}")
    for name in names:
        if name is not ... and not 0 <= name < len(_letters):
            raise ShapeError(f"einsum(): subscript {name} is not within the valid range [0, 52)")
    return "".join("..." if name is ... else _letters[name] for name in names)


def _labels(equation: str, term: str, ndim: int, operand: int) -> list[Label]:
    """A name for each dimension of an operand."""
    head, dots, tail = term.partition("...")
    for part in (head, tail):
        if "." in part:
            raise ShapeError(f"einsum(): found '.' for operand {operand} that is not part of any ellipsis")
        _check_letters(equation, part)
    count = len(head) + len(tail)
    if count > ndim or (count < ndim and not dots):
        if dots:
            raise ShapeError(
                f"einsum(): the number of subscripts in the equation ({count}) is more than the number of dimensions "
                f"({ndim}) for operand {operand}"
            )
        raise ShapeError(
            f"einsum(): the number of subscripts in the equation ({count}) does not match the number of dimensions "
            f"({ndim}) for operand {operand} and no ellipsis was given"
        )
    return [*head, *range(count - ndim, 0), *tail]


def _check_letters(equation: str, part: str) -> None:
    for letter in part:
        if letter not in _letters:
            raise ShapeError(
                f"einsum(): invalid subscript given at index {equation.index(letter)} in the equation string, "
                "subscripts must be in [a-zA-Z]"
            )


def _output(equation: str, right: str, labels: list[list[Label]]) -> list[Label]:
    head, dots, tail = right.partition("...")
    if "." in head + tail:
        raise ShapeError("einsum(): found '.' for output but an ellipsis (...) was already found")
    _check_letters(equation, head + tail)
    known = {name for names in labels for name in names}
    for letter in head + tail:
        if (head + tail).count(letter) > 1:
            raise ShapeError(f"einsum(): output subscript {letter} appears more than once in the output")
        if letter not in known:
            raise ShapeError(
                f"einsum(): output subscript {letter} does not appear in the equation for any input operand"
            )
    return [*head, *(_ellipsis(labels) if dots else ()), *tail]


def _implied_output(labels: list[list[Label]]) -> list[Label]:
    counts = Counter(name for names in labels for name in names)
    return [*_ellipsis(labels), *sorted(name for name, n in counts.items() if n == 1 and isinstance(name, str))]


def _ellipsis(labels: list[list[Label]]) -> list[Label]:
    """The dimensions that the longest ellipsis stands for."""
    return sorted({name for names in labels for name in names if isinstance(name, int)})


# ---- The operands ----


def _with_each_label_once(x: Tensor, names: list[Label], operand: int) -> tuple[Tensor, list[Label]]:
    """An operand with the diagonal of dimensions that are named alike."""
    names = list(names)
    for name in dict.fromkeys(names):
        while names.count(name) > 1:
            first = names.index(name)
            second = names.index(name, first + 1)
            n, m = x.data.shape[first], x.data.shape[second]
            if n != m:
                raise ShapeError(
                    f"einsum(): subscript {name} is repeated for operand {operand} but the sizes don't match, "
                    f"{m} != {n}"
                )
            x = movedim(diagonal(x, 0, first, second), -1, first)
            del names[second]
    return x, names


def _check_sizes(parts: list[tuple[Tensor, list[Label]]]) -> None:
    seen: dict[Label, int] = {}
    for operand, (x, names) in enumerate(parts):
        for name, n in zip(names, x.data.shape, strict=True):
            if n != 1 and seen.setdefault(name, n) != n:
                raise ShapeError(
                    f"einsum(): subscript {name} has size {n} for operand {operand} which does not broadcast with "
                    f"previously seen size {seen[name]}"
                )


def _summed(x: Tensor, names: list[Label], kept: set[Label]) -> tuple[Tensor, list[Label]]:
    """Summed over the names that are not kept."""
    axes = tuple(axis for axis, name in enumerate(names) if name not in kept)
    if not axes:
        return x, names
    return total(x, axes), [name for name in names if name in kept]


def _multiplied(
    a: Tensor, a_names: list[Label], b: Tensor, b_names: list[Label], *, kept: set[Label]
) -> tuple[Tensor, list[Label]]:
    """The product of two operands, summed over the names they alone have and that are not kept."""
    a, a_names = _summed(a, a_names, kept.union(b_names))
    b, b_names = _summed(b, b_names, kept.union(a_names))
    a, a_names = _without_broadcast(a, a_names, b, b_names)
    b, b_names = _without_broadcast(b, b_names, a, a_names)
    batch = [name for name in a_names if name in b_names and name in kept]
    inner = [name for name in a_names if name in b_names and name not in kept]
    rows = [name for name in a_names if name not in b_names]
    columns = [name for name in b_names if name not in a_names]
    sizes = dict(zip(a_names, a.data.shape, strict=True)) | dict(zip(b_names, b.data.shape, strict=True))
    names = batch + rows + columns
    if not inner:  # nothing to sum: elementwise
        left = permute(a, [a_names.index(name) for name in batch + rows])
        right = permute(b, [b_names.index(name) for name in batch + columns])
        for _ in columns:
            left = unsqueeze(left, -1)
        for _ in rows:
            right = unsqueeze(right, len(batch))
        return elementwise.mul(left, right), names

    def size(part: list[Label]) -> int:
        return math.prod(sizes[name] for name in part)

    left = permute(a, [a_names.index(name) for name in batch + rows + inner])
    right = permute(b, [b_names.index(name) for name in batch + inner + columns])
    if batch:
        left = reshape(left, size(batch), size(rows), size(inner))
        right = reshape(right, size(batch), size(inner), size(columns))
        if active:
            left, right = lowered(left, right)
        if left.dtype != right.dtype:
            raise DTypeError(f"expected scalar type {left.dtype} but found {right.dtype}")
        product = linalg.bmm(left, right)
    else:
        product = mm(reshape(left, size(rows), size(inner)), reshape(right, size(inner), size(columns)))
    return reshape(product, [sizes[name] for name in names]), names


def _without_broadcast(
    x: Tensor, names: list[Label], other: Tensor, other_names: list[Label]
) -> tuple[Tensor, list[Label]]:
    """Without the dimensions of length one that the other operand has longer."""
    sizes = dict(zip(other_names, other.data.shape, strict=True))
    axes = [i for i, name in enumerate(names) if x.data.shape[i] == 1 and sizes.get(name, 1) != 1]
    if not axes:
        return x, names
    shape = [n for i, n in enumerate(x.data.shape) if i not in axes]
    return reshape(x, shape), [name for i, name in enumerate(names) if i not in axes]
