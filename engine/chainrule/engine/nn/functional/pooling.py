"""Pooling: the largest or the average of each window, in one and two dimensions.

In one dimension it is that of images one pixel high.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from chainrule.engine import kernels
from chainrule.engine.dtypes import bool_, int64, is_floating, type_name
from chainrule.engine.errors import ConfigError, DTypeError, ShapeError, UnsupportedError
from chainrule.engine.functions.autocast import active, raised
from chainrule.engine.kernels.geometry import Pair, PoolGeometry
from chainrule.engine.nn.functional.arguments import Ints, ints, repeated
from chainrule.engine.nn.functional.checks import SettingError
from chainrule.engine.ops import pooling
from chainrule.engine.tensor import Tensor
from chainrule.engine.watching import watched

Pooled = Any
"""A Tensor; with `return_indices` a pair of it and the places."""
OutputSize = int | None | Sequence[int | None]

# ---- The largest of each window ----


@watched
def max_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """The largest element of each window of (N, C, L), or of (C, L); otherwise as max_pool2d."""
    _check_dims("max_pool1d", input, 1)
    geometry = _geometry("max_pool1d", 1, kernel_size, stride, padding, dilation, ceil_mode)
    return _unflattened(_max_pool("max_pool1d", input.unsqueeze(-2), geometry, return_indices))


def max_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """The largest element of each window of images (N, C, H, W), or of one (C, H, W).

    Args:
        ceil_mode: also where a window reaches beyond the image, if it begins in it or in the padding before.
        return_indices: also the place of each in its image, counted row by row.

    Raises:
        ShapeError: the image is smaller than the window.
        SettingError: a setting is out of range.
    """
    _check_dims("max_pool2d", input, 2)
    geometry = _geometry("max_pool2d", 2, kernel_size, stride, padding, dilation, ceil_mode)
    return _max_pool("max_pool2d", input, geometry, return_indices)


@watched
def _max_pool(name: str, input: Tensor, geometry: PoolGeometry, return_indices: bool) -> Pooled:
    if input.dtype == bool_:
        raise UnsupportedError(f"\"{name}\" not implemented for 'Bool'")
    if input.ndim == 3:
        return _first(_max_pool(name, input.unsqueeze(0), geometry, return_indices))
    _check_output(input, geometry)
    if not return_indices:
        return pooling.max_pool2d(input, geometry=geometry)
    found = kernels.max_pool2d(input.data, geometry)
    y = pooling.max_pool2d(input, geometry=geometry, found=found)
    return y, Tensor(pooling.plane_indices(found[1], input.shape[3], geometry))


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """The elements of (N, C, L), or of (C, L), at the places that max_pool1d gave, among zeros."""
    if input.ndim not in (2, 3):
        raise ShapeError(
            f"Input to max_unpooling1d should be a 2d or 3d Tensor, but got a tensor with {input.ndim} dimensions."
        )
    size = _unpooled_size("max_unpool1d", 1, input, kernel_size, stride, padding, output_size)
    return _max_unpool(input.unsqueeze(-2), indices.unsqueeze(-2), (1, size[0])).squeeze(-2)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """The elements of images (N, C, H, W), or of one, at the places that max_pool2d gave, among zeros.

    Where two have one place the last stays.

    Args:
        output_size: of the images; by default what the windows cover.

    Raises:
        ShapeError: the indices have another shape, or lie outside.
        ConfigError: `output_size` is not near the default.
    """
    if input.ndim not in (3, 4):
        raise ShapeError(
            f"Input to max_unpooling2d should be a 3d or 4d Tensor, but got a tensor with {input.ndim} dimensions."
        )
    size = _unpooled_size("max_unpool2d", 2, input, kernel_size, stride, padding, output_size)
    return _max_unpool(input, indices, (size[0], size[1]))


def _max_unpool(input: Tensor, indices: Tensor, size: Pair) -> Tensor:
    if active:
        (input,) = raised(input)
    if indices.dtype != int64:
        raise DTypeError(f"elements in indices should be type int64 but got: {type_name(indices.dtype)}")
    if indices.shape != input.shape:
        raise ShapeError(
            f"Expected shape of indices to be same as that of the input tensor ({list(input.shape)}) but got indices "
            f"tensor with shape: {list(indices.shape)}"
        )
    if input.ndim == 3:
        return _max_unpool(input.unsqueeze(0), indices.unsqueeze(0), size).squeeze(0)
    outside = indices.data[(indices.data < 0) | (indices.data >= size[0] * size[1])]
    if outside.size:
        raise ShapeError(f"Found an invalid max index: {outside[0]} (output volumes are of size {size[0]}x{size[1]})")
    return pooling.max_unpool2d(input, indices=indices.data.copy(), size=size)


def _unpooled_size(
    name: str,
    dims: int,
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None,
    padding: Ints,
    output_size: Sequence[int] | None,
) -> tuple[int, ...]:
    window = ints(name, "kernel_size", kernel_size, dims, f"expected {dims} of them")
    step = window if stride is None else ints(name, "stride", stride, dims, f"expected {dims} of them")
    margin = ints(name, "padding", padding, dims, f"expected {dims} of them")
    given = input.shape[-dims:]
    default = [(given[i] - 1) * step[i] + window[i] - 2 * margin[i] for i in range(dims)]
    if output_size is None:
        return tuple(default)
    size = tuple(output_size[2:] if len(output_size) == dims + 2 else output_size)
    if len(size) != dims:
        raise ConfigError(
            "output_size",
            output_size,
            f"output_size should be a sequence containing {dims} or {dims + 2} elements, but it has a length of "
            f"'{len(output_size)}'",
        )
    for i in range(dims):
        low, high = default[i] - step[i], default[i] + step[i]
        if not low < size[i] < high:
            raise ConfigError(
                "output_size", output_size, f'invalid output_size "{size}" (dim {i} must be between {low} and {high})'
            )
    return size


# ---- The average of each window ----


@watched
def avg_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The average of each window of (N, C, L), or of (C, L); otherwise as avg_pool2d."""
    _check_dims("avg_pool1d", input, 1)
    geometry = _geometry("avg_pool1d", 1, kernel_size, stride, padding, 1, ceil_mode)
    return _avg_pool(input.unsqueeze(-2), geometry._replace(count_include_pad=count_include_pad)).squeeze(-2)


