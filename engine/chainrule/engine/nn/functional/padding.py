"""Margins around the last dimensions of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chainrule.engine.errors import DTypeError, ShapeError, UnsupportedError
from chainrule.engine.functions.arguments import check_fits
from chainrule.engine.functions.autocast import active, raised
from chainrule.engine.ops import padding
from chainrule.engine.tensor import Tensor
from chainrule.engine.watching import watched

_combinations = """
Supported combinations for non-constant padding:
  - 2D or 3D input: padding size = 2 (pads last dimension)
  - 3D or 4D input: padding size = 4 (pads last 2 dimensions)
  - 4D or 5D input: padding size = 6 (pads last 3 dimensions)"""
_reflection = (padding.reflection_pad1d, padding.reflection_pad2d, padding.reflection_pad3d)
_replication = (padding.replication_pad1d, padding.replication_pad2d, padding.replication_pad3d)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """`input` with margins: `pad` is (before, behind) of the last dimension, then of the one before it, and so on.

    Args:
        pad: negative numbers cut off.
        mode: "constant", "reflect" (mirrored at the outermost elements), "replicate" (they are repeated) or
            "circular" (going on at the other end); the last three for one to three dimensions behind those of batch
            and channels.
        value: of the constant margin; 0 by default.

    Raises:
        ShapeError: the padding does not fit the shape.
        UnsupportedError: there is no such mode, or not for so many dimensions.
    """
    if isinstance(pad, str) or not isinstance(pad, Sequence) or not all(isinstance(n, int | np.integer) for n in pad):
        raise DTypeError(f"pad(): argument 'pad' (position 2) must be tuple of ints, not {type(pad).__name__}")
    if len(pad) % 2:
        raise ShapeError("Padding length must be divisible by 2")
    if len(pad) > 2 * input.ndim:
        raise ShapeError(
            "Padding length should be less than or equal to two times the input dimension but got padding length "
            f"{len(pad)} and input of dimension {input.ndim}"
        )
    margins = [(int(pad[i]), int(pad[i + 1])) for i in range(0, len(pad), 2)][::-1]
    if mode == "constant":
        check_fits(value or 0, input.dtype)
        return _constant(input, margins, 0 if value is None else value)
    if value is not None and value != 0:
        raise ShapeError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if mode not in ("reflect", "replicate", "circular"):
        raise UnsupportedError(f"Unrecognised padding mode {mode}")
    if not 1 <= len(margins) <= 3 or input.ndim - len(margins) not in (1, 2):
        raise UnsupportedError(
            f"Padding size {len(pad)} is not supported for {input.ndim}D input tensor.{_combinations}"
        )
    return _inside(input, margins, mode)


def _constant(input: Tensor, margins: list[tuple[int, int]], value: float) -> Tensor:
    lead = input.ndim - len(margins)
    for i, (before, behind) in enumerate(margins, lead):
        size = input.shape[i]
        if size + min(before, 0) + min(behind, 0) < 0:
            raise ShapeError(
                f"narrow(): length must be non-negative, but padding ({before}, {behind}) cuts off more than there is "
                f"at dimension {i} of input {list(input.shape)}"
            )
    return padding.constant_pad(input, margins=(*[(0, 0)] * lead, *margins), value=value)


@watched
def _inside(input: Tensor, margins: list[tuple[int, int]], mode: str) -> Tensor:
    if active and (mode == "replicate" or (mode == "reflect" and len(margins) < 3)):
        (input,) = raised(input)
    lead = input.ndim - len(margins)
    if 0 in input.shape[lead - 1 :] and mode != "circular":
        dims = len(margins)
        raise ShapeError(
            f"Expected {dims + 1}D or {dims + 2}D (batch mode) tensor with possibly 0 batch size and other non-zero "
            f"dimensions for input, but got: {list(input.shape)}"
        )
    for axis, (before, behind) in enumerate(margins, lead):
        _check_inside(input.shape, axis, before, behind, mode)
    rule = {"reflect": padding.mirrored, "replicate": padding.repeated, "circular": padding.wrapped}[mode]
    origins = tuple(
        None if margin == (0, 0) else rule(input.shape[axis], *margin) for axis, margin in enumerate(margins, lead)
    )
    op = {"reflect": _reflection, "replicate": _replication, "circular": (padding.circular_pad,) * 3}[mode]
    return op[len(margins) - 1](input, origins=(None,) * lead + origins)


def _check_inside(shape: Sequence[int], axis: int, before: int, behind: int, mode: str) -> None:
    size = shape[axis]
    if mode == "reflect" and (before >= size or behind >= size):
        raise ShapeError(
            f"Argument #{2 * (len(shape) - axis) + 2}: Padding size should be less than the corresponding input "
            f"dimension, but got: padding ({before}, {behind}) at dimension {axis} of input {list(shape)}"
        )
    if mode == "circular":
        if before > size or behind > size:
            raise ShapeError("Padding value causes wrapping around more than once.")
        if size + before + behind < 0:
            raise ShapeError("Negative padding value is resulting in an empty dimension")
        left = size + min(before, 0) + min(behind, 0)
        if max(before, behind) > max(left, 0):
            raise ShapeError(f"Padding ({before}, {behind}) wraps around more than the {left} elements that it leaves")
    if size + before + behind < 0:
        raise ShapeError(
            f"Padding ({before}, {behind}) cuts off more than there is at dimension {axis} of input {list(shape)}"
        )
