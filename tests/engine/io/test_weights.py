"""One entry reads weights of either format and says what it found instead."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import io
from tests.engine.io.assemble import legacy, pickled, tensor, zipped

ROW = np.arange(6, dtype=np.float32)
STATE: dict[Any, Any] = {"a.weight": tensor((2, 3), (3, 1)), "a.bias": tensor((3,), (1,), 3)}
CHECKPOINT = {"model": STATE, "epoch": 3}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.bin"


def test_the_content_decides_and_not_the_name(path: Path) -> None:
    expected = {"a.weight": ROW.reshape(2, 3), "a.bias": ROW[3:]}
    files = [
        io.save(expected),
        zipped(pickled(STATE), {"0": ROW.tobytes()}),
        legacy(pickled(STATE), {"0": (6, ROW.tobytes())}),
    ]
    for content in files:
        path.write_bytes(content)
        loaded = io.load_weights(path)
        assert loaded.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(loaded[name], array, strict=True)
        assert io.digest(io.save(loaded)) == io.digest(files[0])


def test_a_header_that_begins_like_a_pickle_is_safetensors(path: Path) -> None:
    name = "x" * (0x280 - 57)
    content = io.save({name: np.zeros(1, np.float32)})
    assert content[:2] == b"\x80\x02"
    path.write_bytes(content)
    assert [*io.load_weights(path)] == [name]


def test_a_checkpoint_is_not_guessed_but_told_by_its_keys(path: Path) -> None:
    path.write_bytes(zipped(pickled(CHECKPOINT), {"0": ROW.tobytes()}))
    with pytest.raises(cr.FormatError) as caught:
        io.load_weights(path)
    assert str(caught.value) == (
        f"{path}: a checkpoint, not a state dict: 'model' is a dict, no array; its keys are 'model', 'epoch'; "
        "take the weights from io.load_pth(path)[key]"
    )
    np.testing.assert_array_equal(io.load_pth(path)["model"]["a.bias"], ROW[3:])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor((6,), (1,)), "holds a ndarray, not a state dict"),
        ([tensor((6,), (1,))], "holds a list, not a state dict"),
        ({**STATE, 3: tensor((6,), (1,))}, "3 is a ndarray"),
        ({**STATE, "epoch": 3}, "'epoch' is a int, no array"),
    ],
)
def test_what_is_no_state_dict_is_said(path: Path, value: object, message: str) -> None:
    path.write_bytes(zipped(pickled(value), {"0": ROW.tobytes()}))
    with pytest.raises(cr.FormatError, match=message):
        io.load_weights(path)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x89PNG\r\n", b"PK\5\6"])
def test_other_files_are_told_by_their_first_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(cr.FormatError) as caught:
        io.load_weights(path)
    assert str(caught.value) == (
        f"{path}: neither safetensors nor a file of torch.save: it begins with {content[:16]!r} ({len(content)} bytes)"
    )


def test_a_damaged_file_is_named(path: Path) -> None:
    path.write_bytes(io.save({"x": ROW})[:-1])
    with pytest.raises(cr.FormatError, match=r"weights\.bin: not safetensors"):
        io.load_weights(path)


def test_a_missing_file_is_an_os_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        io.load_weights(path)


def test_pytorchs_metadata_comes_along() -> None:
    loaded = io.load_weights(Path(__file__).parent / "data" / "state_dict.pth")
    assert isinstance(loaded, OrderedDict)
    assert vars(loaded)["_metadata"] == {"": {"version": 2}}
