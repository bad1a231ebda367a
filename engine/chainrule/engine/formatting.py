"""How a tensor prints: as PyTorch prints it, number for number.

Source of the rules: the behaviour of torch.Tensor.__repr__ and torch.set_printoptions, PyTorch 2.13.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array, bool_, default_dtype, int64, is_floating


@dataclass(frozen=True)
class PrintOptions:
    """How tensors print."""

    precision: int = 4
    """Digits behind the point."""
    threshold: float = 1000
    """How many elements are printed before a tensor is summarised."""
    edgeitems: int = 3
    """How many are shown at the beginning and the end of each dimension of a summarised tensor."""
    linewidth: int = 80
    """Characters in a line."""
    sci_mode: bool | None = None
    """Whether numbers have exponents; None: where their magnitudes ask for it."""


_options = PrintOptions()
_profiles = {
    "default": PrintOptions(),
    "short": PrintOptions(precision=2, edgeitems=2),
    "full": PrintOptions(threshold=math.inf),
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Changes how tensors print.

    Args:
        precision: digits behind the point.
        threshold: how many elements are printed before a tensor is summarised.
        edgeitems: how many are then shown at each end of each dimension.
        linewidth: characters in a line.
        profile: "default", "short" or "full", which the others change.
        sci_mode: whether numbers have exponents; None, also when it is left out: where their magnitudes ask for it.
    """
    global _options
    options = _profiles.get(profile or "", _options)
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    _options = replace(options, **changes, sci_mode=sci_mode)


def get_printoptions() -> dict[str, Any]:
    """The options as they are, by name."""
    return asdict(_options)


@contextmanager
def printoptions(**options: Any) -> Iterator[None]:
    """Other options for a while; see `set_printoptions`."""
    global _options
    before = _options
    try:
        set_printoptions(**options)
        yield
    finally:
        _options = before


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
        options = _options
        summarize = array.size > options.threshold
        values = array if array.dtype.kind != "V" else array.astype(np.float32)
        write = _formatter(_corners(values, options.edgeitems) if summarize else values, array.dtype, options)
        body = _nested(values, len(prefix), summarize, write, options)
    return _with_suffixes(prefix + body, suffixes, len(prefix), _options.linewidth)


# ---- One element ----


@dataclass(frozen=True)
class _Writer:
    """How to write one element, so that all have one width."""

    width: int
    text: Callable[[Any], str]

    def __call__(self, value: Any) -> str:
        return self.text(value).rjust(self.width)


def _formatter(array: Array, dtype: Any, options: PrintOptions) -> _Writer:
    if not is_floating(dtype):
        return _Writer(max(len(str(value)) for value in array.ravel().tolist()), str)
    precision = options.precision
    values = array[np.isfinite(array) & (array != 0)].astype(np.float64)  # PyTorch formats the value as float64
    scientific, integral = _style(values)
    if options.sci_mode is not None and values.size:
        scientific = options.sci_mode
    numbers = values.tolist()
    if scientific:
        widest = max((len(f"{value:.{precision}e}") for value in numbers), default=1)
        return _Writer(widest, lambda value: f"{value:.{precision}e}")
    if integral:
        return _Writer(max((len(f"{value:.0f}") + 1 for value in numbers), default=1), _integral)
    return _Writer(max(len(f"{value:.{precision}f}") for value in numbers), lambda value: f"{value:.{precision}f}")


def _style(values: Array) -> tuple[bool, bool]:
    """Whether numbers, finite and not zero, are written with exponents, and whether all are integers."""
    if values.size == 0:
        return False, True
    sizes = np.abs(values)
    low, high = float(sizes.min()), float(sizes.max())
    integral = bool((values == np.ceil(values)).all())
    return high / low > 1000 or high > 1e8 or (low < 1e-4 and not integral), integral


def _integral(value: float) -> str:
    return f"{value:.0f}." if math.isfinite(value) else f"{value:.0f}"


# ---- All of them ----


def _nested(array: Array, indent: int, summarize: bool, write: _Writer, options: PrintOptions) -> str:
    if array.ndim == 0:
        return write(array.item())
    shortened = summarize and len(array) > 2 * options.edgeitems
    if array.ndim == 1:
        return _vector(array, indent, shortened, write, options)
    shown = _ends(array, options.edgeitems) if shortened else (array, array[:0])
    parts = [[_nested(part, indent + 1, summarize, write, options) for part in end] for end in shown]
    lines = [*parts[0], "...", *parts[1]] if shortened else parts[0]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(lines) + "]"


def _vector(array: Array, indent: int, shortened: bool, write: _Writer, options: PrintOptions) -> str:
    if shortened:
        head, tail = (list(map(write, end.tolist())) for end in _ends(array, options.edgeitems))
        words = [*head, " ...", *tail]
    else:
        words = [write(value) for value in array.tolist()]
    per_line = max(1, (options.linewidth - indent) // (write.width + 2))
    lines = [", ".join(words[i : i + per_line]) for i in range(0, len(words), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _ends(array: Array, count: int) -> tuple[Array, Array]:
    return array[:count], array[len(array) - count :]


def _corners(array: Array, count: int) -> Array:
    """The elements that are shown of a summarised array."""
    for axis, n in enumerate(array.shape):
        if n > 2 * count:
            array = np.take(array, [*range(count), *range(n - count, n)], axis=axis)
    return array


def _with_suffixes(text: str, suffixes: Sequence[str], indent: int, line_width: int) -> str:
    length = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        size = len(suffix)
        if suffix.startswith("dtype="):
            size += len("torch.")  # so that lines end where PyTorch's do
        if length + size + 2 > line_width:
            text += ",\n" + " " * indent + suffix
            length = indent + size
        else:
            text += ", " + suffix
            length += size + 2
    return text + ")"
