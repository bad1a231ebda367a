"""Images made larger or smaller."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chainrule.engine.dtypes import is_floating, type_name
from chainrule.engine.errors import ConfigError, ShapeError, UnsupportedError
from chainrule.engine.nn.functional.pooling import adaptive_avg_pool1d, adaptive_avg_pool2d
from chainrule.engine.ops import resampling
from chainrule.engine.tensor import Tensor
from chainrule.engine.watching import watched

Factors = float | Sequence[float]
_dims_of_linear = {"linear": 1, "bilinear": 2}


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: Factors | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """(N, C, L) or (N, C, H, W) made as large as `size`, or `scale_factor` times as large.

    Args:
        mode: "nearest", "nearest-exact", "area" (the mean of what an element covers), "linear" for (N, C, L) or
            "bilinear" for (N, C, H, W).
        align_corners: of the linear modes: whether the centres of the outermost elements, rather than their edges,
            stay where they are.
        recompute_scale_factor: whether the factor is the ratio of the sizes, rather than `scale_factor` itself.

    Raises:
        ConfigError: both or neither of size and factor, or as many of them as the input has no dimensions for.
        UnsupportedError: another mode, other dimensions, or `antialias`.
        ShapeError: nothing to resample, or to nothing.
    """
    dims = input.ndim - 2
    if antialias:
        raise UnsupportedError("interpolate: antialias=True is not supported by this version")
    if align_corners is not None and mode not in ("linear", "bilinear", "bicubic", "trilinear"):
        raise ConfigError(
            "align_corners",
            align_corners,
            "align_corners option can only be set with the interpolating modes: linear | bilinear | bicubic | "
            "trilinear",
        )
    if mode not in ("nearest", "nearest-exact", "area", "linear", "bilinear") or dims not in (1, 2):
        raise UnsupportedError(
            "Input Error: Only 3D and 4D input Tensors supported "
            f"(got {input.ndim}D) for the modes: nearest | linear | bilinear | area | nearest-exact (got {mode})"
        )
    if _dims_of_linear.get(mode, dims) != dims:
        raise UnsupportedError(f"Got {input.ndim}D input, but {mode} mode needs {_dims_of_linear[mode] + 2}D input")
    wanted, factors = _sizes(input, dims, size, scale_factor)
    if min(*input.shape[1:], *wanted) < 1:
        raise ShapeError(
            f"Input and output sizes should be greater than 0, but got input {list(input.shape)} output {wanted}"
        )
    if mode == "area":
        return adaptive_avg_pool1d(input, wanted) if dims == 1 else adaptive_avg_pool2d(input, wanted)
    if not is_floating(input.dtype):
        raise UnsupportedError(f"\"interpolate\" not implemented for '{type_name(input.dtype)}'")
    if recompute_scale_factor:
        factors = [None] * dims
    return _resampled(input, wanted, factors, mode, bool(align_corners))


def upsample(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: Factors | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """`interpolate` by its older name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


@watched
def _resampled(input: Tensor, wanted: list[int], factors: list[float | None], mode: str, align_corners: bool) -> Tensor:
    sizes = list(zip(input.shape[2:], wanted, factors, strict=True))
    if mode.startswith("nearest"):
        origins = [
            resampling.nearest_origins(n, m, 1 / factor if factor else n / m, exact=mode == "nearest-exact")
            for n, m, factor in sizes
        ]
        op = resampling.upsample_nearest1d if len(wanted) == 1 else resampling.upsample_nearest2d
        return op(input, origins=(None, None, *origins))
    neighbours = []
    for n, m, factor in sizes:
        aligned = (n - 1) / (m - 1) if m > 1 else 0.0
        step = aligned if align_corners else 1 / factor if factor else n / m
        neighbours.append(resampling.linear_neighbours(n, m, step, align_corners=align_corners))
    op = resampling.upsample_linear1d if len(wanted) == 1 else resampling.upsample_bilinear2d
    return op(input, neighbours=(None, None, *neighbours))


def _sizes(
    input: Tensor, dims: int, size: int | Sequence[int] | None, scale_factor: Factors | None
) -> tuple[list[int], list[float | None]]:
    """The size wanted, and the factors that were given."""
    if size is not None and scale_factor is not None:
        raise ConfigError("size", size, "only one of size or scale_factor should be defined")
    given = list(input.shape[2:])
    if size is not None:
        wanted = list(size) if isinstance(size, Sequence) else [size] * dims
        if len(wanted) != dims:
            raise ConfigError(
                "size",
                size,
                "Input and output must have the same number of spatial dimensions, but got input with spatial "
                f"dimensions of {given} and output size of {size}. Please provide input tensor in (N, C, d1, d2, "
                "...,dK) format and output size in (o1, o2, ...,oK) format.",
            )
        return wanted, [None] * dims
    if scale_factor is None:
        raise ConfigError("size", size, "either size or scale_factor should be defined")
    factors = list(scale_factor) if isinstance(scale_factor, Sequence) else [scale_factor] * dims
    if len(factors) != dims:
        raise ConfigError(
            "scale_factor",
            scale_factor,
            "Input and scale_factor must have the same number of spatial dimensions, but got input with spatial "
            f"dimensions of {given} and scale_factor of shape {scale_factor}. Please provide input tensor in (N, C, "
            "d1, d2, ...,dK) format and scale_factor in (s1, s2, ...,sK) format.",
        )
    return [math.floor(n * factor) for n, factor in zip(given, factors, strict=True)], [*factors]
