"""Pooling: the largest or the average of each window."""

from __future__ import annotations

from chainrule.engine.errors import ConfigError, ShapeError, UnsupportedError
from chainrule.engine.kernels.geometry import PoolGeometry
from chainrule.engine.nn.functional.arguments import IntOrPair, check_window, pair
from chainrule.engine.ops import op, pooling
from chainrule.engine.tensor import Tensor


def max_pool2d(
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The largest element of each window of images (N, C, H, W), or of one (C, H, W).

    Raises:
        ShapeError: the image is smaller than the window.
        ConfigError: a setting is out of range.
        UnsupportedError: `ceil_mode` or `return_indices`.
    """
    if ceil_mode or return_indices:
        raise UnsupportedError("max_pool2d: ceil_mode and return_indices are not supported by this version")
    geometry = _pool_geometry(kernel_size, stride, padding, dilation)
    return _pooled("max_pool2d", pooling.max_pool2d, input, geometry)


def avg_pool2d(
    input: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The average of each window of images (N, C, H, W), or of one (C, H, W).

    Raises:
        ShapeError: the image is smaller than the window.
        ConfigError: a setting is out of range.
        UnsupportedError: `ceil_mode` or `divisor_override`.
    """
    if ceil_mode or divisor_override is not None:
        raise UnsupportedError("avg_pool2d: ceil_mode and divisor_override are not supported by this version")
    geometry = _pool_geometry(kernel_size, stride, padding, 1)._replace(count_include_pad=count_include_pad)
    return _pooled("avg_pool2d", pooling.avg_pool2d, input, geometry)


def _pool_geometry(
    kernel_size: IntOrPair, stride: IntOrPair | None, padding: IntOrPair, dilation: IntOrPair
) -> PoolGeometry:
    window = pair("kernel_size", kernel_size, minimum=1)
    margin = pair("padding", padding, minimum=0)
    if margin[0] > window[0] // 2 or margin[1] > window[1] // 2:
        raise ConfigError("padding", padding, f"pad should be at most half of effective kernel size, which is {window}")
    step = window if stride is None else pair("stride", stride, minimum=1)
    return PoolGeometry(window, step, margin, pair("dilation", dilation, minimum=1))


def _pooled(name: str, pool: op.Op, input: Tensor, geometry: PoolGeometry) -> Tensor:
    if input.ndim == 3:
        return _pooled(name, pool, input.unsqueeze(0), geometry).squeeze(0)
    if input.ndim != 4:
        raise ShapeError(f"{name}: expected 3D or 4D input, got shape {list(input.shape)}")
    check_window(name, input.shape, geometry.kernel, geometry.stride, geometry.padding, geometry.dilation)
    return pool(input, geometry=geometry)
