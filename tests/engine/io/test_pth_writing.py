"""A file of ours is what torch.load reads as the same state dict, and so does load_pth."""

from __future__ import annotations

import io as streams
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import io, nn

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64", "bfloat16"]


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {
        name: (rng.normal(size=(3, 4)) * 10).astype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
        for name in DTYPES
    }
    return {
        **made,
        "num_batches_tracked": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "ü.weight": np.ones((1, 1, 3, 3), np.float32),
    }


def test_a_written_file_is_read_again_bit_for_bit() -> None:
    written = arrays()
    read = io.load_pth(io.save_pth(written))
    assert list(read) == list(written)
    for name, array in written.items():
        np.testing.assert_array_equal(read[name], array, strict=True)


def test_the_bytes_are_a_function_of_the_values() -> None:
    assert io.save_pth(arrays()) == io.save_pth(arrays())
    big_endian = {name: a.astype(a.dtype.newbyteorder(">")) for name, a in arrays().items() if name != "bfloat16"}
    assert io.save_pth(big_endian) == io.save_pth({name: arrays()[name] for name in big_endian})


def test_a_module_of_the_engine_is_written_to_a_file(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    io.save_pth_file(module.state_dict(), tmp_path / "m.pth")
    read = io.load_weights(tmp_path / "m.pth")
    assert {name: array.shape for name, array in read.items()} == {
        name: tuple(value.shape) for name, value in module.state_dict().items()
    }


def test_a_dtype_without_a_storage_is_named() -> None:
    with pytest.raises(cr.DTypeError, match=r"tensor 'x' has dtype complex64, which a \.pth file cannot hold; convert"):
        io.save_pth({"x": np.zeros(2, np.complex64)})


@pytest.mark.torch
def test_torch_loads_it_without_running_anything_of_it() -> None:
    torch = pytest.importorskip("torch")
    written = arrays()
    read = torch.load(streams.BytesIO(io.save_pth(written)), weights_only=True)
    assert list(read) == list(written)
    for name, array in written.items():
        tensor = read[name]
        assert str(tensor.dtype) == f"torch.{array.dtype.name}"
        assert tuple(tensor.shape) == array.shape
        assert tensor.is_contiguous()
        np.testing.assert_array_equal(tensor.double().numpy(), array.astype(np.float64))


@pytest.mark.torch
def test_a_module_of_torch_loads_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    ours = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(3, 4))
    theirs = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(3, 4))
    io.save_pth_file(ours.state_dict(), tmp_path / "m.pth")
    theirs.load_state_dict(torch.load(tmp_path / "m.pth", weights_only=True))
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), ours.state_dict()[name].numpy(), strict=True)
