"""What is done to images before they are trained on: drawn anew in each epoch, and the same for whoever draws it.

Every draw is a function of (seed, epoch, sample, transform): a sample looks the same on whichever worker computes it,
and when it is computed again. Images are float32 arrays of shape (n, channels, height, width).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float32]
Draws = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

MAX_TRIES = 64
"""Most pairs that are drawn for one mixing weight: each is taken with probability ≥ 1/2."""
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def draws(key: int, samples: Indices, count: int) -> Draws:
    """`count` uniform numbers in [0, 1) for each sample, as a function of the key and the sample's index.

    SplitMix64 of a counter: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).

    Returns:
        shape (samples, count).
    """
    counters: Any = samples.astype(np.uint64)[:, None] * np.uint64(count) + np.arange(1, count + 1, dtype=np.uint64)
    z = np.uint64(key) + counters * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return np.asarray(z >> np.uint64(11), np.float64) * 2.0**-53


def draw_key(seed: int, *place: int, purpose: str = "transform") -> int:
    """A key of draws, for a place such as an epoch and the number of a transform."""
    packed = struct.pack(f"<{1 + len(place)}Q", seed, *place)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8, person=purpose.encode()).digest(), "little")


@dataclass(frozen=True)
class Transform:
    """One thing that is done to images."""

    num_draws: ClassVar[int] = 0
    """Random numbers that each image takes; 0: it is always the same, and done to images that are evaluated, too."""

    @property
    def kind(self) -> str:
        """Its name in KINDS."""
        [kind] = [name for name, transform in KINDS.items() if type(self) is transform]
        return kind

    def apply(self, images: Images, u: Draws) -> Images:
        """New images of what may be only read.

        Args:
            u: uniform numbers in [0, 1), (n, num_draws).
        """
        raise NotImplementedError

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width that images of a size have afterwards."""
        return size


@dataclass(frozen=True)
class Resize(Transform):
    """To a size, bilinear, without antialiasing: torch's interpolate(mode="bilinear", align_corners=False)."""

    height: int
    width: int

    def apply(self, images: Images, _u: Draws) -> Images:
        return resized(images, self.height, self.width)

    def size_of(self, _size: tuple[int, int]) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True)
class Normalize(Transform):
    """(x − mean) / std, per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, images: Images, _u: Draws) -> Images:
        mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        out = images - mean
        out /= std
        return out


@dataclass(frozen=True)
class RandomCrop(Transform):
    """A window of a size from the image, which is padded with zeros first."""

    num_draws: ClassVar[int] = 2
    height: int
    width: int
    padding: int = 0
    """On each side."""

    def apply(self, images: Images, u: Draws) -> Images:
        pad = self.padding
        padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad))) if pad else images
        tops = _below(u[:, 0], padded.shape[2] - self.height + 1)
        lefts = _below(u[:, 1], padded.shape[3] - self.width + 1)
        out = np.empty((*images.shape[:2], self.height, self.width), np.float32)
        for index, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
            out[index] = padded[index, :, top : top + self.height, left : left + self.width]
        return out

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Raises ValueError if the padded image is smaller."""
        for side, wanted, name in zip(size, (self.height, self.width), ("height", "width"), strict=True):
            if wanted > side + 2 * self.padding:
                raise ValueError(
                    f"{name} {wanted} is more than the image's {side} with {self.padding} of padding on each side; "
                    "crop less, or pad more"
                )
        return self.height, self.width


