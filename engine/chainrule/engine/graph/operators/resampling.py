"""Resize and Upsample: images made larger or smaller, along any of their dimensions.

A place of the result is first taken back to the input, by `coordinate_transformation_mode`; the element is then the
nearest one there, or a weighted sum of neighbours. Source: https://onnx.ai/onnx/operators/onnx__Resize.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.graph.errors import Refused
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.registry import Bounded, bounded, operator
from chainrule.engine.ops import resampling
from chainrule.engine.tensor import Tensor

_COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@operator("Upsample", since=7, until=9, host=(1,))
def upsample(node: Node) -> Bounded:
    """x made `scales` times as large: what Resize was before opset 10."""
    mode = node.one_of("mode", ("nearest", "linear"), "nearest")
    given = node.floats("scales") if node.opset < 9 else None
    resize = _Resize(node, mode, "asymmetric", "floor", 0.0, False)

    def compute(x: Tensor, scales: Array | None = None) -> Tensor:
        return resize(x, None, given if scales is None else scales, None)

    def elements(x: Tensor, scales: Array | None = None) -> int:
        return resize.elements(x, None, given if scales is None else scales, None)

    return bounded(compute, elements)


@operator("Resize", since=10, until=10, host=(1,))
def resize_10(node: Node) -> Bounded:
    """x made `scales` times as large."""
    resize = _Resize(node, node.one_of("mode", ("nearest", "linear"), "nearest"), "asymmetric", "floor", 0.0, False)
    return bounded(lambda x, scales: resize(x, None, scales, None), lambda x, s: resize.elements(x, None, s, None))


@operator("Resize", since=11, host=(1, 2, 3))
def resize(node: Node) -> Bounded:
    """x made `scales` times as large, or as large as `sizes`, along `axes` or all dimensions."""
    if node.int("antialias", 0):
        raise Refused("antialias")
    if node.string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refused(f"keep_aspect_ratio_policy {node.string('keep_aspect_ratio_policy')}; stretch is supported")
    coordinates = node.string("coordinate_transformation_mode", "half_pixel")
    if coordinates == "tf_crop_and_resize":
        raise Refused("coordinate_transformation_mode tf_crop_and_resize")
    resize = _Resize(
        node,
        node.one_of("mode", ("nearest", "linear", "cubic"), "nearest"),
        node.one_of("coordinate_transformation_mode", _COORDINATES, "half_pixel"),
        node.one_of("nearest_mode", _ROUNDINGS, "round_prefer_floor"),
        node.float("cubic_coeff_a", -0.75),
        bool(node.int("exclude_outside", 0)),
    )
    return bounded(resize, resize.elements)


class _Resize:
    def __init__(
        self, node: Node, mode: str, coordinates: str, rounding: str, cubic: float, exclude_outside: bool
    ) -> None:
        self.node = node
        self.mode = mode
        self.coordinates = coordinates
        self.rounding = rounding
        self.cubic = cubic
        self.exclude_outside = exclude_outside

    def __call__(
        self,
        x: Tensor,
        _roi: Array | None = None,
        scales: Array | Sequence[float] | None = None,
        sizes: Array | None = None,
    ) -> Tensor:
        wanted = self._sizes(x, scales, sizes)
        places = [
            None if m == n and scale == 1 else self._places(n, m, scale)
            for n, (m, scale) in zip(x.shape, wanted, strict=True)
        ]
        if self.mode == "nearest":
            origins = (None if p is None else self._nearest(p, n) for p, n in zip(places, x.shape, strict=True))
            return resampling.upsample_nearest2d(x, origins=tuple(origins))
        if self.mode == "linear":
            neighbours = (None if p is None else _linear(p, n) for p, n in zip(places, x.shape, strict=True))
            return resampling.upsample_bilinear2d(x, neighbours=tuple(neighbours))
        for axis, p in enumerate(places):
            if p is not None:
                weights = Tensor(self._cubic(p, x.shape[axis]).astype(x.dtype))
                x = (x.transpose(axis, -1) @ weights).transpose(axis, -1)
        return x

    def elements(
        self,
        x: Tensor,
        _roi: Array | None = None,
        scales: Array | Sequence[float] | None = None,
        sizes: Array | None = None,
    ) -> int:
        """Of the result, and of what is in between while it grows along one dimension and shrinks along another."""
        return math.prod(max(n, m) for n, (m, _) in zip(x.shape, self._sizes(x, scales, sizes), strict=True))

    def _sizes(self, x: Tensor, scales: Array | Sequence[float] | None, sizes: Array | None) -> list[tuple[int, float]]:
        """For each dimension the size, and by what the input's is multiplied for it."""
        axes = [axis % x.ndim for axis in self.node.ints("axes", list(range(x.ndim)))]
        found = [(n, 1.0) for n in x.shape]
        given = sizes if sizes is not None and len(sizes) else scales
        if given is None or len(given) != len(axes):
            count = 0 if given is None else len(given)
            raise self.node.error(f"{count} sizes or scales for {len(axes)} dimensions")
        for axis, number in zip(axes, given, strict=True):
            n = x.shape[axis]
            if given is sizes:
                m, scale = int(number), int(number) / max(n, 1)
            else:
                m, scale = math.floor(n * float(number)), float(number)
            if m < 1 or n < 1:
                raise self.node.error(f"dimension {axis} of {n} is to become {m}")
            found[axis] = m, scale
        return found

    def _places(self, n: int, m: int, scale: float) -> Array:
        """Where in the input each of m elements of the result comes from."""
        kind: Any = np.float32 if self.mode == "nearest" else np.float64
        i: Array = np.arange(m, dtype=kind)
        scale = kind(scale)  # the nearest is decided in float32 by others, too
        if self.coordinates == "asymmetric":
            return i / scale
        if self.coordinates == "align_corners":
            return i * (n - 1) / (m - 1) if m > 1 else i
        if self.coordinates == "pytorch_half_pixel" and m == 1:
            return i
        half = kind(0.5)
        symmetric = self.coordinates == "half_pixel_symmetric"
        shift = kind(n / 2) * (1 - kind(m) / (scale * kind(n))) if symmetric else kind(0)
        places: Array = shift + (i + half) / scale - half
        return places

    def _nearest(self, places: Array, n: int) -> Array:
        rules: dict[str, Callable[[Array], Array]] = {
            "floor": np.floor,
            "ceil": np.ceil,
            "round_prefer_floor": lambda p: np.ceil(p - np.float32(0.5)),
            "round_prefer_ceil": lambda p: np.floor(p + np.float32(0.5)),
        }
        clipped: Array = np.clip(rules[self.rounding](places).astype(np.int64), 0, n - 1)
        return clipped

    def _cubic(self, places: Array, n: int) -> Array:
        """The share (n, m) that each element has in each of the result: a cubic spline over four neighbours.

        Source: Keys, Cubic convolution interpolation for digital image processing (1981)
        """
        a, first = self.cubic, np.floor(places).astype(np.int64)
        shares = np.zeros((n, len(places)))
        columns = np.arange(len(places))
        for neighbour in range(-1, 3):
            d = np.abs(places - (first + neighbour))
            near = ((a + 2) * d - (a + 3)) * d * d + 1
            far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
            share = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
            inside = (first + neighbour >= 0) & (first + neighbour < n)
            if self.exclude_outside:
                share = share * inside
            np.add.at(shares, (np.clip(first + neighbour, 0, n - 1), columns), share)
        return shares / shares.sum(0) if self.exclude_outside else shares


def _linear(places: Array, n: int) -> tuple[Array, Array, Array]:
    """The neighbours before and behind, and the share of the one behind; the outermost ones reach beyond the image."""
    places = np.clip(places, 0, n - 1)
    before = np.minimum(places.astype(np.int64), n - 1)
    return before, np.minimum(before + 1, n - 1), places - before
