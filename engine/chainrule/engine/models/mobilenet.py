"""MobileNetV2: inverted residuals with depthwise convolutions, with torchvision's arguments and names.

Source: Sandler et al., MobileNetV2, https://arxiv.org/abs/1801.04381
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from chainrule.engine import nn
from chainrule.engine.errors import ConfigError
from chainrule.engine.models.registry import MAX_CLASSES, register, require_within
from chainrule.engine.models.weights import Weights, build_pretrained
from chainrule.engine.nn import functional as F
from chainrule.engine.random import Generator
from chainrule.engine.tensor import Tensor

MAX_WIDTH_MULT = 16
MAX_ROUND_NEAREST = 1024

NormLayer = Callable[[int], nn.Module]

# Of each group of blocks: expansion, channels for width_mult = 1, blocks, stride of the first.
inverted_residuals = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def make_divisible(value: float, divisor: int) -> int:
    """The multiple of `divisor` that is nearest to `value`, at least one of it, and no more than a tenth below."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * value else rounded + divisor


class Conv2dNormActivation(nn.Sequential):
    """A convolution that keeps height and width but for its stride, a normalisation, and ReLU6."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        norm_layer: NormLayer | None = None,
    ) -> None:
        super().__init__(
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding=(kernel_size - 1) // 2,
                groups=groups,
                bias=False,
            ),
            (norm_layer or nn.BatchNorm2d)(out_channels),
            nn.ReLU6(inplace=True),
        )
        self.out_channels = out_channels


class InvertedResidual(nn.Module):
    """More channels by a 1×1 convolution, each of them convolved by itself, then fewer channels, without ReLU.

    The input is added where it has the shape of the output.
    """

    def __init__(self, inp: int, oup: int, stride: int, expand_ratio: int, norm_layer: NormLayer | None = None) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ConfigError("stride", stride, f"stride should be 1 or 2 instead of {stride}")
        hidden = round(inp * expand_ratio)
        layers: list[nn.Module] = []
        if expand_ratio != 1:
            layers.append(Conv2dNormActivation(inp, hidden, kernel_size=1, norm_layer=norm_layer))
        layers += [
            Conv2dNormActivation(hidden, hidden, stride=stride, groups=hidden, norm_layer=norm_layer),
            nn.Conv2d(hidden, oup, 1, bias=False),
            (norm_layer or nn.BatchNorm2d)(oup),
        ]
        self.stride = stride
        self.use_res_connect = stride == 1 and inp == oup
        self.conv = nn.Sequential(*layers)
        self.out_channels = oup

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.use_res_connect else y


class MobileNetV2(nn.Module):
    """A convolution, 17 inverted residuals, a 1×1 convolution, the average over the image, dropout, a classifier.

    Args:
        num_classes: classes to tell apart.
        width_mult: times which the channels are multiplied.
        inverted_residual_setting: (expansion, channels, blocks, stride) of each group of blocks; None: the usual.
        round_nearest: what channels are made multiples of.
        block: what makes a block; None: InvertedResidual.
        norm_layer: what makes a normalisation of a number of channels; None: BatchNorm2d.
        dropout: the share of features that are dropped while training.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        inverted_residual_setting: Sequence[Sequence[int]] | None = None,
        round_nearest: int = 8,
        block: Callable[..., nn.Module] | None = None,
        norm_layer: NormLayer | None = None,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        block = block or InvertedResidual
        groups = inverted_residuals if inverted_residual_setting is None else inverted_residual_setting
        if not groups or any(len(group) != 4 for group in groups):
            raise ConfigError(
                "inverted_residual_setting",
                inverted_residual_setting,
                "inverted_residual_setting should be non-empty or a 4-element list",
            )
        channels = make_divisible(32 * width_mult, round_nearest)
        features: list[nn.Module] = [Conv2dNormActivation(3, channels, stride=2, norm_layer=norm_layer)]
        for expansion, planes, blocks, first_stride in groups:
            wide = make_divisible(planes * width_mult, round_nearest)
            for number in range(blocks):
                stride = first_stride if number == 0 else 1
                features.append(block(channels, wide, stride, expand_ratio=expansion, norm_layer=norm_layer))
                channels = wide
        self.last_channel = make_divisible(1280 * max(1.0, width_mult), round_nearest)
        features.append(Conv2dNormActivation(channels, self.last_channel, kernel_size=1, norm_layer=norm_layer))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(p=dropout), nn.Linear(self.last_channel, num_classes))
        self._initialise()

    def _initialise(self) -> None:
        """Convolutions from N(0, 2 / fan_out), the classifier from N(0, 0.01²), its bias at 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1))
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


@dataclass(frozen=True, slots=True)
class MobileNetV2Config:
    """The settings of a MobileNetV2."""

    num_classes: int = 1000
    """Classes to tell apart."""
    width_mult: float = 1.0
    """Times which the channels are multiplied."""
    round_nearest: int = 8
    """What channels are made multiples of."""
    dropout: float = 0.2
    """The share of features that are dropped while training."""

    def __post_init__(self) -> None:
        require_within("num_classes", self.num_classes, 1, MAX_CLASSES)
        require_within("width_mult", self.width_mult, 0, MAX_WIDTH_MULT)
        require_within("round_nearest", self.round_nearest, 1, MAX_ROUND_NEAREST)
        require_within("dropout", self.dropout, 0, 1)

    @property
    def num_parameters(self) -> int:
        """The sum over the convolutions, of a·b·window weights and γ, β of the normalisation, and the classifier."""
        channels = self._width(32)
        total = 3 * 9 * channels + 2 * channels
        for expansion, planes, blocks, _ in inverted_residuals:
            for _ in range(blocks):
                hidden, wide = channels * expansion, self._width(planes)
                total += (channels * hidden + 2 * hidden if expansion != 1 else 0) + (9 + 2) * hidden
                total += hidden * wide + 2 * wide
                channels = wide
        last = make_divisible(1280 * max(1.0, self.width_mult), self.round_nearest)
        return total + channels * last + 2 * last + (last + 1) * self.num_classes

    def _width(self, channels: int) -> int:
        return make_divisible(channels * self.width_mult, self.round_nearest)


def _make(config: MobileNetV2Config) -> MobileNetV2:
    return MobileNetV2(
        config.num_classes, config.width_mult, round_nearest=config.round_nearest, dropout=config.dropout
    )


register("mobilenet_v2", "MobileNetV2: 17 inverted residuals", MobileNetV2Config, _make)


def mobilenet_v2(
    pretrained: Weights = False,
    *,
    weights: Weights = None,
    progress: bool = True,  # noqa: ARG001 - torchvision's, of a download
    num_classes: int = 1000,
    generator: Generator | None = None,
    **settings: object,
) -> MobileNetV2:
    """A MobileNetV2; see `MobileNetV2Config`, and `weights.build_pretrained` for `pretrained` and the errors."""
    config = {"num_classes": num_classes, **settings}
    return cast(MobileNetV2, build_pretrained("mobilenet_v2", config, pretrained, weights, generator))
