"""Convolutions and transposed convolutions, in one and two dimensions.

In one dimension they are those of images one pixel high. A transposed convolution is the gradient of a convolution by
its input.
"""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.engine.dtypes import Array, float32, is_low_precision
from chainrule.engine.errors import DTypeError, ShapeError
from chainrule.engine.functions.autocast import active, is_autocast_enabled, lowered
from chainrule.engine.kernels.geometry import ConvGeometry
from chainrule.engine.nn.functional.arguments import Ints, check_same_dtype, ints
from chainrule.engine.nn.functional.checks import SettingError
from chainrule.engine.nn.functional.padding import pad
from chainrule.engine.ops import convolution
from chainrule.engine.tensor import Tensor
from chainrule.engine.watching import watched

# ---- Convolutions ----


@watched
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation of (N, C, L), or of (C, L), with weight (O, C / groups, K); errors as in conv2d."""
    return _convolution("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation of images (N, C, H, W), or of one (C, H, W), with weight (O, C / groups, KH, KW).

    Args:
        padding: zeros on each side; "valid" for none; "same" for as many as leave the image its size, of which the
            odd one goes behind.

    Raises:
        ShapeError: the shapes do not fit, or the image is smaller than the window.
        SettingError: a setting is out of range.
        DTypeError: the dtypes differ.
    """
    return _convolution("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv2d_affine(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints | str,
    dilation: Ints,
    groups: int,
    affine: tuple[Array, Array],
) -> Tensor:
    """`conv2d`, then scaled and shifted channel by channel: without a gradient."""
    return _convolution("conv2d", 2, input, weight, bias, stride, padding, dilation, groups, affine)


def _convolution(
    name: str,
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints | str,
    dilation: Ints,
    groups: int,
    affine: tuple[Array, Array] | None = None,
) -> Tensor:
    rounds = False
    if active and is_autocast_enabled("cpu"):
        rounds = _rounds(input, weight, bias)
        input, weight, bias = (*lowered(input), weight, bias) if rounds else lowered(input, weight, bias)
    _check_tensors(name, dims, input, weight)
    if input.ndim == dims + 1:
        batch = input.unsqueeze(0)
        return _convolution(name, dims, batch, weight, bias, stride, padding, dilation, groups, affine).squeeze(0)
    steps, spread = _setting(name, "stride", stride, dims), _setting(name, "dilation", dilation, dims)
    _check_geometry(steps, spread, groups)
    if isinstance(padding, str):
        input, margin = _worded_padding(padding, input, weight.shape[2:], steps, spread)
    else:
        margin = _setting(name, "padding", padding, dims)
        if min(margin) < 0:
            raise SettingError("padding", padding, "negative padding is not supported")
    _check_shapes(input, weight, bias, groups)
    _check_window(input.shape[2:], weight.shape[2:], margin, spread)
    if not rounds:
        check_same_dtype(name, input, weight, bias)
    if dims == 2:
        geometry = _geometry(steps, margin, spread, groups)
        return convolution.conv2d(input, weight, bias, geometry=geometry, affine=affine)
    y = convolution.conv2d(
        input.unsqueeze(2), weight.unsqueeze(2), bias, geometry=_geometry(steps, margin, spread, groups)
    )
    return y.squeeze(2)


