"""Small networks of images and signals, written with torch.nn as a user would: one for each well-known architecture.

Only `zoo` imports this module, where PyTorch is installed.
"""
# mypy: allow-subclassing-any

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")
nn: Any = torch.nn
F: Any = torch.nn.functional
Module: Any = nn.Module

# ---- Pieces ----


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: Any = nn.ReLU) -> Any:
    """Convolution, BatchNorm, activation."""
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


class Classifier(Module):
    """Features, averaged over the image, and a linear layer."""

    def __init__(self, features: Any, channels: int, num_classes: int = 5) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Any) -> Any:
        return self.fc(torch.flatten(self.pool(self.features(x)), 1))


class SqueezeExcite(Module):
    def __init__(self, channels: int, reduced: int, gate: Any = nn.Sigmoid) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, reduced, 1)
        self.fc2 = nn.Conv2d(reduced, channels, 1)
        self.relu = nn.ReLU()
        self.gate = gate()

    def forward(self, x: Any) -> Any:
        return x * self.gate(self.fc2(self.relu(self.fc1(self.avgpool(x)))))


# ---- Residual networks ----


class BasicBlock(Module):
    def __init__(self, inplanes: int, planes: int, stride: int = 1, norm: Any = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = norm(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = norm(planes)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(nn.Conv2d(inplanes, planes, 1, stride, bias=False), norm(planes))

    def forward(self, x: Any) -> Any:
        identity = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += identity
        return self.relu(y)


class Bottleneck(Module):
    def __init__(self, inplanes: int, width: int, outputs: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inplanes, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inplanes != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Any) -> Any:
        identity = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + identity)


class ResNet(Module):
    def __init__(self, blocks: Any, stem: int, channels: int, norm: Any = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = norm(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for number, layer in enumerate(blocks, 1):
            setattr(self, f"layer{number}", nn.Sequential(*layer))
        self.layers = len(blocks)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, 5)

    def forward(self, x: Any) -> Any:
        y = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, self.layers + 1):
            y = getattr(self, f"layer{number}")(y)
        return self.fc(torch.flatten(self.avgpool(y), 1))


def resnet18() -> Any:
    sizes = [(4, 4, 1), (4, 8, 2), (8, 12, 2), (12, 16, 2)]
    return ResNet([[BasicBlock(i, o, s), BasicBlock(o, o)] for i, o, s in sizes], 4, 16)


def resnet50() -> Any:
    return ResNet([[Bottleneck(4, 4, 16), Bottleneck(16, 4, 16)], [Bottleneck(16, 8, 32, 2)]], 4, 32)


def resnext() -> Any:
    return ResNet([[Bottleneck(4, 8, 16, groups=4)], [Bottleneck(16, 16, 32, 2, groups=4)]], 4, 32)


def group_norm_resnet() -> Any:
    def norm(channels: int) -> Any:
        return nn.GroupNorm(2, channels)

    return ResNet([[BasicBlock(4, 4, norm=norm)], [BasicBlock(4, 8, 2, norm=norm)]], 4, 8, norm)


def senet() -> Any:
    return Classifier(nn.Sequential(conv_bn(3, 8), SqueezeExcite(8, 2), conv_bn(8, 8, 3, 2), SqueezeExcite(8, 2)), 8)


# ---- Networks for small machines ----


class InvertedResidual(Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expand: int, act: Any, squeeze: Any = None) -> None:
        super().__init__()
        self.use_res_connect = stride == 1 and inputs == outputs
        hidden = inputs * expand
        layers = [conv_bn(inputs, hidden, 1, act=act), conv_bn(hidden, hidden, 3, stride, hidden, act=act)]
        if squeeze is not None:
            layers.append(SqueezeExcite(hidden, max(2, hidden // 4), squeeze))
        self.conv = nn.Sequential(*layers, nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Any) -> Any:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


def mobilenet_v2() -> Any:
    blocks = [InvertedResidual(4, 4, 1, 2, nn.ReLU6), InvertedResidual(4, 8, 2, 3, nn.ReLU6)]
    return Classifier(nn.Sequential(conv_bn(3, 4, 3, 2, act=nn.ReLU6), *blocks, conv_bn(8, 16, 1, act=nn.ReLU6)), 16)


def mobilenet_v3() -> Any:
    blocks = [
        InvertedResidual(4, 4, 1, 2, nn.ReLU, nn.Hardsigmoid),
        InvertedResidual(4, 8, 2, 3, nn.Hardswish, nn.Hardsigmoid),
    ]
    return Classifier(nn.Sequential(conv_bn(3, 4, 3, 2, act=nn.Hardswish), *blocks), 8)


def efficientnet() -> Any:
    blocks = [InvertedResidual(4, 4, 1, 2, nn.SiLU, nn.Sigmoid), InvertedResidual(4, 8, 2, 2, nn.SiLU, nn.Sigmoid)]
    return Classifier(nn.Sequential(conv_bn(3, 4, 3, 2, act=nn.SiLU), *blocks, conv_bn(8, 12, 1, act=nn.SiLU)), 12)


class Fire(Module):
    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Any) -> Any:
        y = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(y)), F.relu(self.expand3x3(y))], 1)


