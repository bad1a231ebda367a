"""Residual networks: ResNet-18, 34 and 50, with torchvision's arguments and names.

Source: He et al., Deep residual learning for image recognition, https://arxiv.org/abs/1512.03385; the stride of a
Bottleneck is in its 3×3 convolution, as in torchvision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from chainrule.engine import nn
from chainrule.engine.errors import ConfigError, UnsupportedError
from chainrule.engine.models.registry import MAX_CLASSES, register, require_within
from chainrule.engine.models.weights import Weights, build_pretrained
from chainrule.engine.nn import fusing
from chainrule.engine.random import Generator
from chainrule.engine.tensor import Tensor

MAX_GROUPS = 64
MAX_WIDTH_PER_GROUP = 1024

_planes = (64, 128, 256, 512)

# ---- Blocks ----


def conv3x3(in_planes: int, out_planes: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A 3×3 convolution that keeps height and width, but for its stride."""
    return nn.Conv2d(in_planes, out_planes, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False)


def conv1x1(in_planes: int, out_planes: int, stride: int = 1) -> nn.Conv2d:
    """A 1×1 convolution: a linear map of the channels."""
    return nn.Conv2d(in_planes, out_planes, 1, stride, bias=False)


class BasicBlock(nn.Module):
    """y = relu(x + f(x)), f two 3×3 convolutions with batch normalisation; x goes through `downsample` if given.

    Raises:
        ConfigError: groups or a width other than the default.
        UnsupportedError: a dilation.
    """

    expansion: ClassVar[int] = 1  # of channels, from `planes` to the output

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        norm = norm_layer or nn.BatchNorm2d
        if groups != 1 or base_width != 64:
            raise ConfigError("groups", groups, "BasicBlock only supports groups=1 and base_width=64")
        if dilation > 1:
            raise UnsupportedError("Dilation > 1 not supported in BasicBlock")
        self.conv1 = conv3x3(inplanes, planes, stride)
        self.bn1 = norm(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = norm(planes)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = fusing.run((self.conv1, self.bn1, self.relu, self.conv2, self.bn2), x)
        y: Tensor = self.relu(out + identity)
        return y


class Bottleneck(nn.Module):
    """y = relu(x + f(x)), f a 3×3 convolution between 1×1 convolutions to fewer channels and back."""

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        norm = norm_layer or nn.BatchNorm2d
        width = bottleneck_width(planes, groups, base_width)
        self.conv1 = conv1x1(inplanes, width)
        self.bn1 = norm(width)
        self.conv2 = conv3x3(width, width, stride, groups, dilation)
        self.bn2 = norm(width)
        self.conv3 = conv1x1(width, planes * self.expansion)
        self.bn3 = norm(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = fusing.run((self.conv1, self.bn1, self.relu, self.conv2, self.bn2, self.relu, self.conv3, self.bn3), x)
        y: Tensor = self.relu(out + identity)
        return y


def bottleneck_width(planes: int, groups: int, width_per_group: int) -> int:
    """The channels of a Bottleneck's 3×3 convolution."""
    return int(planes * (width_per_group / 64)) * groups


Block = BasicBlock | Bottleneck

# ---- The network ----


class ResNet(nn.Module):
    """A convolution, four layers of blocks, the average over the image, a linear classifier.

    Args:
        block: BasicBlock or Bottleneck.
        layers: the number of blocks in each of the four layers.
        num_classes: classes to tell apart.
        zero_init_residual: each block begins as the identity: its last normalisation has weight 0.
        groups: of the 3×3 convolutions of a Bottleneck.
        width_per_group: their channels for each group, for 64 planes.
        replace_stride_with_dilation: for the last three layers, whether dilation takes the place of the stride.
        norm_layer: what makes a normalisation of a number of channels; None: BatchNorm2d.
    """

    def __init__(
        self,
        block: type[Block],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] | None = None,
        norm_layer: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        dilate = tuple(replace_stride_with_dilation or (False, False, False))
        check_dilate(dilate)
        self._norm_layer = norm_layer or nn.BatchNorm2d
        self.inplanes = 64
        self.dilation = 1
        self.groups = groups
        self.base_width = width_per_group
        self.conv1 = nn.Conv2d(3, self.inplanes, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = self._norm_layer(self.inplanes)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, 64, layers[0])
        self.layer2 = self._make_layer(block, 128, layers[1], stride=2, dilate=dilate[0])
        self.layer3 = self._make_layer(block, 256, layers[2], stride=2, dilate=dilate[1])
        self.layer4 = self._make_layer(block, 512, layers[3], stride=2, dilate=dilate[2])
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        self._initialise(zero_init_residual)

    def _make_layer(
        self, block: type[Block], planes: int, blocks: int, stride: int = 1, dilate: bool = False
    ) -> nn.Sequential:
        first_dilation = self.dilation
        if dilate:
            self.dilation *= stride
            stride = 1
        downsample = None
        if stride != 1 or self.inplanes != planes * block.expansion:
            downsample = nn.Sequential(
                conv1x1(self.inplanes, planes * block.expansion, stride), self._norm_layer(planes * block.expansion)
            )
        settings: dict[str, Any] = {
            "groups": self.groups,
            "base_width": self.base_width,
            "norm_layer": self._norm_layer,
        }
        made = [block(self.inplanes, planes, stride, downsample, dilation=first_dilation, **settings)]
        self.inplanes = planes * block.expansion
        made += [block(self.inplanes, planes, dilation=self.dilation, **settings) for _ in range(1, blocks)]
        return nn.Sequential(*made)

    def _initialise(self, zero_init_residual: bool) -> None:
        """Convolutions from N(0, 2 / fan_out); normalisations begin at 1 and 0, as they do by themselves."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, Block):
                last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
                if last.weight is not None:
                    nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = fusing.run((self.conv1, self.bn1, self.relu, self.maxpool), x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def check_dilate(dilate: Sequence[bool]) -> None:
    """Raises ConfigError unless there is one choice for each of three layers."""
    if len(dilate) != 3:
        raise ConfigError(
            "replace_stride_with_dilation",
            tuple(dilate),
            "replace_stride_with_dilation should be None or a 3-element tuple, one for each of the last three layers",
        )


# ---- The families ----


@dataclass(frozen=True, slots=True)
class BasicResNetConfig:
    """The settings of a ResNet of BasicBlocks."""

    num_classes: int = 1000
    """Classes to tell apart."""
    zero_init_residual: bool = False
    """Whether each block begins as the identity: its last normalisation has weight 0."""

    layers: ClassVar[tuple[int, ...]]

    def __post_init__(self) -> None:
        require_within("num_classes", self.num_classes, 1, MAX_CLASSES)

    @property
    def num_parameters(self) -> int:
        """The sum over the blocks, each two 3×3 convolutions and a 1×1 where the channels change."""
        total = _first + (512 + 1) * self.num_classes
        for inplanes, planes in _blocks(self.layers, BasicBlock.expansion):
            total += _normalised(inplanes, planes, 9) + _normalised(planes, planes, 9)
            total += _normalised(inplanes, planes, 1) if inplanes != planes else 0
        return total


@dataclass(frozen=True, slots=True)
class BottleneckResNetConfig:
    """The settings of a ResNet of Bottlenecks."""

    num_classes: int = 1000
    """Classes to tell apart."""
    zero_init_residual: bool = False
    """Whether each block begins as the identity: its last normalisation has weight 0."""
    groups: int = 1
    """Groups of the 3×3 convolutions."""
    width_per_group: int = 64
    """Channels of a group, in the first layer; each layer has twice as many."""
    replace_stride_with_dilation: tuple[bool, ...] | None = None
    """For each of the last three layers, whether dilation takes the place of the stride; None: nowhere."""

    layers: ClassVar[tuple[int, ...]]

    def __post_init__(self) -> None:
        require_within("num_classes", self.num_classes, 1, MAX_CLASSES)
        require_within("groups", self.groups, 1, MAX_GROUPS)
        require_within("width_per_group", self.width_per_group, 1, MAX_WIDTH_PER_GROUP)
        if self.replace_stride_with_dilation is not None:
            check_dilate(self.replace_stride_with_dilation)

    @property
    def num_parameters(self) -> int:
        """The sum over the blocks: 1×1, 3×3 and 1×1 convolutions, and another 1×1 where the channels change."""
        total = _first + (4 * 512 + 1) * self.num_classes
        for inplanes, planes in _blocks(self.layers, Bottleneck.expansion):
            width, out = bottleneck_width(planes, self.groups, self.width_per_group), 4 * planes
            total += _normalised(inplanes, width, 1) + _normalised(width // self.groups, width, 9)
            total += _normalised(width, out, 1) + (_normalised(inplanes, out, 1) if inplanes != out else 0)
        return total


class ResNet18Config(BasicResNetConfig):
    """The settings of a ResNet-18."""

    layers = (2, 2, 2, 2)


class ResNet34Config(BasicResNetConfig):
    """The settings of a ResNet-34."""

    layers = (3, 4, 6, 3)


class ResNet50Config(BottleneckResNetConfig):
    """The settings of a ResNet-50."""

    layers = (3, 4, 6, 3)


def _normalised(channels: int, out: int, window: int) -> int:
    """The parameters of a convolution over `channels` with a window of so many pixels, and of its normalisation."""
    return channels * out * window + 2 * out


_first = _normalised(3, 64, 49)


def _blocks(layers: Sequence[int], expansion: int) -> Iterator[tuple[int, int]]:
    """Of each block the channels that come in, and its planes."""
    inplanes = 64
    for planes, blocks in zip(_planes, layers, strict=True):
        for _ in range(blocks):
            yield inplanes, planes
            inplanes = planes * expansion


def _make_basic(config: BasicResNetConfig) -> ResNet:
    return ResNet(BasicBlock, config.layers, config.num_classes, config.zero_init_residual)


def _make_bottleneck(config: BottleneckResNetConfig) -> ResNet:
    return ResNet(
        Bottleneck,
        config.layers,
        config.num_classes,
        config.zero_init_residual,
        config.groups,
        config.width_per_group,
        config.replace_stride_with_dilation,
    )


register("resnet18", "ResNet-18: 8 residual blocks of two 3×3 convolutions", ResNet18Config, _make_basic)
register("resnet34", "ResNet-34: 16 residual blocks of two 3×3 convolutions", ResNet34Config, _make_basic)
register("resnet50", "ResNet-50: 16 residual blocks of 1×1, 3×3, 1×1 convolutions", ResNet50Config, _make_bottleneck)


def resnet18(
    pretrained: Weights = False,
    *,
    weights: Weights = None,
    progress: bool = True,  # noqa: ARG001 - torchvision's, of a download
    num_classes: int = 1000,
    generator: Generator | None = None,
    **settings: object,
) -> ResNet:
    """A ResNet-18; see `ResNet18Config`, and `weights.build_pretrained` for `pretrained`, `weights` and the errors."""
    config = {"num_classes": num_classes, **settings}
    return cast(ResNet, build_pretrained("resnet18", config, pretrained, weights, generator))


def resnet34(
    pretrained: Weights = False,
    *,
    weights: Weights = None,
    progress: bool = True,  # noqa: ARG001
    num_classes: int = 1000,
    generator: Generator | None = None,
    **settings: object,
) -> ResNet:
    """A ResNet-34; see `ResNet34Config`, and `weights.build_pretrained` for `pretrained`, `weights` and the errors."""
    config = {"num_classes": num_classes, **settings}
    return cast(ResNet, build_pretrained("resnet34", config, pretrained, weights, generator))


def resnet50(
    pretrained: Weights = False,
    *,
    weights: Weights = None,
    progress: bool = True,  # noqa: ARG001
    num_classes: int = 1000,
    generator: Generator | None = None,
    **settings: object,
) -> ResNet:
    """A ResNet-50; see `ResNet50Config`, and `weights.build_pretrained` for `pretrained`, `weights` and the errors."""
    config = {"num_classes": num_classes, **settings}
    return cast(ResNet, build_pretrained("resnet50", config, pretrained, weights, generator))
