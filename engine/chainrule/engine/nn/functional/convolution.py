"""Convolutions."""

from __future__ import annotations

from chainrule.engine.errors import ConfigError, ShapeError, UnsupportedError
from chainrule.engine.kernels.geometry import ConvGeometry, Pair
from chainrule.engine.nn.functional.arguments import IntOrPair, check_same_dtype, check_window, pair
from chainrule.engine.ops import convolution
from chainrule.engine.tensor import Tensor


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Tensor:
    """The cross-correlation of images (N, C, H, W), or of one (C, H, W), with weight (O, C / groups, KH, KW).

    Raises:
        ShapeError: the shapes do not fit, or the image is smaller than the window.
        ConfigError: a setting is out of range.
    """
    if input.ndim == 3:
        return conv2d(input.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
    if input.ndim != 4 or weight.ndim != 4:
        raise ShapeError(
            f"Expected 3D (unbatched) or 4D (batched) input to conv2d, but got input of size: {list(input.shape)}"
        )
    stride, dilation = pair("stride", stride, minimum=1), pair("dilation", dilation, minimum=1)
    window = weight.shape[2], weight.shape[3]
    geometry = ConvGeometry(stride, conv_padding(padding, window, stride, dilation), dilation, groups)
    if groups < 1 or input.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ShapeError(
            f"Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have "
            f"{weight.shape[1] * groups} channels, but got {input.shape[1]} channels instead"
        )
    check_window("conv2d", input.shape, window, geometry.stride, geometry.padding, geometry.dilation)
    check_same_dtype("conv2d", input, weight, bias)
    return convolution.conv2d(input, weight, bias, geometry=geometry)


def conv_padding(padding: IntOrPair | str, window: Pair, stride: Pair, dilation: Pair) -> Pair:
    """The padding meant by a number, a pair, "valid" (none) or "same" (the output as large as the input).

    Raises:
        ConfigError: another word, or "same" with a stride.
        UnsupportedError: "same" with a window of even extent, which pads one side more.
    """
    if not isinstance(padding, str):
        return pair("padding", padding, minimum=0)
    if padding == "valid":
        return 0, 0
    if padding != "same":
        raise ConfigError("padding", padding, "choose a number, a pair, 'same' or 'valid'")
    if stride != (1, 1):
        raise ConfigError("padding", padding, "padding='same' is not supported for strided convolutions")
    total = [dilation[i] * (window[i] - 1) for i in (0, 1)]
    if total[0] % 2 or total[1] % 2:
        raise UnsupportedError(
            f"padding='same' with kernel size {window} and dilation {dilation} pads one side more than the other, "
            "which this version does not do; use an odd kernel size"
        )
    return total[0] // 2, total[1] // 2
