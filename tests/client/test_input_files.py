"""Inputs of networks from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chainrule.client import InvalidInputError, input_files
from chainrule.client.input_files import is_image, read_arrays, read_image

Image = pytest.importorskip("PIL.Image")
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def test_a_npy_file_is_an_array(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", PIXELS)
    np.testing.assert_array_equal(read_arrays(tmp_path / "x.npy"), PIXELS)


def test_a_npz_file_is_its_array_or_its_arrays_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", a=PIXELS)
    np.savez(tmp_path / "two.npz", a=PIXELS, b=np.zeros(2))
    np.testing.assert_array_equal(read_arrays(tmp_path / "one.npz"), PIXELS)
    assert set(read_arrays(tmp_path / "two.npz")) == {"a", "b"}


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv"])
def test_what_is_no_file_of_arrays_is_told_with_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\3\4 or something else")
    with pytest.raises(InvalidInputError, match=name):
        read_arrays(tmp_path / name)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asarray([{}], object))
    with pytest.raises(InvalidInputError, match="pickle"):
        read_arrays(tmp_path / "x.npy")


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz")
    with pytest.raises(InvalidInputError, match="has no arrays"):
        read_arrays(tmp_path / "x.npz")


def test_an_image_is_one_example_from_0_to_1(tmp_path: Path) -> None:
    path = tmp_path / "x.PNG"
    Image.fromarray(PIXELS).save(path)
    assert is_image(path)
    np.testing.assert_array_equal(read_image(path), (PIXELS.transpose(2, 0, 1)[None] / 255).astype(np.float32))
    assert read_image(path, channels=1, size=(8, 5)).shape == (1, 1, 8, 5)


def test_a_grey_image_has_one_channel_unless_three_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(PIXELS[..., 0]).save(path)
    assert read_image(path).shape == (1, 1, 4, 6)
    assert read_image(path, channels=3).shape == (1, 3, 4, 6)


def test_what_is_no_image_is_told_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG and nothing")
    with pytest.raises(InvalidInputError, match=r"x\.png cannot be read as an image"):
        read_image(path)
    Image.fromarray(PIXELS).save(path)
    monkeypatch.setattr(input_files, "MAX_PIXELS", 23)
    with pytest.raises(InvalidInputError, match="has 6 × 4 pixels"):
        read_image(path)