@dataclass(frozen=True)
class RandomResizedCrop(Transform):
    """A window of random area and shape, resized to a size."""

    num_draws: ClassVar[int] = 4
    height: int
    width: int
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and most area, as a share of the image's."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and most width over height; between them the logarithm is uniform."""

    def apply(self, images: Images, u: Draws) -> Images:
        height, width = images.shape[2:]
        area = (self.scale[0] + u[:, 0] * (self.scale[1] - self.scale[0])) * (height * width)
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = np.exp(low + u[:, 1] * (high - low))
        heights = np.clip(np.rint(np.sqrt(area / ratio)), 1, height).astype(np.int64)
        widths = np.clip(np.rint(np.sqrt(area * ratio)), 1, width).astype(np.int64)
        tops, lefts = _below(u[:, 2], height - heights + 1), _below(u[:, 3], width - widths + 1)
        out = np.empty((*images.shape[:2], self.height, self.width), np.float32)
        for index, (top, left, tall, wide) in enumerate(
            zip(tops.tolist(), lefts.tolist(), heights.tolist(), widths.tolist(), strict=True)
        ):
            window = images[index : index + 1, :, top : top + tall, left : left + wide]
            out[index] = resized(window, self.height, self.width)[0]
        return out

    def size_of(self, _size: tuple[int, int]) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True)
class RandomFlip(Transform):
    """Mirrored with a probability."""

    num_draws: ClassVar[int] = 1
    probability: float = 0.5
    vertical: bool = False
    """Top to bottom instead of left to right."""

    def apply(self, images: Images, u: Draws) -> Images:
        chosen = u[:, 0] < self.probability
        out = images.copy()
        out[chosen] = images[chosen, :, ::-1] if self.vertical else images[chosen, :, :, ::-1]
        return out


@dataclass(frozen=True)
class ColorJitter(Transform):
    """Brightness, contrast and saturation, in this order, each times a factor from 1 − its strength to 1 + it.

    Values are from 0 to 1, and stay there: it belongs before Normalize. Images have 3 channels, or 1, whose saturation
    cannot change. Source: torchvision.transforms.ColorJitter, without hue and with a fixed order.
    """

    num_draws: ClassVar[int] = 3
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def apply(self, images: Images, u: Draws) -> Images:
        strengths = np.array([self.brightness, self.contrast, self.saturation])
        factors = (1.0 + (2.0 * u - 1.0) * strengths).astype(np.float32)[..., None, None, None]
        out = images
        if self.brightness:
            out = np.clip(out * factors[:, 0], 0.0, 1.0)
        if self.contrast:
            mean = np.mean(_grey(out), axis=(2, 3), keepdims=True, dtype=np.float64).astype(np.float32)
            out = np.clip(mean + (out - mean) * factors[:, 1], 0.0, 1.0)
        if self.saturation and images.shape[1] == 3:
            grey = _grey(out)
            out = np.clip(grey + (out - grey) * factors[:, 2], 0.0, 1.0)
        return out


@dataclass(frozen=True)
class Cutout(Transform):
    """A square of zeros around a random place, cut off where it leaves the image. Source: DeVries and Taylor, "Improved
    regularization of convolutional neural networks with cutout" (2017)."""

    num_draws: ClassVar[int] = 3
    size: int
    """Its side."""
    probability: float = 1.0

    def apply(self, images: Images, u: Draws) -> Images:
        height, width = images.shape[2:]
        tops, lefts = (_below(u[:, column], side) for column, side in ((1, height), (2, width)))
        out = images.copy()
        for index in np.flatnonzero(u[:, 0] < self.probability).tolist():
            top, left = int(tops[index]) - self.size // 2, int(lefts[index]) - self.size // 2
            out[index, :, max(0, top) : max(0, top + self.size), max(0, left) : max(0, left + self.size)] = 0.0
        return out


KINDS: Mapping[str, type[Transform]] = {
    "resize": Resize,
    "normalize": Normalize,
    "random_crop": RandomCrop,
    "random_resized_crop": RandomResizedCrop,
    "random_flip": RandomFlip,
    "color_jitter": ColorJitter,
    "cutout": Cutout,
}
"""By the names that clients and the store know them by."""


