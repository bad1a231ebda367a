"""What convolutions and poolings share: where windows lie, and how much margin an image has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from chainrule.engine.graph.errors import Refused
from chainrule.engine.graph.node import Node
from chainrule.engine.nn import functional as F
from chainrule.engine.tensor import Tensor

_PADDINGS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


class Windows(NamedTuple):
    """Windows along each spatial dimension; the margins may differ, before and behind."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    behind: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """How far a window reaches: dilation · (size − 1) + 1."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.size, self.dilation, strict=True))

    @property
    def even(self) -> bool:
        """Whether the margins are the same on both sides, and none is cut off."""
        return self.before == self.behind and min(self.before) >= 0

    @property
    def narrow(self) -> bool:
        """Whether they are also at most half a window, as poolings want them."""
        return self.even and all(n <= k // 2 for n, k in zip(self.before, self.size, strict=True))


class WindowAttributes:
    """A node's attributes about windows, for images of whatever size.

    SAME_UPPER and SAME_LOWER: as much margin as leaves ⌈n / stride⌉ places, the odd one behind, or before.

    Args:
        kernel: whether the node itself says how large its windows are.

    Raises:
        Refused: neither one nor two spatial dimensions.
        GraphError: attributes of different lengths, or out of range.
    """

    def __init__(self, node: Node, *, kernel: bool) -> None:
        self.node = node
        size = node.ints("kernel_shape", None if kernel else [])
        dims = len(size)
        if dims > 2:
            raise Refused(f"{dims} spatial dimensions; one or two are supported")
        self.size = tuple(size)
        self.strides, self.dilations = node.ints("strides", []), node.ints("dilations", [])
        self.pads = node.ints("pads", [])
        self.auto_pad = node.one_of("auto_pad", _PADDINGS, "NOTSET")
        for field, least in (("kernel_shape", 1), ("strides", 1), ("dilations", 1)):
            if any(n < least for n in node.ints(field, [])):
                raise node.error(f"attribute {field} is {node.ints(field)}, with a number below {least}")

    def over(self, image: Sequence[int], size: Sequence[int] | None = None) -> Windows:
        """The windows over an image of this size; `size`: of a window, where its weight says so."""
        dims = len(image)
        size = self.size if size is None else size
        if dims not in (1, 2):
            raise self.node.error(f"{dims} spatial dimensions; one or two are supported")
        if self.size and tuple(size) != self.size:
            raise self.node.error(f"attribute kernel_shape is {list(self.size)}, but the weight is of {list(size)}")
        stride, dilation = tuple(self.strides or (1,) * dims), tuple(self.dilations or (1,) * dims)
        pads = tuple(self.pads or (0,) * 2 * dims)
        for field, value, length in (
            ("kernel_shape", size, dims),
            ("strides", stride, dims),
            ("dilations", dilation, dims),
            ("pads", pads, 2 * dims),
        ):
            if len(value) != length:
                raise self.node.error(f"attribute {field} is {list(value)}, not {length} numbers")
        before, behind = self._margins(image, size, stride, dilation, pads)
        return Windows(tuple(size), stride, dilation, before, behind)

    def _margins(
        self,
        image: Sequence[int],
        size: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        pads: tuple[int, ...],
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        dims = len(image)
        if self.auto_pad == "NOTSET":
            return pads[:dims], pads[dims:]
        if self.auto_pad == "VALID":
            return (0,) * dims, (0,) * dims
        total = [
            max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            for n, s, d, k in zip(image, stride, dilation, size, strict=True)
        ]
        less, more = tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
        return (less, more) if self.auto_pad == "SAME_UPPER" else (more, less)


def padded(x: Tensor, before: Sequence[int], behind: Sequence[int], value: float = 0.0) -> Tensor:
    """`x` with margins around its last dimensions; negative ones cut off."""
    if not any(before) and not any(behind):
        return x
    margins = [n for pair in zip(reversed(before), reversed(behind), strict=True) for n in pair]
    return F.pad(x, margins, value=value)
