"""Layers that put margins around the last dimensions; `padding` is (left, right, top, bottom), or one for all."""

from __future__ import annotations

from chainrule.engine.nn import functional as F
from chainrule.engine.nn.functional.arguments import Ints, repeated
from chainrule.engine.nn.module import Module
from chainrule.engine.tensor import Tensor


class _Padding(Module):
    dims: int
    mode: str

    def __init__(self, padding: Ints) -> None:
        super().__init__()
        self.padding = repeated(padding, 2 * self.dims)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Padding):
    mode = "constant"

    def __init__(self, padding: Ints, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """A margin of one value before and behind (N, C, L)."""

    dims = 1


class ConstantPad2d(_ConstantPad):
    """A margin of one value around images (N, C, H, W)."""

    dims = 2


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Ints) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad):
    """Zeros before and behind (N, C, L)."""

    dims = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around images (N, C, H, W)."""

    dims = 2


class ReflectionPad1d(_Padding):
    """(N, C, L) mirrored at its first and its last element."""

    dims = 1
    mode = "reflect"


class ReflectionPad2d(_Padding):
    """Images (N, C, H, W) mirrored at their outermost rows and columns."""

    dims = 2
    mode = "reflect"


class ReplicationPad1d(_Padding):
    """(N, C, L) with its first and its last element repeated."""

    dims = 1
    mode = "replicate"


class ReplicationPad2d(_Padding):
    """Images (N, C, H, W) with their outermost rows and columns repeated."""

    dims = 2
    mode = "replicate"


class CircularPad1d(_Padding):
    """(N, C, L) that goes on at its other end."""

    dims = 1
    mode = "circular"


class CircularPad2d(_Padding):
    """Images (N, C, H, W) that go on at their other side."""

    dims = 2
    mode = "circular"