@dataclass(frozen=True)
class Augmentation:
    """What a job does to its images."""

    transforms: tuple[Transform, ...] = ()
    """In order. Those that draw nothing are done to images that are evaluated, too."""
    mixup: float = 0.0
    """Each image is mixed with another of its global batch, and so are their losses, with a weight that is drawn for
    each step from Beta(mixup, mixup). 0: none; at most 1. Source: Zhang et al., "mixup: Beyond empirical risk
    minimization" (2018)."""

    def train(self, images: Images, samples: Indices, *, seed: int, epoch: int) -> Images:
        """Images as they are trained on in an epoch.

        Args:
            samples: which of the dataset's they are, (n,).
        """
        for number, transform in enumerate(self.transforms):
            images = transform.apply(images, draws(draw_key(seed, epoch, number), samples, transform.num_draws))
        return images

    @property
    def preparation(self) -> tuple[Transform, ...]:
        """What is done to all images, also those that are evaluated or predicted with."""
        return tuple(transform for transform in self.transforms if not transform.num_draws)

    def evaluate(self, images: Images) -> Images:
        """Images as they are evaluated."""
        return prepared(images, self.preparation)


def prepared(images: Images, preparation: Sequence[Transform]) -> Images:
    """Images after transforms that draw nothing."""
    nothing = np.empty((len(images), 0))
    for transform in preparation:
        images = transform.apply(images, nothing)
    return images


def mixing(alpha: float, samples: Indices, *, seed: int, step: int) -> tuple[Indices, float]:
    """Which example of a global batch each of it is mixed with, and the weight of its own part.

    The weight is X/(X + Y) of X = U^{1/α}, Y = V^{1/α} for the first of pairs of uniform U, V with 0 < X + Y ≤ 1, which
    is Beta(α, α): Jöhnk, "Erzeugung von betaverteilten und gammaverteilten Zufallszahlen" (1964).

    Args:
        alpha: above 0, at most 1.
        samples: the global batch, (n,).

    Returns:
        positions in the batch (n,), and a number from 0 to 1.
    """
    order = draws(draw_key(seed, step, purpose="partners"), samples, 1)[:, 0]
    partners = np.empty(len(samples), np.int64)
    ranked = np.argsort(order, kind="stable")
    partners[ranked] = np.roll(ranked, 1)  # a circle: nobody is mixed with itself, unless it is alone
    for pair in draws(draw_key(seed, step, purpose="weight"), np.arange(MAX_TRIES), 2).tolist():
        x, y = (u ** (1.0 / alpha) for u in pair)
        if 0.0 < x + y <= 1.0:
            return partners, x / (x + y)
    return partners, 0.5


def resized(images: Images, height: int, width: int) -> Images:
    """Images of another size, bilinear."""
    for axis, size in ((2, height), (3, width)):
        if images.shape[axis] == size:
            continue
        low, high, share = _neighbours(images.shape[axis], size)
        share = share.reshape((-1, 1) if axis == 2 else (-1,))
        left, right = images.take(low, axis), images.take(high, axis)
        images = left + (right - left) * share
    return images


def _neighbours(size: int, wanted: int) -> tuple[Indices, Indices, Images]:
    """The two places on each side of every wanted one, and the share of the second."""
    places = np.clip((np.arange(wanted) + 0.5) * (size / wanted) - 0.5, 0, size - 1)
    low = np.floor(places).astype(np.int64)
    return low, np.minimum(low + 1, size - 1), (places - low).astype(np.float32)


def _below(u: Draws, count: int | Indices) -> Indices:
    """Uniform integers from 0, below `count`."""
    below: Indices = np.minimum((u * count).astype(np.int64), np.asarray(count) - 1)
    return below


def _grey(images: Images) -> Images:
    """(n, 1, height, width)."""
    if images.shape[1] != 3:
        return images[:, :1]
    red, green, blue = (images[:, channel : channel + 1] * _GREY[channel] for channel in range(3))
    grey: Images = (red + green) + blue
    return grey


def size_after(transforms: Sequence[Transform], size: tuple[int, int]) -> tuple[int, int]:
    """Height and width that images have after all of the transforms. Raises ValueError naming what does not fit."""
    for transform in transforms:
        size = transform.size_of(size)
    return size
