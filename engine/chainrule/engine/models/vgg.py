"""VGG-11: plain convolutions and three linear layers, with torchvision's arguments and names.

Source: Simonyan and Zisserman, https://arxiv.org/abs/1409.1556, configuration A.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

from chainrule.engine import nn
from chainrule.engine.models.registry import MAX_CLASSES, register, require_within
from chainrule.engine.models.weights import Weights, build_pretrained
from chainrule.engine.random import Generator
from chainrule.engine.tensor import Tensor

_channels = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # of the convolutions before each pooling
_widths = (512 * 7 * 7, 4096, 4096)


@dataclass(frozen=True, slots=True)
class VGG11Config:
    """The settings of a VGG-11."""

    num_classes: int = 1000
    """Classes to tell apart."""
    dropout: float = 0.5
    """The share of features that are dropped while training, after each of the first two linear layers."""
    init_weights: bool = True
    """Whether the parameters begin as those of torchvision's VGG, rather than of its layers."""

    def __post_init__(self) -> None:
        require_within("num_classes", self.num_classes, 1, MAX_CLASSES)
        require_within("dropout", self.dropout, 0, 1)

    @property
    def num_parameters(self) -> int:
        """Σ (9a + 1)·b over the channels of neighbouring convolutions, Σ (a + 1)·b over those of linear layers."""
        channels = (3, *itertools.chain(*_channels))
        convolutions = sum((9 * narrow + 1) * wide for narrow, wide in itertools.pairwise(channels))
        widths = (*_widths, self.num_classes)
        return convolutions + sum((narrow + 1) * wide for narrow, wide in itertools.pairwise(widths))


class VGG(nn.Module):
    """Features (N, 512, H, W) averaged to 7×7, then three linear layers with ReLU and dropout between them."""

    def __init__(
        self, features: nn.Module, num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(_widths):
            layers += [nn.Linear(narrow, wide), nn.ReLU(inplace=True), nn.Dropout(p=dropout)]
        self.classifier = nn.Sequential(*layers, nn.Linear(_widths[-1], num_classes))
        if init_weights:
            self._initialise()

    def _initialise(self) -> None:
        """Convolutions from N(0, 2 / fan_out), linear layers from N(0, 0.01²), biases at 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


def vgg11_features() -> nn.Sequential:
    """The eight convolutions of a VGG-11, each with ReLU, and five poolings: images (N, 3, H, W) to (N, 512, h, w)."""
    layers: list[nn.Module] = []
    narrow = 3
    for group in _channels:
        for wide in group:
            layers += [nn.Conv2d(narrow, wide, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
            narrow = wide
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(*layers)


def _make(config: VGG11Config) -> VGG:
    return VGG(vgg11_features(), config.num_classes, config.init_weights, config.dropout)


register("vgg11", "VGG-11: 8 convolutions and 3 linear layers", VGG11Config, _make)


def vgg11(
    pretrained: Weights = False,
    *,
    weights: Weights = None,
    progress: bool = True,  # noqa: ARG001 - torchvision's, of a download
    num_classes: int = 1000,
    generator: Generator | None = None,
    **settings: object,
) -> VGG:
    """A VGG-11; see `VGG11Config`, and `weights.build_pretrained` for `pretrained`, `weights` and the errors."""
    config = {"num_classes": num_classes, **settings}
    return cast(VGG, build_pretrained("vgg11", config, pretrained, weights, generator))