def _rounds(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether parameters stay float32 in lower precision: kernels round them on the way, and give exact gradients."""
    tensors = [input, weight] if bias is None else [input, weight, bias]
    if not all(isinstance(v, Tensor) for v in tensors):
        return False
    return (is_low_precision(input.dtype) or input.dtype == float32) and all(v.dtype == float32 for v in tensors[1:])


def _worded_padding(
    padding: str, input: Tensor, window: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[Tensor, tuple[int, ...]]:
    """The padding meant by "valid" or "same", and the input, to which where the sum is odd one more is added behind."""
    if padding == "valid":
        return input, (0,) * len(window)
    if padding != "same":
        raise SettingError("padding", padding, f"Invalid padding string: '{padding}'")
    if max(stride) > 1:
        raise SettingError("padding", padding, "padding='same' is not supported for strided convolutions")
    total = same_padding(window, dilation)
    if any(n % 2 for n in total):
        input = pad(input, [n for size in reversed(total) for n in (0, size % 2)])
    return input, tuple(n // 2 for n in total)


def same_padding(window: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """How much padding, before and behind together, leaves an image its size."""
    return tuple(d * (n - 1) for n, d in zip(window, dilation, strict=True))


# ---- Transposed convolutions ----


@watched
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """The transposed convolution of (N, C, L), or of (C, L), with weight (C, O / groups, K); errors as in conv2d."""
    return _transposed("conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """The transposed convolution of images (N, C, H, W), or of one (C, H, W), with weight (C, O / groups, KH, KW).

    y[n, o, i·s + k·d − p, j·s + l·d − p] += x[n,c,i,j] · w[c,o,k,l], with y of height
    (H − 1)·s − 2·p + d·(KH − 1) + output_padding + 1.

    Raises:
        ShapeError: the shapes do not fit, or nothing is left of the output.
        SettingError: a setting is out of range.
        DTypeError: the dtypes differ.
    """
    return _transposed("conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def _transposed(
    name: str,
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
) -> Tensor:
    if active:
        input, weight, bias = lowered(input, weight, bias)
    _check_tensors(name, dims, input, weight)
    if input.ndim == dims + 1:
        batch = input.unsqueeze(0)
        y = _transposed(name, dims, batch, weight, bias, stride, padding, output_padding, groups, dilation)
        return y.squeeze(0)
    steps, spread = _setting(name, "stride", stride, dims), _setting(name, "dilation", dilation, dims)
    margin, behind = _setting(name, "padding", padding, dims), _setting(name, "output_padding", output_padding, dims)
    for field, value, numbers in (("padding", padding, margin), ("output_padding", output_padding, behind)):
        if min(numbers) < 0:
            raise SettingError(field, value, f"negative {field} is not supported")
    _check_geometry(steps, spread, groups)
    _check_shapes(input, weight, bias, groups, transposed=True)
    _check_output_padding(output_padding, behind, steps, spread)
    size = [
        (input.shape[2 + i] - 1) * steps[i] - 2 * margin[i] + spread[i] * (weight.shape[2 + i] - 1) + 1
        for i in range(dims)
    ]
    total = [n + extra for n, extra in zip(size, behind, strict=True)]
    if min(total) < 1:
        raise ShapeError(
            f"Given input size per channel: ({_by(input.shape[2:])}). Calculated output size per channel: "
            f"({_by(total)}). Output size is too small"
        )
    check_same_dtype(name, input, weight, bias)
    if dims == 1:
        input, weight = input.unsqueeze(2), weight.unsqueeze(2)
    channels = weight.shape[1] * groups
    lead = (len(input), channels, *[1] * (2 - dims))
    if all(n < step for n, step in zip(behind, steps, strict=True)):
        geometry = _geometry(steps, margin, spread, groups)
        y = convolution.conv2d_input(input, weight, bias, shape=(*lead, *total), geometry=geometry)
    else:  # there would be room for one more place of the window: the margins are cut off and put on afterwards
        whole = tuple(n + 2 * p for n, p in zip(size, margin, strict=True))
        geometry = _geometry(steps, (0,) * dims, spread, groups)
        y = convolution.conv2d_input(input, weight, shape=(*lead, *whole), geometry=geometry)
        y = pad(y, [n for p, extra in zip(margin[::-1], behind[::-1], strict=True) for n in (-p, extra - p)])
        y = y if bias is None else y + bias.reshape(-1, 1, 1)
    return y if dims == 2 else y.squeeze(2)


# ---- Arguments ----


def _setting(name: str, field: str, value: Ints, dims: int) -> tuple[int, ...]:
    given = list(value) if isinstance(value, Sequence) else value
    message = (
        f"expected {field} to be a single integer value or a list of {dims} values to match the convolution "
        f"dimensions, but got {field}={given}"
    )
    return ints(name, field, value, dims, message)


def _geometry(
    stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> ConvGeometry:
    """The geometry in two dimensions."""
    stride, dilation = (1,) * (2 - len(stride)) + stride, (1,) * (2 - len(dilation)) + dilation
    padding = (0,) * (2 - len(padding)) + padding
    return ConvGeometry((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), groups)


def _check_tensors(name: str, dims: int, input: Tensor, weight: Tensor) -> None:
    for position, (field, x) in enumerate((("input", input), ("weight", weight)), 1):
        if not isinstance(x, Tensor):
            raise DTypeError(
                f"{name}(): argument '{field}' (position {position}) must be Tensor, not {type(x).__name__}"
            )
    if input.ndim not in (dims + 1, dims + 2):
        raise ShapeError(
            f"Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to {name}, but got input of size: "
            f"{list(input.shape)}"
        )
    if weight.ndim != dims + 2:
        raise ShapeError(
            f"Expected {weight.ndim}-dimensional input for {weight.ndim}-dimensional weight {list(weight.shape)}, but "
            f"got {dims + 2}-dimensional input of size {list(input.shape)} instead"
        )


def _check_geometry(stride: tuple[int, ...], dilation: tuple[int, ...], groups: int) -> None:
    if min(stride) < 1:
        raise SettingError("stride", stride, "non-positive stride is not supported")
    if min(dilation) < 1:
        raise SettingError("dilation", dilation, f"dilation should be greater than zero, but got {list(dilation)}")
    if groups < 1:
        raise SettingError("groups", groups, "non-positive groups is not supported")


def _check_shapes(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, *, transposed: bool = False) -> None:
    size = list(weight.shape)
    if size[0] < groups:
        raise ShapeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, but got weight of size "
            f"{size} instead"
        )
    if size[0] % groups:
        raise ShapeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but got weight of "
            f"size [{size}] instead"
        )
    given = "transposed=1" if transposed else f"groups={groups}"
    channels, out = (size[0], size[1] * groups) if transposed else (size[1] * groups, size[0])
    if input.shape[1] != channels:
        raise ShapeError(
            f"Given {given}, weight of size {size}, expected input{list(input.shape)} to have {channels} channels, "
            f"but got {input.shape[1]} channels instead"
        )
    if bias is not None and bias.shape != (out,):
        given = "Given transposed=1, " if transposed else "Given "
        raise ShapeError(
            f"{given}weight of size {size}, expected bias to be 1-dimensional with {out} elements, but got bias of "
            f"size {list(bias.shape)} instead"
        )
    if min(size[2:]) < 1:
        raise ShapeError(f"kernel size should be greater than zero, but got {_by(size[2:])}")


def _check_window(size: Sequence[int], window: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> None:
    padded = [n + 2 * margin for n, margin in zip(size, padding, strict=True)]
    extent = [n + 1 for n in same_padding(window, dilation)]
    if any(n < k for n, k in zip(padded, extent, strict=True)):
        raise ShapeError(
            f"Calculated padded input size per channel: ({_by(padded)}). Kernel size: ({_by(extent)}). Kernel size "
            "can't be greater than actual input size"
        )


def _check_output_padding(given: Ints, behind: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> None:
    if all(n < max(step, d) for n, step, d in zip(behind, stride, dilation, strict=True)):
        return
    rows = zip(("height", "width")[-len(behind) :], behind, stride, dilation, strict=True)
    numbers = [
        (f"output_padding_{side}: {n}", f"stride_{side}: {step}", f"dilation_{side}: {d}") for side, n, step, d in rows
    ]
    found = " ".join(text for column in zip(*numbers, strict=True) for text in column)
    raise SettingError(
        "output_padding", given, f"output padding must be smaller than either stride or dilation, but got {found}"
    )


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