def avg_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The average of each window of images (N, C, H, W), or of one (C, H, W).

    Args:
        ceil_mode: as in max_pool2d; what is beyond the padding is never counted.
        count_include_pad: whether the zeros of the padding are counted.
        divisor_override: by what to divide the sum instead.

    Raises:
        ShapeError: the image is smaller than the window.
        SettingError: a setting is out of range.
    """
    _check_dims("avg_pool2d", input, 2)
    geometry = _geometry("avg_pool2d", 2, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override == 0:
        raise SettingError("divisor_override", divisor_override, "divisor must be not zero")
    return _avg_pool(input, geometry._replace(count_include_pad=count_include_pad, divisor=divisor_override))


def _avg_pool(input: Tensor, geometry: PoolGeometry) -> Tensor:
    if not is_floating(input.dtype) and input.dtype != int64:
        raise UnsupportedError(f"\"avg_pool2d\" not implemented for '{type_name(input.dtype)}'")
    if input.ndim == 3:
        return _avg_pool(input.unsqueeze(0), geometry).squeeze(0)
    _check_output(input, geometry)
    return pooling.avg_pool2d(input, geometry=geometry)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
) -> Tensor:
    """(Σ xᵖ)^(1/p) over each window of (N, C, L), or of (C, L); otherwise as lp_pool2d."""
    if math.isinf(norm_type):
        largest = max_pool1d(input.abs() * math.copysign(1, norm_type), kernel_size, stride, ceil_mode=ceil_mode)
        return largest * math.copysign(1, norm_type)  # type: ignore[no-any-return]
    average = avg_pool1d(input.pow(norm_type), kernel_size, stride, ceil_mode=ceil_mode)
    return _root(average, math.prod(repeated(kernel_size, 1)), norm_type)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
) -> Tensor:
    """(Σ xᵖ)^(1/p) over each window of images (N, C, H, W), or of one; the largest or smallest |x| for p = ±∞.

    As in PyTorch the gradient of a window of zeros is not a number, and a window that reaches beyond the image with
    `ceil_mode` counts as if it were full of elements like those it has.
    """
    if math.isinf(norm_type):
        largest = max_pool2d(input.abs() * math.copysign(1, norm_type), kernel_size, stride, ceil_mode=ceil_mode)
        return largest * math.copysign(1, norm_type)  # type: ignore[no-any-return]
    average = avg_pool2d(input.pow(norm_type), kernel_size, stride, ceil_mode=ceil_mode)
    return _root(average, math.prod(repeated(kernel_size, 2)), norm_type)


def _root(average: Tensor, size: int, norm_type: float) -> Tensor:
    return (average.sign() * average.abs().relu() * size).pow(1 / norm_type)


# ---- As many windows as are asked for ----


def adaptive_avg_pool1d(input: Tensor, output_size: Ints) -> Tensor:
    """The averages of `output_size` windows that cover (N, C, L), or (C, L)."""
    size = _adaptive_size1d("adaptive_avg_pool1d", input, output_size)
    return _adaptive_avg_pool(input.unsqueeze(-2), (1, size)).squeeze(-2)


def adaptive_avg_pool2d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The averages of `output_size` windows, (vertical, horizontal), that cover images (N, C, H, W), or one.

    Window i of n begins at ⌊i · H / n⌋ and ends before ⌈(i + 1) · H / n⌉.

    Args:
        output_size: None for as many as there are elements.

    Raises:
        ShapeError: the image is empty, or the size is negative.
        UnsupportedError: of integers.
    """
    return _adaptive_avg_pool(input, _adaptive_size2d("adaptive_avg_pool2d", input, output_size))