def squeezenet() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(8, 4, 6),
        nn.Dropout(0.0),
        nn.Conv2d(12, 5, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class ShuffleUnit(Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv_bn(half, half, 1), conv_bn(half, half, 3, 1, half, None), conv_bn(half, half, 1)
        )

    def forward(self, x: Any) -> Any:
        left, right = x.chunk(2, dim=1)
        y = torch.cat((left, self.branch(right)), 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet() -> Any:
    return Classifier(nn.Sequential(conv_bn(3, 8, 3, 2), ShuffleUnit(8), ShuffleUnit(8)), 8)


# ---- Plain and branching networks ----


def lenet() -> Any:
    first = [nn.Conv2d(1, 4, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2)]
    second = [nn.Conv2d(4, 6, 5), nn.Tanh(), nn.AvgPool2d(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(24, 20), nn.Tanh(), nn.Linear(20, 5))


class AlexNet(Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, 2, 2),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(3),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(12, 16), nn.ReLU(inplace=True), nn.Linear(16, 5))

    def forward(self, x: Any) -> Any:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def alexnet() -> Any:
    return AlexNet()


def vgg_bn() -> Any:
    def block(i: int, o: int) -> list[Any]:
        return [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2)]

    return Classifier(nn.Sequential(*block(3, 4), *block(4, 8)), 8)


class DenseLayer(Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, 2 * growth, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(2 * growth), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Any) -> Any:
        y = self.conv2(self.relu2(self.norm2(self.conv1(self.relu1(self.norm1(x))))))
        return torch.cat([x, y], 1)


def densenet() -> Any:
    transition = [nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 6, 1, bias=False), nn.AvgPool2d(2, 2)]
    return Classifier(
        nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), DenseLayer(4, 4), DenseLayer(8, 4), *transition, DenseLayer(6, 4)), 10
    )


class Inception(Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1 = conv_bn(inputs, 4, 1)
        self.branch2 = nn.Sequential(conv_bn(inputs, 2, 1), conv_bn(2, 4, 3))
        self.branch3 = nn.Sequential(conv_bn(inputs, 2, 1), conv_bn(2, 4, 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(inputs, 4, 1))
        self.branch5 = conv_bn(inputs, 4, 1)

    def forward(self, x: Any) -> Any:
        average = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        rest = [self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)]
        return torch.cat([*rest, self.branch5(average)], 1)


def inception() -> Any:
    return Classifier(nn.Sequential(conv_bn(3, 6, 3, 2), Inception(6), nn.MaxPool2d(2), Inception(20)), 20)


class GoogLeNet(Module):
    """Two outputs: the classifier's, and an auxiliary one from halfway."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 6, 3, 2)
        self.first, self.second = Inception(6), Inception(20)
        self.aux = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(320, 5))
        self.fc = nn.Linear(20, 5)

    def forward(self, x: Any) -> Any:
        y = self.first(self.stem(x))
        return self.fc(self.second(y).mean((2, 3))), self.aux(y)


def googlenet() -> Any:
    return GoogLeNet()


def prelu_net() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1),
        nn.PReLU(6),
        nn.Conv2d(6, 8, 3, 2, 1),
        nn.PReLU(),
        nn.Flatten(),
        nn.Linear(128, 5),
        nn.LeakyReLU(0.1),
        nn.Linear(5, 5),
        nn.ELU(),
    )


class Attended(Module):
    """A convolutional block attention module: of channels by averages and maxima, then of places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Conv2d(2, channels, 1))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Any) -> Any:
        pooled = self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1))
        y = x * torch.sigmoid(pooled)
        places = torch.cat([y.mean(1, keepdim=True), y.max(1, keepdim=True)[0]], 1)
        return y * torch.sigmoid(self.spatial(places))


