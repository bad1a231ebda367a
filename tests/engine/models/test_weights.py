"""Pretrained weights come from files, whole and of the right architecture, or not at all."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import io, models
from chainrule.engine.dtypes import Array
from chainrule.engine.models import weights

SMALL: dict[str, Any] = {"num_classes": 3, "width_mult": 0.1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where weights are looked for."""
    monkeypatch.setenv("CHAINRULE_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def state_of(seed: int = 1, **config: object) -> dict[str, Array]:
    model = models.build("mobilenet_v2", {**SMALL, **config}, generator=cr.Generator(seed))
    return {name: value.numpy() for name, value in model.state_dict().items()}


def equal(model: Any, state: dict[str, Array]) -> bool:
    return all(np.array_equal(value.numpy(), state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "given", [{"pretrained": True}, {"weights": "DEFAULT"}, {"pretrained": "IMAGENET1K_V1"}], ids=str
)
def test_missing_weights_say_where_they_belong_and_where_they_are(given: dict[str, Any], folder: Path) -> None:
    with pytest.raises(cr.WeightsNotFoundError) as caught:
        models.resnet18(**given)
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.family == "resnet18"
    assert caught.value.path == str(folder / "resnet18.safetensors")
    message = str(caught.value)
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in message
    assert f"CHAINRULE_HOME, which is {folder.parent}" in message


def test_home_is_in_the_cache_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHAINRULE_HOME", raising=False)
    assert weights.home() == Path.home() / ".cache" / "chainrule"


def test_safetensors_are_read_and_no_parameter_is_drawn(folder: Path) -> None:
    state = state_of()
    io.save_file(state, folder / "mobilenet_v2.safetensors")
    before = cr.default_generator.get_state()
    model = models.mobilenet_v2(pretrained=True, **SMALL)
    assert equal(model, state)
    assert cr.default_generator.get_state() == before
    assert models.family_of(model)[0] == "mobilenet_v2"
    assert equal(models.mobilenet_v2(True, **SMALL), state)
    assert equal(models.mobilenet_v2(weights="DEFAULT", **SMALL), state)
    assert not equal(models.mobilenet_v2(weights=None, **SMALL), state)


@pytest.mark.torch
def test_files_of_pytorch_are_read(folder: Path, torch: Any) -> None:
    state = state_of()
    torch.save({name: torch.tensor(value) for name, value in state.items()}, folder / "mobilenet_v2.pth")
    assert equal(models.mobilenet_v2(pretrained=True, **SMALL), state)


def test_a_path_is_read_from_anywhere(tmp_path: Path) -> None:
    state = state_of()
    io.save_file(state, tmp_path / "mine.safetensors")
    assert equal(models.mobilenet_v2(weights=tmp_path / "mine.safetensors", **SMALL), state)
    assert equal(models.mobilenet_v2(weights=str(tmp_path / "mine.safetensors"), **SMALL), state)
    with pytest.raises(cr.WeightsNotFoundError, match=r"other\.pth; give the path of a \.safetensors or \.pth file"):
        models.mobilenet_v2(weights=str(tmp_path / "other.pth"), **SMALL)


def test_versions_have_files_of_their_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states, names = [state_of(seed) for seed in (1, 2)], []
    for state in states:
        data = io.save(state)
        names.append(f"mobilenet_v2-{sha256(data).hexdigest()[:8]}.pth")
        (folder / names[-1]).write_bytes(data)
    monkeypatch.setitem(weights.OFFICIAL, "mobilenet_v2", tuple(names))
    assert equal(models.mobilenet_v2(weights="IMAGENET1K_V1", **SMALL), states[0])
    assert equal(models.mobilenet_v2(weights="IMAGENET1K_V2", **SMALL), states[1])
    assert equal(models.mobilenet_v2(pretrained=True, **SMALL), states[0])
    assert equal(models.mobilenet_v2(weights="DEFAULT", **SMALL), states[1])
    with pytest.raises(
        cr.ConfigError, match="no such weights; choose a path, or one of: DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2"
    ):
        models.mobilenet_v2(weights="IMAGENET1K_V3", **SMALL)


def test_torchvisions_enumerations_name_them_too(folder: Path) -> None:
    for weights_of_50, file in (
        (models.ResNet50_Weights.DEFAULT, "resnet50-11ad3fa6.pth"),
        (models.ResNet50_Weights.IMAGENET1K_V1, "resnet50-0676ba61.pth"),
    ):
        with pytest.raises(cr.WeightsNotFoundError) as caught:
            models.resnet50(weights=weights_of_50)
        assert caught.value.path == str(folder / file)
    with pytest.raises(TypeError, match="Expected Weight class ResNet18_Weights, but got ResNet50_Weights"):
        models.resnet18(weights=models.ResNet50_Weights.DEFAULT)
    state = state_of()
    io.save_file(state, folder / "mine.safetensors")
    assert equal(models.mobilenet_v2(weights=folder / "mine.safetensors", **SMALL), state)


def test_a_damaged_download_is_noticed_by_its_name(folder: Path) -> None:
    io.save_file(state_of(), folder / "mobilenet_v2-b0353104.pth")
    with pytest.raises(cr.FormatError, match="not with b0353104; download it again"):
        models.mobilenet_v2(pretrained=True, **SMALL)


def test_counts_of_batches_may_be_missing_as_in_old_files(folder: Path) -> None:
    state = state_of()
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    io.save_file(old, folder / "mobilenet_v2.safetensors")
    assert equal(models.mobilenet_v2(pretrained=True, **SMALL), state)


def test_weights_of_other_classes_are_refused_with_the_way_out(folder: Path) -> None:
    io.save_file(state_of(), folder / "mobilenet_v2.safetensors")
    with pytest.raises(cr.ConfigError, match=r"tell 3 classes apart; build the model with num_classes=3") as caught:
        models.mobilenet_v2(pretrained=True, num_classes=7, width_mult=0.1)
    assert (caught.value.field, caught.value.value) == ("num_classes", 7)
    assert "replace its classifier.1 by a layer of your own" in str(caught.value)


def test_weights_of_another_architecture_are_refused(folder: Path) -> None:
    state = state_of()
    shape = {**state, "features.0.0.weight": np.zeros((8, 3, 5, 5), np.float32)}
    missing = {name: value for name, value in state.items() if name != "features.0.1.weight"}
    extra = {**state, "features.99.weight": np.zeros(3, np.float32)}
    for wrong, message in [
        (shape, "size mismatch for features.0.0.weight"),
        (missing, 'Missing key.*"features.0.1.weight"'),
        (extra, 'Unexpected key.*"features.99.weight"'),
    ]:
        io.save_file(wrong, folder / "mobilenet_v2.safetensors")
        with pytest.raises(cr.StateDictError, match=message) as caught:
            models.mobilenet_v2(pretrained=True, **SMALL)
        assert str(folder / "mobilenet_v2.safetensors") in str(caught.value)


def test_what_is_no_file_of_weights_is_refused(folder: Path) -> None:
    (folder / "mobilenet_v2.pth").write_bytes(b"<html>not found</html>")
    with pytest.raises(cr.FormatError, match=r"neither safetensors nor a file of torch\.save"):
        models.mobilenet_v2(pretrained=True, **SMALL)


def test_settings_are_checked_as_those_of_any_family() -> None:
    with pytest.raises(cr.ConfigError, match="there is no such setting") as caught:
        models.resnet18(groups=2)
    assert caught.value.field == "groups"
