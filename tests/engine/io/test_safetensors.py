"""Saved bytes depend on names, shapes, dtypes and values only; malformed ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
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


def test_what_is_saved_into_memory_is_the_same(arrays: dict[str, Array]) -> None:
    given = {**arrays, "weight": arrays["weight"].astype(">f4"), "turned": cr.tensor([[1, 2], [3, 4]]).T}
    expected = io.save(given)
    memory = bytearray(b"x" * (len(expected) + 3))
    assert io.saved_bytes(given) == len(expected)
    there = io.save_into(given, memoryview(memory))
    assert memory == expected + b"xxx"
    assert there.keys() == given.keys()
    for name, array in io.load(expected).items():
        np.testing.assert_array_equal(there[name], array, strict=True)
    there["weight"][...] = 0
    assert memory == io.save({**given, "weight": np.zeros((2, 3), np.float32)}) + b"xxx"


def test_memory_that_is_too_small_is_refused(arrays: dict[str, Array]) -> None:
    size = io.saved_bytes(arrays)
    with pytest.raises(ValueError, match=f"{size - 1} bytes of memory are too few for {size}"):
        io.save_into(arrays, memoryview(bytearray(size - 1)))


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


DTYPES = [
    *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "bfloat16"),
]


def example(name: str) -> Array:
    """Values with every byte different, where the dtype has such."""
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    if name == "bool":
        return np.array([[True, False, True], [False, False, True]])
    return np.arange(1, 1 + 6 * dtype.itemsize, dtype=np.uint8).view(dtype).reshape(2, 3)


def header(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    parsed: dict[str, Any] = json.loads(data[8 : 8 + size])
    return parsed


def with_header(tensors: dict[str, Any], content: bytes = b"") -> bytes:
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + content


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_is_saved_and_loaded_bit_for_bit(name: str) -> None:
    loaded = io.load(io.save({"x": example(name)}))["x"]
    assert (loaded.dtype.name, loaded.shape) == (name, (2, 3))
    assert loaded.tobytes() == example(name).tobytes()
    assert loaded.flags.writeable


@pytest.mark.torch
@pytest.mark.parametrize("name", DTYPES)
def test_pytorch_reads_every_dtype_and_its_files_are_read(name: str, torch: Any) -> None:
    bits = example(name).tobytes()
    theirs = pytest.importorskip("safetensors.torch")
    read = theirs.load(io.save({"x": example(name)}))["x"]
    assert read.dtype == getattr(torch, name)
    assert bytes(read.reshape(-1).view(torch.uint8).tolist()) == bits
    assert io.load(theirs.save({"x": read}))["x"].tobytes() == bits


def test_bfloat16_is_told_by_its_own_name() -> None:
    data = io.save({"x": np.array([1.0, -2.0], ml_dtypes.bfloat16)})
    assert header(data) == {"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    assert data[-4:] == b"\x80\x3f\x00\xc0"  # the upper halves of the float32s


def test_metadata_is_passed_over(arrays: dict[str, Array]) -> None:
    loaded = io.load(safetensors.numpy.save(arrays, metadata={"format": "pt"}))
    assert loaded.keys() == arrays.keys()


def test_the_name_of_metadata_is_no_name_for_an_array() -> None:
    with pytest.raises(cr.FormatError, match="'__metadata__' is no name for an array"):
        io.save({"__metadata__": np.ones(1)})


def test_bools_are_0_or_1_whatever_the_file_has() -> None:
    data = with_header({"x": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}, b"\0\1\2")
    assert io.load(data)["x"].view(np.uint8).tolist() == [0, 1, 1]


def test_dtypes_that_numpy_lacks_are_refused_by_name() -> None:
    data = with_header({"x": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}, b"\0")
    with pytest.raises(cr.FormatError, match="'x' is F8_E4M3; convert it to one of"):
        io.load(data)


@pytest.mark.parametrize("shape", [[0, 2**62], [0, 2**64], [0] * 65])
def test_shapes_beyond_numpys_are_refused(shape: list[int]) -> None:
    with pytest.raises(cr.FormatError, match="not safetensors"):
        io.load(with_header({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}))


def test_a_save_that_fails_leaves_the_old_file(arrays: dict[str, Array], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    io.save_file(arrays, path)
    with pytest.raises(cr.DTypeError):
        io.save_file({"z": np.ones(1, complex)}, path)
    assert path.read_bytes() == io.save(arrays)
    assert [*tmp_path.iterdir()] == [path]


def test_every_cut_is_refused(arrays: dict[str, Array]) -> None:
    data = io.save(arrays)
    for end in range(len(data)):
        with pytest.raises(cr.FormatError):
            io.load(data[:end])
