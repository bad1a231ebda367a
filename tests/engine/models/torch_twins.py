"""The networks of `models`, written with torch.nn as plainly as can be, with torchvision's names.

They are what our models are compared with where torchvision is not installed.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from typing import Any

import pytest


def twin(name: str, **settings: Any) -> Any:
    """PyTorch's network of this name: torchvision's where it is installed, else ours of torch.nn."""
    try:
        torchvision = importlib.import_module("torchvision.models")
    except ImportError:
        if name.startswith("resnet"):
            return resnet(name, **settings)
        return (vgg11 if name == "vgg11" else mobilenet_v2)(**settings)
    return getattr(torchvision, name)(weights=None, **settings)


def _torch() -> Any:
    return pytest.importorskip("torch")


# ---- ResNet ----


def _residual(inplanes: int, planes: int, stride: int, deep: bool) -> Any:
    """A BasicBlock, or with `deep` a Bottleneck."""
    nn = _torch().nn

    class Residual(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            basic = [(3, stride, planes), (3, 1, planes)]
            bottleneck = [(1, 1, planes), (3, stride, planes), (1, 1, 4 * planes)]
            convolutions = bottleneck if deep else basic
            self.depth = len(convolutions)
            channels = inplanes
            for number, (k, s, out) in enumerate(convolutions, start=1):
                setattr(self, f"conv{number}", nn.Conv2d(channels, out, k, s, k // 2, bias=False))
                setattr(self, f"bn{number}", nn.BatchNorm2d(out))
                channels = out
            self.downsample = None
            if stride != 1 or inplanes != channels:
                self.downsample = nn.Sequential(
                    nn.Conv2d(inplanes, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
                )

        def forward(self, x: Any) -> Any:
            y = x
            for number in range(1, self.depth + 1):
                y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
                if number < self.depth:
                    y = y.relu()
            return (y + (x if self.downsample is None else self.downsample(x))).relu()

    return Residual()


def resnet(name: str, num_classes: int = 1000) -> Any:
    """ResNet-18, 34 or 50."""
    nn = _torch().nn
    deep = name == "resnet50"
    layers = (2, 2, 2, 2) if name == "resnet18" else (3, 4, 6, 3)
    channels = 64
    parts = OrderedDict(
        conv1=nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        bn1=nn.BatchNorm2d(64),
        relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(3, 2, 1),
    )
    for number, (planes, count) in enumerate(zip((64, 128, 256, 512), layers, strict=True), start=1):
        blocks = []
        for block in range(count):
            blocks.append(_residual(channels, planes, 2 if block == 0 and number > 1 else 1, deep))
            channels = planes * (4 if deep else 1)
        parts[f"layer{number}"] = nn.Sequential(*blocks)
    parts["avgpool"], parts["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    parts["fc"] = nn.Linear(channels, num_classes)
    return nn.Sequential(parts)


# ---- VGG ----


def vgg11(num_classes: int = 1000, dropout: float = 0.5) -> Any:
    """VGG-11."""
    nn = _torch().nn
    features: list[Any] = []
    channels = 3
    for part in ("64", "M", "128", "M", "256", "256", "M", "512", "512", "M", "512", "512", "M"):
        if part == "M":
            features.append(nn.MaxPool2d(2))
        else:
            features += [nn.Conv2d(channels, int(part), 3, padding=1), nn.ReLU()]
            channels = int(part)
    classifier = nn.Sequential(
        nn.Linear(512 * 49, 4096),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(4096, num_classes),
    )
    parts = OrderedDict(
        features=nn.Sequential(*features),
        avgpool=nn.AdaptiveAvgPool2d(7),
        flatten=nn.Flatten(),
        classifier=classifier,
    )
    return nn.Sequential(parts)


# ---- MobileNetV2 ----


def _convolution(channels: int, out: int, kernel: int, stride: int, groups: int) -> Any:
    nn = _torch().nn
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6())


def _inverted(channels: int, out: int, stride: int, expansion: int) -> Any:
    nn = _torch().nn

    class Inverted(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            hidden = channels * expansion
            wider = [_convolution(channels, hidden, 1, 1, 1)] if expansion > 1 else []
            self.conv = nn.Sequential(
                *wider,
                _convolution(hidden, hidden, 3, stride, hidden),
                nn.Conv2d(hidden, out, 1, bias=False),
                nn.BatchNorm2d(out),
            )

        def forward(self, x: Any) -> Any:
            return x + self.conv(x) if stride == 1 and channels == out else self.conv(x)

    return Inverted()


def mobilenet_v2(num_classes: int = 1000, dropout: float = 0.2) -> Any:
    """MobileNetV2 of width 1."""
    nn = _torch().nn
    features = [_convolution(3, 32, 3, 2, 1)]
    channels = 32
    groups = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    for expansion, out, count, stride in groups:
        for number in range(count):
            features.append(_inverted(channels, out, stride if number == 0 else 1, expansion))
            channels = out
    features.append(_convolution(320, 1280, 1, 1, 1))
    parts = OrderedDict(
        features=nn.Sequential(*features),
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=nn.Sequential(nn.Dropout(dropout), nn.Linear(1280, num_classes)),
    )
    return nn.Sequential(parts)
