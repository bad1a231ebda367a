"""What torch.save has written is read without it, bit for bit."""

from __future__ import annotations

import io as streams
import subprocess
import sys
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import io
from tests.engine.io.assemble import Call, Global, Raw, encode, legacy, pickled, storage, tensor, zipped

DATA = Path(__file__).parent / "data"
ROW = np.arange(6, dtype=np.float32)
FORMATS = [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}, {"pickle_protocol": 5}]
LEGACY_4 = {"_use_new_zipfile_serialization": False, "pickle_protocol": 4}


def both(value: object, content: bytes = ROW.tobytes(), count: int = 6) -> list[Any]:
    """The value as both formats' readers give it."""
    made = pickled(value)
    return [io.load_pth(zipped(made, {"0": content})), io.load_pth(legacy(made, {"0": (count, content)}))]


# -- without PyTorch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["state_dict.pth", "state_dict_legacy.pth"])
def test_files_of_pytorch_are_read(name: str) -> None:
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = {
        "w": w,
        "w.t": w.T,
        "tail": w.reshape(-1)[4:],
        "tied": w,
        "bf16": (np.arange(5, dtype=np.float32) / 3).astype(ml_dtypes.bfloat16),
        "f16": np.array([1.5, -2], np.float16),
        "steps": np.array(7),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 4), np.float32),
    }
    loaded = io.load_pth(DATA / name)
    assert isinstance(loaded, OrderedDict)
    assert [*loaded] == [*expected]
    for key, array in expected.items():
        np.testing.assert_array_equal(loaded[key], array, strict=True)
    assert vars(loaded) == {"_metadata": OrderedDict({"": {"version": 2}})}
    assert all(np.shares_memory(loaded["w"], loaded[key]) for key in ("w.t", "tail", "tied"))


