"""A small convolutional network for small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from chainrule.engine import nn
from chainrule.engine.errors import ConfigError, ShapeError
from chainrule.engine.models.registry import MAX_CLASSES, build, register, require_within
from chainrule.engine.random import Generator
from chainrule.engine.tensor import Tensor

# The largest network needs about 1 GB for the forward pass of one image.
MAX_CHANNELS = 64
MAX_IMAGE_SIZE = 256
MAX_WIDTH = 512


@dataclass(frozen=True, slots=True)
class SmallCNNConfig:
    """The settings of a small CNN."""

    in_channels: int = 1
    """Channels of an image."""
    image_size: int = 8
    """Height and width of an image; at least 4, since it is halved twice."""
    width: int = 16
    """Channels after the first block; the second has twice as many."""
    num_classes: int = 10
    """Classes to tell apart."""
    dropout: float = 0.0
    """Share of the features that are left out before the classifier while training, from 0 to 1."""

    def __post_init__(self) -> None:
        require_within("in_channels", self.in_channels, 1, MAX_CHANNELS)
        require_within("width", self.width, 1, MAX_WIDTH)
        require_within("num_classes", self.num_classes, 1, MAX_CLASSES)
        if self.image_size < 4:
            raise ConfigError("image_size", self.image_size, "must be at least 4, since it is halved twice")
        require_within("image_size", self.image_size, 4, MAX_IMAGE_SIZE)
        require_within("dropout", self.dropout, 0, 1)

    @property
    def num_features(self) -> int:
        """What the blocks leave of an image: 2·width channels of (image_size / 4)²."""
        return 2 * self.width * (self.image_size // 4) ** 2

    @property
    def num_parameters(self) -> int:
        """The sum over both blocks, a convolution with bias and γ, β of the normalisation, and the classifier."""
        blocks = ((self.in_channels, self.width), (self.width, 2 * self.width))
        convolutions = sum((9 * narrow + 1) * wide + 2 * wide for narrow, wide in blocks)
        return convolutions + (self.num_features + 1) * self.num_classes


class SmallCNN(nn.Module):
    """Two blocks of convolution, batch normalisation, ReLU and pooling, then dropout and a linear classifier."""

    def __init__(self, config: SmallCNNConfig) -> None:
        super().__init__()
        width, size = config.width, config.image_size
        self.image_shape = (config.in_channels, size, size)
        self.conv1 = nn.Conv2d(config.in_channels, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(config.dropout) if config.dropout > 0 else None
        self.fc = nn.Linear(config.num_features, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.image_shape:  # before a convolution of something large
            raise ShapeError(
                f"small_cnn takes images of shape (N, {', '.join(map(str, self.image_shape))}), got {tuple(x.shape)}; "
                "give it such images, or set in_channels and image_size to theirs"
            )
        x = self.pool(self.relu(self.bn1(self.conv1(x))))
        x = self.pool(self.relu(self.bn2(self.conv2(x))))
        x = self.flatten(x)
        if self.dropout is not None:
            x = self.dropout(x)
        logits: Tensor = self.fc(x)
        return logits


register("small_cnn", "Two convolution blocks and a linear classifier", SmallCNNConfig, SmallCNN)


def small_cnn(
    in_channels: int = 1,
    image_size: int = 8,
    width: int = 16,
    num_classes: int = 10,
    dropout: float = 0.0,
    *,
    generator: Generator | None = None,
) -> SmallCNN:
    """A small convolutional network; see `SmallCNNConfig`."""
    config = {
        "in_channels": in_channels,
        "image_size": image_size,
        "width": width,
        "num_classes": num_classes,
        "dropout": dropout,
    }
    return cast(SmallCNN, build("small_cnn", config, generator=generator))