def cbam() -> Any:
    return Classifier(nn.Sequential(conv_bn(3, 8, 3, 2), Attended(8), conv_bn(8, 8)), 8)


# ---- Images out ----


class UNet(Module):
    def __init__(self, bilinear: bool) -> None:
        super().__init__()
        self.down1, self.down2 = conv_bn(3, 4), conv_bn(4, 8)
        self.bottom = conv_bn(8, 8)
        self.pool = nn.MaxPool2d(2)
        up: Any = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.up2 = up if bilinear else nn.ConvTranspose2d(8, 8, 2, 2)
        self.up1 = up if bilinear else nn.ConvTranspose2d(8, 8, 2, 2)
        self.join2, self.join1 = conv_bn(16, 8), conv_bn(12, 4)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x: Any) -> Any:
        high = self.down1(x)
        low = self.down2(self.pool(high))
        y = self.bottom(self.pool(low))
        y = self.join2(torch.cat([low, self.up2(y)], 1))
        return self.out(self.join1(torch.cat([high, self.up1(y)], 1)))


def unet() -> Any:
    return UNet(bilinear=False)


def unet_bilinear() -> Any:
    return UNet(bilinear=True)


class FCN(Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(conv_bn(3, 8, 3, 2), conv_bn(8, 8, 3, 2))
        self.classifier = nn.Sequential(conv_bn(8, 8), nn.Dropout(0.0), nn.Conv2d(8, 4, 1))

    def forward(self, x: Any) -> Any:
        y = self.classifier(self.backbone(x))
        return F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)


def fcn() -> Any:
    return FCN()


class Patchwork(Module):
    """What U-Net, MobileNetV3, style transfer, DenseNet and GoogLeNet have that others do not, once each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3, 2), nn.InstanceNorm2d(4, affine=True))
        self.gated = SqueezeExcite(4, 2, nn.Hardsigmoid)
        self.act = nn.Hardswish()
        self.up = nn.ConvTranspose2d(4, 4, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.aux = nn.Linear(4, 5)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        y = self.act(self.gated(self.stem(x)))
        z = self.norm(torch.cat([F.interpolate(y, scale_factor=2.0), self.up(F.gelu(y))], 1))
        return self.fc(F.max_pool2d(z, 3, 2).mean((2, 3))), self.aux(y.amax((2, 3)))


def patchwork() -> Any:
    return Patchwork()


def super_resolution() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1), nn.PixelShuffle(2), nn.Tanh()
    )


def style() -> Any:
    return nn.Sequential(
        nn.ReflectionPad2d(2),
        nn.Conv2d(3, 6, 5),
        nn.InstanceNorm2d(6, affine=True),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, 2, 1),
        nn.InstanceNorm2d(8, affine=True),
        nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(8, 3, 3, padding=1),
    )


def autoencoder() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, 2, 1),
        nn.Softplus(),
        nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 1, 3, 2, 1, output_padding=1),
        nn.Sigmoid(),
    )


# ---- Images as sequences ----


class ConvNeXtBlock(Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x: Any) -> Any:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.Sequential(ConvNeXtBlock(8), ConvNeXtBlock(8))
        self.norm = nn.LayerNorm(8, eps=1e-6)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.norm(self.blocks(self.stem(x)).mean([-2, -1])))


def convnext() -> Any:
    return ConvNeXt()


class Conv3d(Module):
    """Of volumes, which no kernel here convolves."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3)

    def forward(self, x: Any) -> Any:
        return self.conv(x).mean((2, 3, 4))


def conv3d() -> Any:
    return Conv3d()