def _adaptive_avg_pool(input: Tensor, size: Pair) -> Tensor:
    _check_adaptive("adaptive_avg_pool2d", input, size)
    if min(size) < 0:
        raise SettingError(
            "output_size",
            size,
            "adaptive_avg_pool2d: elements of output_size must be greater than or equal to 0 but received "
            f"{{{size[0]}, {size[1]}}}",
        )
    if input.ndim == 3:
        return _adaptive_avg_pool(input.unsqueeze(0), size).squeeze(0)
    height, width = input.shape[2:]
    if min(size) > 0 and height % size[0] == 0 and width % size[1] == 0:  # windows of one size, side by side
        window = height // size[0], width // size[1]
        if size == (1, 1):
            return input.mean((2, 3), keepdim=True)
        return pooling.avg_pool2d(input, geometry=PoolGeometry(window, window))
    return pooling.adaptive_avg_pool2d(input, size=size)


def adaptive_max_pool1d(input: Tensor, output_size: Ints, return_indices: bool = False) -> Pooled:
    """The largest of `output_size` windows that cover (N, C, L), or (C, L); windows as in adaptive_avg_pool2d."""
    size = _adaptive_size1d("adaptive_max_pool1d", input, output_size)
    return _unflattened(_adaptive_max_pool(input.unsqueeze(-2), (1, size), return_indices))


def adaptive_max_pool2d(input: Tensor, output_size: OutputSize, return_indices: bool = False) -> Pooled:
    """The largest of windows that cover images (N, C, H, W), or one; windows and errors as in adaptive_avg_pool2d.

    Args:
        return_indices: also the place of each in its image, counted row by row.
    """
    return _adaptive_max_pool(input, _adaptive_size2d("adaptive_max_pool2d", input, output_size), return_indices)


@watched
def _adaptive_max_pool(input: Tensor, size: Pair, return_indices: bool) -> Pooled:
    _check_adaptive("adaptive_max_pool2d", input, size)
    if min(size) < 0:
        shape = [*input.shape[:-2], *size]
        raise SettingError("output_size", size, f"Trying to create tensor with negative dimension {min(size)}: {shape}")
    if input.ndim == 3:
        return _first(_adaptive_max_pool(input.unsqueeze(0), size, return_indices))
    if not return_indices:
        return pooling.adaptive_max_pool2d(input, size=size)
    found = pooling.adaptive_maxima(input.data, size)
    return pooling.adaptive_max_pool2d(input, size=size, found=found), Tensor(found[1])


# ---- Arguments and results ----


