"""Saved bytes depend on names, shapes, dtypes and values only; malformed ones are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import chainrule.engine as cr
from chainrule.engine import io
from chainrule.engine.dtypes import Array

GOLDEN_DIGEST = "ef35a57407156a3e8f764648106540defc348ae39e9719bacae97e44f44987f3"


@pytest.fixture
def arrays() -> dict[str, Array]:
    return {
        "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "steps": np.array(7),
        "mask": np.array([True, False, True]),
        "größe": np.array([0.5]),
        "empty": np.zeros((0, 4), np.float32),
    }


def test_what_is_saved_is_loaded(arrays: dict[str, Array], tmp_path: Path) -> None:
    io.save_file(arrays, tmp_path / "a.safetensors")
    for loaded in (io.load(io.save(arrays)), io.load_file(tmp_path / "a.safetensors")):
        assert loaded.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded[name], array, strict=True)


def test_the_digest_is_this_forever(arrays: dict[str, Array]) -> None:
    assert io.digest(io.save(arrays)) == GOLDEN_DIGEST


def test_neither_order_nor_strides_nor_byte_order_nor_tensors_change_the_bytes(arrays: dict[str, Array]) -> None:
    expected = io.save(arrays)
    assert io.save(dict(reversed(arrays.items()))) == expected
    assert io.save({**arrays, "weight": np.asfortranarray(arrays["weight"])}) == expected
    assert io.save({**arrays, "weight": arrays["weight"].astype(">f4")}) == expected
    assert io.save({**arrays, "weight": cr.tensor(arrays["weight"], requires_grad=True)}) == expected


@pytest.mark.parametrize("change", ["name", "shape", "dtype", "value"])
def test_everything_else_changes_the_bytes(arrays: dict[str, Array], change: str) -> None:
    w = arrays["weight"]
    changed = {
        "name": {"w": w},
        "shape": {"weight": w.reshape(3, 2)},
        "dtype": {"weight": w.astype(np.float64)},
        "value": {"weight": w + 1},
    }
    assert io.save(changed[change]) != io.save({"weight": w})


def test_other_programs_read_it_and_their_files_are_read(arrays: dict[str, Array]) -> None:
    assert safetensors.numpy.load(io.save(arrays))["weight"].tolist() == arrays["weight"].tolist()
    assert io.load(safetensors.numpy.save(arrays))["weight"].tolist() == arrays["weight"].tolist()


def test_arrays_are_aligned_in_the_file(arrays: dict[str, Array]) -> None:
    data = io.save(arrays)
    assert int.from_bytes(data[:8], "little") % 8 == 0


@pytest.mark.parametrize("data", [b"", b"12345678", b"\xff" * 64, b"\x02" + b"\0" * 7 + b"[]"])
def test_malformed_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(cr.FormatError, match=r"not safetensors: .*bytes"):
        io.load(data)


def test_truncated_files_are_refused_by_name(arrays: dict[str, Array], tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(io.save(arrays)[:-3])
    with pytest.raises(cr.ChainruleError, match=r"cut\.safetensors: not safetensors"):
        io.load_file(path)


def test_dtypes_that_the_format_lacks_are_refused() -> None:
    with pytest.raises(cr.DTypeError, match="'z' has dtype complex128"):
        io.save({"z": np.ones(1, complex)})
