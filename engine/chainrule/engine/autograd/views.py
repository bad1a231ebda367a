"""What views know of their base, and the nodes that writing through a view leaves behind.

A view shares its base's memory and version. Writing to a view rewrites the history of the base (`CopySlices`); every
other view then finds its own history anew, as a part of the base (`AsStrided`). Which elements of the base a view
shows is read off the memory itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from chainrule.engine.autograd.graph import Node
from chainrule.engine.dtypes import Array

if TYPE_CHECKING:
    from chainrule.engine.autograd.variable import Variable
    from chainrule.engine.tensor import Tensor

UNRECORDED: Final = "unrecorded"
"""A view made where nothing is recorded."""
MULTIPLE: Final = "multiple"
"""One of several views that one operation gives."""
OF_FUNCTION: Final = "of a function"
"""A view that a `Function` of the user's returned."""


class View:
    """What a view knows."""

    __slots__ = ("base", "made", "version")

    def __init__(self, base: Tensor, version: int, made: str | None) -> None:
        self.base = base
        """Whose memory it shows; no view itself."""
        self.version = version
        """As of which version of the memory its node is right."""
        self.made = made
        """UNRECORDED, MULTIPLE or OF_FUNCTION if writing to it could not be followed; else None."""


def places(view: Array, base: Array) -> npt.NDArray[np.int64]:
    """For each element of `view`, which element of `base` it is, counted row by row; flat."""
    if view.size == 0:
        return np.zeros(0, np.int64)
    itemsize = base.itemsize
    low, high = np.lib.array_utils.byte_bounds(base)
    buffer = np.empty((high - low) // itemsize, np.int64)
    _laid_out(buffer, base, low)[...] = np.arange(base.size).reshape(base.shape)
    return _laid_out(buffer, view, low).ravel()


def _laid_out(buffer: Array, like: Array, low: int) -> Array:
    """`buffer`, of int64 from address `low` on, seen with the shape and strides of `like`."""
    start = (like.__array_interface__["data"][0] - low) // like.itemsize
    strides = tuple(step // like.itemsize * buffer.itemsize for step in like.strides)
    return np.lib.stride_tricks.as_strided(buffer[start:], like.shape, strides)


class AsStrided(Node):
    """The node of a view whose memory was written to another way: y = x at the view's places."""

    __slots__ = ("edges", "index", "shape", "view_shape")

    def __init__(
        self, base: Node, index: npt.NDArray[np.int64], shape: tuple[int, ...], view_shape: tuple[int, ...]
    ) -> None:
        self.edges = (base,)
        self.index = index
        self.shape = shape
        self.view_shape = view_shape
        self._enter()

    def name(self) -> str:
        return "AsStridedBackward0"

    def gradients(self, g: Any, *, recording: bool) -> Sequence[Any]:  # noqa: ARG002
        from chainrule.engine.ops.shape import put, reshape  # which are built on this module

        size = int(np.prod(self.shape, dtype=np.int64))
        return (reshape(put(reshape(g, shape=(-1,)), index=self.index, shape=(size,)), shape=self.shape),)


class CopySlices(Node):
    """The node of a base that was written to through a view: y = x, with f(x's part, ...) in the view's places.

    Args:
        base: as it was before.
        view: the memory written to.
        written: the node of f.
        before: the node of the view as it was before; None if it required no gradient.
    """

    __slots__ = ("before", "edges", "index", "shape", "view_node", "view_shape", "written")

    def __init__(self, base: Variable, view: Array, written: Node, before: Node | None) -> None:
        self.written = written
        self.before = before
        self.index = places(view, base.data)
        self.shape = base.data.shape
        self.view_shape = view.shape
        self.view_node: weakref.ref[AsStrided] | None = None
        written.within = weakref.ref(self)
        others = [edge for edge in written.edges if edge is not None and edge is not before]
        self.edges = (base.gradient_edge() if base.requires_grad else None, *others)
        self._enter()

    def name(self) -> str:
        return "CopySlices"

    def gradients(self, g: Any, *, recording: bool) -> Sequence[Any]:
        from chainrule.engine.ops.shape import overwrite, reshape, take

        flat = reshape(g, shape=(-1,))
        part = reshape(take(flat, index=self.index), shape=self.view_shape)
        inner: Any = None
        others = []
        gradients = self.written.gradients(part, recording=recording)
        for edge, gradient in zip(filter(None, self.written.edges), gradients, strict=True):
            if edge is not self.before:
                others.append(gradient)
            elif gradient is not None:
                inner = gradient if inner is None else inner + gradient
        if self.edges[0] is None:
            return others
        inner = np.zeros(len(self.index), g.dtype) if inner is None else reshape(inner, shape=(-1,))
        return reshape(overwrite(flat, inner, index=self.index), shape=g.shape), *others

    def part(self) -> Node:
        """The node of what was written, as a part of the base: the view's own, whose hooks see what flows into it."""
        node = None if self.view_node is None else self.view_node()
        if node is None:
            node = AsStrided(self, self.index, self.shape, self.view_shape)
            self.view_node = weakref.ref(node)  # it keeps this one
        return node

    def free(self) -> None:
        self.written.free()