def test_pytorch_is_not_imported() -> None:
    code = (
        f"import sys; from chainrule.engine import io; io.load_pth({str(DATA / 'state_dict.pth')!r}); "
        "print('torch' in sys.modules, 'pickle' in [m.__name__ for m in vars(io.pth).values() if hasattr(m, 'loads')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_views_have_their_offset_and_strides() -> None:
    for loaded in both({"t": tensor((3, 2), (1, 3)), "end": tensor((2,), (2,), 3), "one": tensor((), (), 5)}):
        assert loaded["t"].tolist() == [[0, 3], [1, 4], [2, 5]]
        assert loaded["end"].tolist() == [3, 5]
        assert loaded["one"].shape == ()
        assert loaded["one"] == 5
        loaded["t"][0, 1] = 9  # they share memory, and may be written to
        assert loaded["end"][0] == 9


def test_a_dimension_of_one_may_have_any_stride() -> None:
    for loaded in both(tensor((1, 6), (2**61, 1))):
        assert loaded.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_expanded_tensors_are_read_only_views() -> None:
    for loaded in both(tensor((3, 2), (0, 1))):
        assert loaded.tolist() == [[0, 1]] * 3
        assert not loaded.flags.writeable


@pytest.mark.parametrize("size", [(0,), (0, 4), (3, 0), (0, 2**40)])
def test_empty_tensors_have_their_shape(size: tuple[int, ...]) -> None:
    for loaded in both(tensor(size, (1,) * len(size))):
        assert loaded.shape == size


@pytest.mark.parametrize("location", ["cpu", "cuda:0", "cuda:7", "mps", "xpu:1"])
def test_tensors_of_other_devices_are_arrays(location: str) -> None:
    for loaded in both(tensor((6,), (1,), of=storage(location=location))):
        assert loaded.tolist() == ROW.tolist()


def test_storages_of_cuda_and_parameters_are_arrays() -> None:
    rebuilt = Call(Global("torch._utils _rebuild_parameter"), (tensor((6,), (1,)), True, None))
    for value in (rebuilt, tensor((6,), (1,), of=storage(kind="torch.cuda FloatStorage"))):
        for loaded in both(value):
            assert loaded.tolist() == ROW.tolist()


def test_the_oldest_way_of_telling_a_tensor_is_read() -> None:
    for loaded in both(Call(Global("torch._utils _rebuild_tensor"), (storage(), 1, (2,), (2,)))):
        assert loaded.tolist() == [1, 3]


OLD_PARAMETER = Raw(
    encode(Global("torch.nn.parameter Parameter"))
    + encode((Call(Global("torch._utils _rebuild_tensor"), (storage(), 0, (6,), (1,))),))
    + b"\x81"
    + encode((True, False, Call(Global("collections OrderedDict"), ())))
    + b"b"
)


def test_parameters_of_before_pytorch_0_4_are_arrays() -> None:
    for loaded in both({"w": OLD_PARAMETER}):
        np.testing.assert_array_equal(loaded["w"], ROW, strict=True)


@pytest.mark.torch
def test_pytorch_reads_those_parameters_alike(torch: Any) -> None:
    made = zipped(pickled({"w": OLD_PARAMETER}), {"0": ROW.tobytes()})
    assert torch.load(streams.BytesIO(made), weights_only=True)["w"].tolist() == ROW.tolist()


def test_big_endian_archives_are_swapped() -> None:
    values = {"f": tensor((6,), (1,)), "h": tensor((2,), (1,), of=storage("1", "torch BFloat16Storage", 2))}
    contents = {"0": ROW.astype(">f4").tobytes(), "1": b"\x3f\x80\xc0\x00"}
    loaded = io.load_pth(zipped(pickled(values), contents, records={"byteorder": b"big"}))
    np.testing.assert_array_equal(loaded["f"], ROW, strict=True)
    np.testing.assert_array_equal(loaded["h"], np.array([1, -2], ml_dtypes.bfloat16), strict=True)


def test_without_a_byte_order_it_is_little() -> None:
    data = zipped(pickled(tensor((6,), (1,))), {"0": ROW.tobytes()})
    assert io.load_pth(data.replace(b"byteorder", b"otherthin")).tolist() == ROW.tolist()


def test_bools_are_0_or_1_whatever_the_file_has() -> None:
    for loaded in both(tensor((3,), (1,), of=storage("0", "torch BoolStorage", 3)), b"\0\1\2", 3):
        assert loaded.view(np.uint8).tolist() == [0, 1, 1]


def test_a_checkpoint_keeps_its_structure() -> None:
    checkpoint = {"model": {"w": tensor((6,), (1,))}, "epoch": 3, "lr": [0.1, (True, None)], 7: "x", "seed": -(2**100)}
    for loaded in both(checkpoint):
        np.testing.assert_array_equal(loaded["model"].pop("w"), ROW, strict=True)
        assert loaded == {"model": {}, "epoch": 3, "lr": [0.1, (True, None)], 7: "x", "seed": -(2**100)}


# -- with PyTorch ------------------------------------------------------------------------------------------------------


def saved(torch: Any, value: object, options: dict[str, Any]) -> bytes:
    file = streams.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def bits(torch: Any, x: Any) -> bytes:
    return bytes(x.detach().contiguous().reshape(-1).view(torch.uint8).tolist())


@pytest.mark.torch
@pytest.mark.parametrize("options", [*FORMATS, LEGACY_4])
def test_every_dtype_is_read_bit_for_bit(torch: Any, options: dict[str, Any]) -> None:
    names = ["float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"]
    names += ["uint16", "uint32", "uint64"]  # PyTorch writes these as untyped storages
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name in names:
        raw = torch.randint(0, 2 if name == "bool" else 256, (64,), dtype=torch.uint8, generator=generator)
        state[name] = raw.view(getattr(torch, name)).reshape(2, -1)
        state[f"{name}.t"] = state[name].t()
        state[f"{name}.part"] = state[name].reshape(-1)[3:7:2]
        state[f"{name}.scalar"] = state[name][1, 1]
        state[f"{name}.empty"] = state[name][:0]
    loaded = io.load_pth(saved(torch, state, options))
    assert [*loaded] == [*state]
    for name, x in state.items():
        assert loaded[name].dtype.name == name.split(".")[0]
        assert loaded[name].shape == tuple(x.shape)
        assert loaded[name].tobytes() == bits(torch, x), name


@pytest.mark.torch
@pytest.mark.parametrize("options", [*FORMATS, LEGACY_4])
def test_a_training_checkpoint_is_what_pytorch_reads(torch: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4])
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.note = "an attribute"
    checkpoint = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": {"milestones": scheduler.state_dict()["milestones"]},
        "epoch": 3,
        "shape": torch.Size([1, 2]),
        "device": torch.device("cuda:0"),
        "dtype": torch.bfloat16,
        "bytes": b"\x00\xff",
        "parameters": [*model.parameters(), parameter],
    }
    loaded = io.load_pth(saved(torch, checkpoint, options))
    assert loaded["scheduler"]["milestones"] == Counter([2, 4])
    assert loaded["shape"] == (1, 2)
    assert loaded["device"] == "cuda:0"
    assert loaded["dtype"] == np.dtype(ml_dtypes.bfloat16)
    assert loaded["bytes"] == b"\x00\xff"
    assert vars(loaded["model"])["_metadata"] == checkpoint["model"]._metadata
    assert loaded["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    assert compare(torch, loaded["model"], checkpoint["model"]) == 7
    assert compare(torch, loaded["optimizer"]["state"], checkpoint["optimizer"]["state"]) == 12
    assert compare(torch, loaded["parameters"], checkpoint["parameters"]) == 5
    assert np.shares_memory(loaded["parameters"][0], loaded["model"]["0.weight"])


def compare(torch: Any, ours: Any, theirs: Any) -> int:
    """Compares arrays with tensors, and says how many there were."""
    if isinstance(theirs, torch.Tensor):
        assert ours.tobytes() == bits(torch, theirs)
        assert ours.shape == tuple(theirs.shape)
        return 1
    keys = range(len(theirs)) if isinstance(theirs, list) else theirs
    assert len(ours) == len(theirs)
    return sum(compare(torch, ours[key], theirs[key]) for key in keys)


@pytest.mark.torch
def test_archives_without_checksums_are_read(torch: Any) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        data = saved(torch, {"w": torch.arange(3)}, {})
    finally:
        torch.serialization.set_crc32_options(True)
    assert io.load_pth(data)["w"].tolist() == [0, 1, 2]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda torch: torch.nn.Linear(2, 2), r"names torch\.nn\.modules\.linear\.Linear, which is neither read nor"),
        (lambda torch: torch.ones(2, dtype=torch.complex64), "a complex tensor"),
        (lambda torch: torch.ones(2, dtype=torch.complex64).conj().imag, "a conjugated or negated view"),
        (lambda torch: torch.eye(2).to_sparse(), "a sparse tensor"),
        (lambda torch: torch.nested.nested_tensor([torch.ones(2)]), "a nested tensor"),
        (lambda torch: torch.ones(2, device="meta"), "a tensor on device 'meta'"),
        (lambda torch: torch.ones(2, dtype=torch.float8_e4m3fn), r"torch\.float8_e4m3fn"),
        (lambda torch: np.float64(3.5), "a numpy value"),
        (lambda torch: {("a", 1): torch.ones(1)}, "a tuple as a dict's key"),
        (lambda torch: {"s": {1, 2}}, "set, which is neither read nor run"),
    ],
)
def test_what_has_no_array_is_refused_by_name(torch: Any, options: dict[str, Any], make: Any, message: str) -> None:
    with pytest.raises(cr.FormatError, match=message):
        io.load_pth(saved(torch, make(torch), options))


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantized_tensors_are_refused(torch: Any) -> None:
    quantized = torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)
    with pytest.raises(cr.FormatError, match="a quantized tensor"):
        io.load_pth(saved(torch, quantized, {}))


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_programs_are_refused(torch: Any, tmp_path: Path) -> None:
    torch.jit.script(torch.nn.ReLU()).save(str(tmp_path / "program.pt"))
    with pytest.raises(cr.FormatError, match=r"program\.pt: a TorchScript archive"):
        io.load_pth(tmp_path / "program.pt")
