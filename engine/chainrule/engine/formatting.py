"""How a tensor prints: as PyTorch prints it, number for number.

Source: torch/_tensor_str.py, with its default options.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array, bool_, default_dtype, int64

_precision = 4
_threshold = 1000
_edge_items = 3
_line_width = 80


def format_tensor(array: Array, suffixes: Sequence[str] = ()) -> str:
    """`tensor([36., 81.])`, with the dtype where it is not the usual one, and then the suffixes."""
    prefix = "tensor("
    suffixes = list(suffixes)
    if array.dtype not in (default_dtype, int64, bool_) or (array.size == 0 and array.dtype != default_dtype):
        suffixes.insert(0, f"dtype={array.dtype}")
    if array.size == 0:
        body = "[]"
        if array.ndim != 1:
            suffixes.insert(0, f"size={array.shape}")
    else:
        summarize = array.size > _threshold
        formatter = _formatter(_corners(array) if summarize else array)
        body = _nested(array, len(prefix), summarize, formatter)
    return _with_suffixes(prefix + body, suffixes, len(prefix))


def _formatter(array: Array) -> Callable[[Any], str]:
    """How to write one element, so that all have one width."""
    if array.dtype.kind != "f":
        width = max(len(str(value)) for value in array.ravel().tolist())
        return lambda value: str(value).rjust(width)
    # float64 of the value is what PyTorch formats
    values = array[np.isfinite(array) & (array != 0)].astype(np.float64)
    if values.size == 0:
        return lambda value: _integral(value)
    low, high = float(np.abs(values).min()), float(np.abs(values).max())
    integral = bool((values == np.ceil(values)).all())
    if high / low > 1000 or high > 1e8 or (low < 1e-4 and not integral):
        width = max(len(f"{value:.{_precision}e}") for value in values.tolist())
        return lambda value: f"{value:{width}.{_precision}e}"
    if integral:
        width = max(len(f"{value:.0f}") + 1 for value in values.tolist())
        return lambda value: _integral(value).rjust(width)
    width = max(len(f"{value:.{_precision}f}") for value in values.tolist())
    return lambda value: f"{value:.{_precision}f}".rjust(width)


def _integral(value: float) -> str:
    return f"{value:.0f}." if math.isfinite(value) else f"{value:.0f}"


def _nested(array: Array, indent: int, summarize: bool, formatter: Callable[[Any], str]) -> str:
    if array.ndim == 0:
        return formatter(array.item())
    shortened = summarize and len(array) > 2 * _edge_items
    if array.ndim == 1:
        return _vector(array, indent, shortened, formatter)
    if shortened:
        head = [_nested(part, indent + 1, summarize, formatter) for part in array[:_edge_items]]
        tail = [_nested(part, indent + 1, summarize, formatter) for part in array[-_edge_items:]]
        parts = [*head, "...", *tail]
    else:
        parts = [_nested(part, indent + 1, summarize, formatter) for part in array]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def _vector(array: Array, indent: int, shortened: bool, formatter: Callable[[Any], str]) -> str:
    if shortened:
        head, tail = array[:_edge_items].tolist(), array[-_edge_items:].tolist()
        words = [*map(formatter, head), " ...", *map(formatter, tail)]
    else:
        words = [formatter(value) for value in array.tolist()]
    width = len(formatter(array.flat[0].item())) + 2
    per_line = max(1, (_line_width - indent) // width)
    lines = [", ".join(words[i : i + per_line]) for i in range(0, len(words), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _corners(array: Array) -> Array:
    """The elements that are shown of a summarised array."""
    for axis, n in enumerate(array.shape):
        if n > 2 * _edge_items:
            array = np.take(array, [*range(_edge_items), *range(n - _edge_items, n)], axis=axis)
    return array


def _with_suffixes(text: str, suffixes: Sequence[str], indent: int) -> str:
    length = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if length + len(suffix) + 2 > _line_width:
            text += ",\n" + " " * indent + suffix
            length = indent + len(suffix)
        else:
            text += ", " + suffix
            length += len(suffix) + 2
    return text + ")"
