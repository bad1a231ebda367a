"""Conv and ConvTranspose, of signals and of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chainrule.engine.graph.node import Node
from chainrule.engine.graph.operators.windows import WindowAttributes, Windows, padded
from chainrule.engine.graph.registry import Bounded, bounded, operator
from chainrule.engine.nn import functional as F
from chainrule.engine.tensor import Tensor


@operator("Conv", weights=(1, 2))
def conv(node: Node) -> Bounded:
    """The convolution of x (N, C, L) or (N, C, H, W) with w (O, C / group, ...)."""
    attributes, group = WindowAttributes(node, kernel=False), node.int("group", 1)

    def compute(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        at = attributes.over(x.shape[2:], w.shape[2:])
        margin = at.before
        if not at.even:
            x, margin = padded(x, at.before, at.behind), (0,) * len(at.size)
        convolve = F.conv1d if len(at.size) == 1 else F.conv2d
        return convolve(x, w, b, at.stride, margin, at.dilation, group)

    def elements(x: Tensor, w: Tensor, *_: Tensor | None) -> int:
        at = attributes.over(x.shape[2:], w.shape[2:])
        size = [max(n + i + j, 0) for n, i, j in zip(x.shape[2:], at.before, at.behind, strict=True)]
        places = [(n - k) // s + 1 for n, k, s in zip(size, at.extent, at.stride, strict=True)]
        return max(
            x.shape[0] * x.shape[1] * math.prod(size), x.shape[0] * w.shape[0] * math.prod(max(n, 0) for n in places)
        )

    return bounded(compute, elements)


@operator("ConvTranspose", weights=(1, 2))
def conv_transpose(node: Node) -> Bounded:
    """The transposed convolution of x (N, C, L) or (N, C, H, W) with w (C, O / group, ...).

    Of the whole result `pads` are cut off, which `output_shape` or `auto_pad` may give instead.
    """
    attributes, group = WindowAttributes(node, kernel=False), node.int("group", 1)
    extras, shape = node.ints("output_padding", []), node.ints("output_shape", [])
    upper = attributes.auto_pad == "SAME_UPPER"

    def compute(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        at = attributes.over(x.shape[2:], w.shape[2:])
        dims = len(at.size)
        extra = _numbers(node, "output_padding", extras or [0] * dims, dims)
        whole = _whole(x.shape[2:], at)
        before, behind = at.before, at.behind
        wanted = _wanted(node, x.shape[2:], at, shape)
        if wanted is not None:
            total = [n + e - m for n, e, m in zip(whole, extra, wanted, strict=True)]
            less, more = tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
            before, behind = (less, more) if upper else (more, less)
        convolve = F.conv_transpose1d if dims == 1 else F.conv_transpose2d
        fits = all(e < max(s, d) for e, s, d in zip(extra, at.stride, at.dilation, strict=True))
        if before == behind and min(before) >= 0 and fits:
            return convolve(x, w, b, at.stride, before, extra, group, at.dilation)
        y = convolve(x, w, None, at.stride, 0, 0, group, at.dilation)
        y = padded(y, [-n for n in before], [e - n for e, n in zip(extra, behind, strict=True)])
        return y if b is None else y + b.reshape(-1, *[1] * dims)

    def elements(x: Tensor, w: Tensor, *_: Tensor | None) -> int:
        at = attributes.over(x.shape[2:], w.shape[2:])
        extra = _numbers(node, "output_padding", extras or [0] * len(at.size), len(at.size))
        whole = [n + max(e, 0) for n, e in zip(_whole(x.shape[2:], at), extra, strict=True)]
        size = [max(n, m) for n, m in zip(whole, _wanted(node, x.shape[2:], at, shape) or whole, strict=True)]
        return x.shape[0] * w.shape[1] * group * math.prod(size)

    return bounded(compute, elements)


def _whole(image: Sequence[int], at: Windows) -> list[int]:
    """The size of a transposed convolution of which nothing is cut off."""
    return [(n - 1) * s + k for n, s, k in zip(image, at.stride, at.extent, strict=True)]


def _wanted(node: Node, image: Sequence[int], at: Windows, shape: Sequence[int]) -> list[int] | None:
    """The size the result is to have, where the node says it."""
    if shape:
        return _numbers(node, "output_shape", shape, len(image))
    if node.string("auto_pad", "NOTSET").startswith("SAME"):
        return [n * s for n, s in zip(image, at.stride, strict=True)]
    return None


def _numbers(node: Node, field: str, value: Sequence[int], length: int) -> list[int]:
    if len(value) != length or min(value) < 0:
        raise node.error(f"attribute {field} is {list(value)}, not {length} numbers of 0 or more")
    return list(value)
