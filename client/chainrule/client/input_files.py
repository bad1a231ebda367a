"""Inputs of networks from files: arrays of numpy, and images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from chainrule.client.errors import InvalidInputError

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
MAX_PIXELS = 64_000_000
"""Largest image that is read: 64 million pixels take 256 MB in memory."""

Array = NDArray[Any]


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its name."""
    return path.suffix.lower() in IMAGES


def read_arrays(path: Path) -> Array | Mapping[str, Array]:
    """The array of a .npy file, or those of a .npz file by name; the one of a .npz file that has one.

    Raises:
        InvalidInputError: it cannot be read, or is another kind of file.
    """
    if path.suffix.lower() not in (".npy", ".npz"):
        raise InvalidInputError(f"{path} is no .npy or .npz file, nor an image: {', '.join(IMAGES)}")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}") from error
    if not arrays:
        raise InvalidInputError(f"{path} has no arrays")
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def read_image(path: Path, *, channels: int | None = None, size: tuple[int, int] | None = None) -> Array:
    """An image as one example, (1, C, H, W) float32 from 0 to 1.

    Args:
        channels: 1 for grey, 3 for colour; None: as the image is.
        size: height and width to resize it to, bilinearly; None: as it is.

    Raises:
        InvalidInputError: it cannot be read, has too many pixels, or Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise InvalidInputError(f"{path} is an image, which needs Pillow: pip install 'chainrule[data]'") from error
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InvalidInputError(
                    f"{path} has {image.width} × {image.height} pixels; at most {MAX_PIXELS:,} are read"
                )
            is_grey = image.mode in ("1", "L", "LA", "I", "I;16") if channels is None else channels == 1
            shown = image.convert("L" if is_grey else "RGB")
            if size is not None:
                shown = shown.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            pixels = np.asarray(shown, np.float32) / 255
    except InvalidInputError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidInputError(f"{path} cannot be read as an image: {error}") from error
    return pixels[None, None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)[None]
