"""Folders of pictures: one sub-folder for each class."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading.options import ReadOptions
from chainrule.client.reading.source import Block, needed, rows_at_a_time

SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_PIXELS = 64 * 1024**2
"""Largest picture that is decompressed."""
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")


class ImageFolder:
    """Pictures (C, H, W) uint8, and the numbers of their sub-folders in the order of the alphabet.

    Pictures come in the order of their paths. Each is turned as its EXIF data say, read as RGB (transparent parts as
    they lie beneath) or gray, and scaled to the size asked for with a bilinear filter.

    Raises:
        InvalidInputError: there are no sub-folders with pictures, or Pillow is missing.
    """

    def __init__(self, folder: Path, options: ReadOptions) -> None:
        self._images = needed("PIL.Image", reads=f"the pictures in {folder}")
        self._turned = needed("PIL.ImageOps", reads=f"the pictures in {folder}").exif_transpose
        self._options = options
        folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        self.class_labels: tuple[str, ...] = tuple(path.name for path in folders)
        self._paths = [(path, label) for label, of in enumerate(folders) for path in _pictures(of)]
        if not self._paths:
            raise InvalidInputError(
                f"{folder} has no sub-folders with {', '.join(SUFFIXES)} files; give each class a sub-folder"
            )
        with_pictures = {label for _, label in self._paths}
        for label, name in enumerate(self.class_labels):
            if label not in with_pictures:
                raise InvalidInputError(
                    f"{folders[label]} has no pictures; remove the sub-folder, or fill class {name}"
                )

    @property
    def num_rows(self) -> int | None:
        """See Reader."""
        return len(self._paths)

    def blocks(self) -> Iterator[Block]:
        """See Reader."""
        first = self._read(self._paths[0][0])
        rows = rows_at_a_time(first.nbytes)
        for start in range(0, len(self._paths), rows):
            part = self._paths[start : start + rows]
            inputs = np.empty((len(part), *first.shape), np.uint8)
            for row, (path, _) in enumerate(part):
                picture = self._read(path)
                if picture.shape != first.shape:
                    raise InvalidInputError(
                        f"{path} has {_size(picture)} pixels, but {self._paths[0][0]} has {_size(first)}; scale all to "
                        "one size with size"
                    )
                inputs[row] = picture
            yield {"inputs": inputs, "targets": np.array([label for _, label in part], np.int64)}

    def _read(self, path: Path) -> NDArray[np.uint8]:
        """A picture (C, H, W). Its size is looked at before it is decompressed."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", self._images.DecompressionBombWarning)
                with self._images.open(path, formats=("JPEG", "PNG")) as image:
                    return self._array(path, image)
        except InvalidInputError:
            raise
        except (self._images.DecompressionBombWarning, self._images.DecompressionBombError) as error:
            raise InvalidInputError(f"{path} is larger than pictures are read: {error}") from error
        except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for files that are none
            raise InvalidInputError(f"{path} cannot be read as JPEG or PNG: {error}") from error

    def _array(self, path: Path, image: Any) -> NDArray[np.uint8]:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise InvalidInputError(f"{path} has {height} × {width} pixels; at most {MAX_PIXELS:,} are read")
        if image.mode not in _MODES:
            raise InvalidInputError(
                f"{path} has pixels of mode {image.mode}; convert it to 8 bits for each channel, RGB or gray"
            )
        image = self._turned(image).convert("L" if self._options.gray else "RGB")
        if self._options.size is not None:
            height, width = _pair(self._options.size)
            image = image.resize((width, height), self._images.Resampling.BILINEAR)
        pixels = np.asarray(image, np.uint8)
        return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
        raise InvalidInputError(f"size is {size}; use a height and a width above 0, of at most {MAX_PIXELS:,} pixels")
    return height, width


def _size(picture: NDArray[np.uint8]) -> str:
    return f"{picture.shape[1]} × {picture.shape[2]}"