def _geometry(
    name: str,
    dims: int,
    kernel_size: Ints,
    stride: Ints | None,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
) -> PoolGeometry:
    """The geometry in two dimensions."""
    numbers = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
    settings: list[tuple[int, ...]] = []
    for field, value in numbers.items():
        if field == "stride" and (value is None or (isinstance(value, Sequence) and not len(value))):
            settings.append(settings[0])  # a window's own size
            continue
        assert value is not None
        checked = ints(name, field, value, dims, _wrong_length(name, dims, field, value))
        fill = 0 if field == "padding" else 1
        settings.append((fill,) * (2 - dims) + checked)
    window, step, margin, spread = ((n[0], n[1]) for n in settings)
    for field, value, pair in (("kernel_size", kernel_size, window), ("stride", stride, step)):
        if min(pair) < 1:
            raise SettingError(field, value, f"{name}: {field} must be greater than zero, but got {pair[2 - dims :]}")
    if min(spread) < 1:
        raise SettingError("dilation", dilation, f"dilation should be greater than zero, but got {spread[2 - dims :]}")
    for n, k, d in zip(margin, window, spread, strict=True):
        if n < 0:
            raise SettingError("padding", padding, f"pad must be non-negative, but got pad: {n}")
        if n > k // 2:
            raise SettingError(
                "padding",
                padding,
                f"pad should be at most half of effective kernel size, but got pad={n}, kernel_size={k} and "
                f"dilation={d}",
            )
    return PoolGeometry(window, step, margin, spread, ceil_mode)


def _wrong_length(name: str, dims: int, field: str, value: Ints) -> str:
    if dims == 1:
        count = len(value) if isinstance(value, Sequence) else 1
        return f"{name}() {field} must be an int, list of ints or tuple of ints of size 1 but got size {count}"
    either = {"stride": "either be omitted,", "dilation": "be either"}.get(field, "either be")
    return f"{name}: {field} must {either} a single int, or a tuple of two ints"


def _check_dims(name: str, input: Tensor, dims: int) -> None:
    if not isinstance(input, Tensor):
        raise DTypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
    if input.ndim not in (dims + 1, dims + 2) or 0 in input.shape[-dims - 1 :]:
        raise ShapeError(
            f"{name}: Expected {dims + 1}D or {dims + 2}D (batch mode) tensor with optional 0 dim batch size for "
            f"input, but got:{list(input.shape)}"
        )


def _check_output(input: Tensor, geometry: PoolGeometry) -> None:
    _, channels, height, width = input.shape
    oh, ow = geometry.places((height, width))
    if min(oh, ow) < 1:
        raise ShapeError(
            f"Given input size: ({channels}x{height}x{width}). Calculated output size: ({channels}x{oh}x{ow}). Output "
            "size is too small"
        )


def _check_adaptive(name: str, input: Tensor, size: Pair) -> None:
    if not is_floating(input.dtype):
        raise UnsupportedError(f"\"{name}\" not implemented for '{type_name(input.dtype)}'")
    start = input.ndim - 3
    for axis, n in enumerate(input.shape[start:], start):
        if n == 0 and not (axis == start and 0 in size):
            raise ShapeError(
                f"{name}(): Expected input to have non-zero size for non-batch dimensions, but input has sizes "
                f"{list(input.shape)} with dimension {axis} being empty"
            )


def _adaptive_size1d(name: str, input: Tensor, output_size: Ints) -> int:
    if not isinstance(input, Tensor):
        raise DTypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
    if input.ndim not in (2, 3):
        raise ShapeError(
            f"Expected 2 to 3 dimensions, but got {input.ndim}-dimensional tensor for argument #1 'self' (while "
            f"checking arguments for {name})"
        )
    count = len(output_size) if isinstance(output_size, Sequence) else 1
    message = f"{name}() argument 'output_size' should contain one int (got {count})"
    return ints(name, "output_size", output_size, 1, message)[0]


def _adaptive_size2d(name: str, input: Tensor, output_size: OutputSize) -> Pair:
    if not isinstance(input, Tensor):
        raise DTypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
    if input.ndim not in (3, 4):
        raise ShapeError(f"{name}(): Expected 3D or 4D tensor, but got: {list(input.shape)}")
    wanted = tuple(output_size) if isinstance(output_size, Sequence) else (output_size, output_size)
    if len(wanted) != 2:
        raise SettingError("output_size", output_size, f"{name}: output_size must be 2")
    sizes = [given if n is None else n for n, given in zip(wanted, input.shape[-2:], strict=True)]
    checked = ints(name, "output_size", sizes, 2, "")
    return checked[0], checked[1]


def _first(pooled: Pooled) -> Pooled:
    """Without the batch dimension."""
    return (pooled[0].squeeze(0), pooled[1].squeeze(0)) if isinstance(pooled, tuple) else pooled.squeeze(0)


def _unflattened(pooled: Pooled) -> Pooled:
    """Without the height."""
    return (pooled[0].squeeze(-2), pooled[1].squeeze(-2)) if isinstance(pooled, tuple) else pooled.squeeze(-2)
