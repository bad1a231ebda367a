"""Checkpoints as PyTorch writes and reads them: nested values with tensors."""

from __future__ import annotations

import io
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr

DTYPES = [cr.float32, cr.float64, cr.float16, cr.bfloat16, cr.uint8, cr.int8, cr.int16, cr.int32, cr.int64, cr.bool]


def trained() -> tuple[cr.nn.Module, cr.optim.Optimizer]:
    cr.manual_seed(0)
    net = cr.nn.Sequential(cr.nn.Linear(3, 4), cr.nn.BatchNorm1d(4), cr.nn.Linear(4, 2))
    optimizer = cr.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net(cr.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return net, optimizer


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    net, optimizer = trained()
    path = tmp_path / "checkpoint.pt"
    cr.save({"epoch": 2, "model": net.state_dict(), "optimizer": optimizer.state_dict(), "loss": 0.25}, path)

    loaded = cr.load(path, map_location="cpu", weights_only=True)
    again = cr.nn.Sequential(cr.nn.Linear(3, 4), cr.nn.BatchNorm1d(4), cr.nn.Linear(4, 2))
    again.load_state_dict(loaded["model"])
    restored = cr.optim.Adam(again.parameters())
    restored.load_state_dict(loaded["optimizer"])
    assert (loaded["epoch"], loaded["loss"]) == (2, 0.25)
    x = cr.randn(5, 3)
    for module, steps in ((net, optimizer), (again, restored)):
        steps.zero_grad()
        module(x).square().sum().backward()
        steps.step()
    for ours, theirs in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert np.array_equal(ours.data, theirs.data)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_come_back_as_they_were(dtype: Any) -> None:
    file = io.BytesIO()
    values = [cr.tensor(1, dtype=dtype), cr.arange(6).to(dtype).reshape(2, 3).T, cr.zeros(0, 2, dtype=dtype)]
    cr.save(values, file)
    file.seek(0)
    for before, after in zip(values, cr.load(file), strict=True):
        assert isinstance(after, cr.Tensor)
        assert after.dtype == dtype
        assert np.array_equal(after.data, before.data)


def test_plain_values_come_back_as_they_were() -> None:
    plain = {
        "a": [1, -(2**40), True, None, 0.5, "ü", (2, ()), cr.float32],
        3: OrderedDict(x={}, y=Counter({5: 2})),
    }
    file = io.BytesIO()
    cr.save(plain, file)
    file.seek(0)
    loaded = cr.load(file)
    assert loaded == plain
    assert [type(value) for value in loaded[3].values()] == [dict, Counter]


def test_shared_memory_is_written_once_and_shared_again() -> None:
    x = cr.zeros(1000)
    file = io.BytesIO()
    cr.save({"tied": x, "weight": x}, file)
    assert len(file.getvalue()) < 2 * x.nbytes
    file.seek(0)
    loaded = cr.load(file)
    loaded["tied"][0] = 5
    assert loaded["weight"][0] == 5


def test_equal_values_are_equal_bytes() -> None:
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        cr.save(trained()[0].state_dict(), file)
    assert files[0].getvalue() == files[1].getvalue()


def test_a_path_may_ask_for_safetensors(tmp_path: Path) -> None:
    cr.save({"x": cr.ones(2)}, tmp_path / "x.safetensors")
    assert cr.io.load_file(tmp_path / "x.safetensors")["x"].tolist() == [1, 1]
    loaded = cr.load(tmp_path / "x.safetensors")
    assert isinstance(loaded["x"], cr.Tensor)
    assert loaded["x"].tolist() == [1, 1]


def test_what_is_no_data_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with pytest.raises(cr.UnsupportedError, match=r"a Linear cannot be saved.*save its state_dict\(\)"):
        cr.save({"model": cr.nn.Linear(1, 1)}, path)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(cr.UnsupportedError, match="within themselves"):
        cr.save(endless, path)
    assert not path.exists()


def test_files_that_are_no_checkpoints_and_other_devices_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(b"hello there")
    with pytest.raises(cr.FormatError, match=r"net\.pt: not a file of torch\.save"):
        cr.load(path)
    with pytest.raises(cr.FormatError, match=r"^not a file of torch\.save"):
        cr.load(io.BytesIO(b"hello there"))
    cr.save(cr.ones(1), path)
    with pytest.raises(cr.UnsupportedError, match="cuda:0"):
        cr.load(path, map_location="cuda:0")
    assert cr.load(path, map_location={"cuda:0": "cpu"}).tolist() == [1]


@pytest.mark.torch
def test_pytorch_reads_checkpoints(torch: Any, tmp_path: Path) -> None:
    net, optimizer = trained()
    path = tmp_path / "checkpoint.pt"
    tensors = [cr.ones(2, 3).T.to(dtype) for dtype in DTYPES]
    parameter = cr.nn.Parameter(cr.ones(2), requires_grad=False)
    cr.save(
        {
            "model": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "dtypes": tensors,
            "parameter": parameter,
            "leaf": cr.ones(1, requires_grad=True),
            "plain": (1, -(2**70), True, None, 0.5, "ü", Counter({5: 2}), cr.int64),
        },
        path,
    )

    loaded = torch.load(path, weights_only=True)
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    assert str(theirs.load_state_dict(loaded["model"])) == "<All keys matched successfully>"
    assert loaded["model"]._metadata["1"] == {"version": 2}
    torch.optim.Adam(theirs.parameters()).load_state_dict(loaded["optimizer"])
    for name, value in net.state_dict().items():
        assert np.array_equal(theirs.state_dict()[name].numpy(), value.data)
    assert [str(x.dtype) for x in loaded["dtypes"]] == [f"torch.{dtype}" for dtype in DTYPES]
    assert all(x.shape == (3, 2) and bool((x == 1).all()) for x in loaded["dtypes"])
    assert isinstance(loaded["parameter"], torch.nn.Parameter)
    assert not loaded["parameter"].requires_grad
    assert loaded["leaf"].requires_grad
    assert loaded["plain"] == (1, -(2**70), True, None, 0.5, "ü", Counter({5: 2}), torch.int64)


@pytest.mark.torch
def test_checkpoints_of_pytorch_are_read(torch: Any) -> None:
    net = torch.nn.Linear(3, 2)
    schedule = torch.optim.lr_scheduler.MultiStepLR(torch.optim.SGD(net.parameters(), lr=0.1), [2])
    file = io.BytesIO()
    torch.save({"model": net.state_dict(), "schedule": schedule.state_dict(), "x": [torch.ones(2)]}, file)
    file.seek(0)
    loaded = cr.load(file, map_location=lambda storage, place: storage)
    assert np.array_equal(loaded["model"]["weight"].data, net.weight.detach().numpy())
    assert loaded["schedule"]["milestones"] == Counter({2: 1})
    assert loaded["x"][0].tolist() == [1, 1]
