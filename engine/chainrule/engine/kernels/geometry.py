"""How a window moves over an image: stride, padding, dilation."""

from __future__ import annotations

from typing import NamedTuple

Pair = tuple[int, int]
Shape = tuple[int, ...]


class ConvGeometry(NamedTuple):
    """The settings of a convolution; (vertical, horizontal)."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def places(self, size: Pair, kernel: Pair) -> Pair:
        """The height and width of what a kernel of this size makes of an image of that size."""
        oh, ow = (output_size(size[i], kernel[i], self.stride[i], self.padding[i], self.dilation[i]) for i in (0, 1))
        return oh, ow


class PoolGeometry(NamedTuple):
    """The settings of a pooling; (vertical, horizontal)."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False
    """Whether a last window may reach beyond the padding, if it begins before."""
    count_include_pad: bool = True
    """Whether an average counts the padding."""
    divisor: int | None = None
    """By what an average divides, if not by the size of its window."""

    def places(self, size: Pair) -> Pair:
        """The height and width of what pooling makes of an image of that size."""
        oh, ow = (
            output_size(
                size[i], self.kernel[i], self.stride[i], self.padding[i], self.dilation[i], ceil_mode=self.ceil_mode
            )
            for i in (0, 1)
        )
        return oh, ow


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil_mode: bool = False) -> int:
    """The places a window has along one dimension: ⌊(size + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1.

    With `ceil_mode` it is rounded up instead, unless the last window would begin in the padding behind the image.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html
    """
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return room // stride + 1
    places = -(-room // stride) + 1
    return places - 1 if (places - 1) * stride >= size + padding else places
