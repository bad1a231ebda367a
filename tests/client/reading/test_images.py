"""Folders of pictures: classes by sub-folder, bytes as they are, and what is damaged or too large named."""

from __future__ import annotations

import struct
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading import ReadOptions, open_source


def picture(path: Path, color: tuple[int, int, int] = (255, 0, 10), size: tuple[int, int] = (6, 4), **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), color).save(path, **how)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "pets" / "dog" / "1.png", (1, 2, 3))
    picture(tmp_path / "pets" / "dog" / "more" / "2.PNG", (4, 5, 6))
    picture(tmp_path / "pets" / "cat" / "x.jpeg", (200, 200, 200))
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("not a picture")
    return tmp_path / "pets"


def read(folder: Path, **options: Any) -> tuple[NDArray[Any], NDArray[Any], tuple[str, ...]]:
    reader = open_source(folder, ReadOptions(**options))
    blocks = list(reader.blocks())
    inputs, targets = (np.concatenate([block[name] for block in blocks]) for name in ("inputs", "targets"))
    return inputs, targets, reader.class_labels


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read(folder, **options)
    return str(caught.value)


def test_sub_folders_are_the_classes(folder: Path) -> None:
    inputs, targets, labels = read(folder)
    assert inputs.shape == (3, 3, 6, 4)
    assert inputs.dtype == np.uint8
    assert (targets.tolist(), labels) == ([0, 1, 1], ("cat", "dog"))
    assert inputs[1:, :, 0, 0].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_pictures_are_scaled_or_read_as_gray(folder: Path) -> None:
    assert read(folder, size=8)[0].shape == (3, 3, 8, 8)
    assert read(folder, size=(2, 5), gray=True)[0].shape == (3, 1, 2, 5)
    picture(folder / "dog" / "9.png", size=(9, 9))
    assert "9.png has 9 × 9 pixels, but" in refused(folder)
    assert read(folder, size=8)[0].shape == (4, 3, 8, 8)


def test_pictures_are_turned_as_they_say(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    picture(folder / "cat" / "a.jpg", size=(4, 6), exif=exif)
    assert read(folder)[0].shape == (4, 3, 6, 4)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0 no picture", b"GIF89a" + bytes(100)])
def test_a_picture_that_cannot_be_read_is_named(folder: Path, content: bytes) -> None:
    (folder / "cat" / "bad.png").write_bytes(content)
    assert f"{folder / 'cat' / 'bad.png'} cannot be read as JPEG or PNG" in refused(folder)


def test_a_picture_that_ends_early_is_named(folder: Path) -> None:
    path = folder / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:50])
    assert str(path) in refused(folder)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("size", [(9_000, 9_000), (50_000, 50_000)])
def test_a_bomb_is_refused_before_it_is_unfolded(folder: Path, size: tuple[int, int]) -> None:
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    content = zlib.compress(bytes(10_000_000), 9)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    (folder / "cat" / "bomb.png").write_bytes(bomb)
    tracemalloc.start()
    try:
        assert "bomb.png" in refused(folder, size=8)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_sixteen_bits_are_refused(folder: Path) -> None:
    Image.fromarray(np.zeros((6, 4), np.uint16)).save(folder / "cat" / "deep.png")
    assert "deep.png has pixels of mode I;16" in refused(folder)


def test_folders_without_pictures_are_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "none").mkdir()
    assert "has no sub-folders with .jpg, .jpeg, .png files" in refused(tmp_path / "none")
    assert "size is 0" in refused(folder, size=0)
    (folder / "empty").mkdir()
    assert "has no pictures" in refused(folder)


def test_a_missing_library_is_named_with_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert "pip install 'chainrule[data]'" in refused(folder)
