"""Families of models: configurations are checked, weights are a function of the seed."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import io, models, nn


def test_families_say_what_they_are() -> None:
    families = models.families()
    assert {"mlp", "small_cnn"} <= families.keys()
    assert families["mlp"].config is models.MLPConfig
    assert families["mlp"].description


def test_build_takes_defaults_and_json_values() -> None:
    model = models.build("mlp", {"hidden": [32, 16.0], "num_classes": 3.0})
    assert models.family_of(model) == ("mlp", {"in_features": 64, "hidden": (32, 16), "num_classes": 3})
    assert model(cr.zeros(2, 8, 8)).shape == (2, 3)


def test_functions_build_the_same_as_names() -> None:
    a = models.small_cnn(num_classes=4, generator=cr.Generator(1))
    b = models.build("small_cnn", {"num_classes": 4}, generator=cr.Generator(1))
    assert io.save(a.state_dict()) == io.save(b.state_dict())
    assert models.family_of(a) == models.family_of(b)
    assert models.family_of(copy.deepcopy(a)) == models.family_of(a)


def test_other_seeds_give_other_weights_and_the_default_generator_stays() -> None:
    state = cr.default_generator.get_state()
    a, b = (models.mlp(generator=cr.Generator(seed)).fc.weight.tolist() for seed in (1, 2))
    assert a != b
    assert cr.default_generator.get_state() == state


@pytest.mark.parametrize("size", [4, 7, 8, 12])
def test_small_cnn_takes_images_of_any_size(size: int) -> None:
    model = models.small_cnn(in_channels=3, image_size=size, width=4)
    assert model(cr.zeros(2, 3, size, size)).shape == (2, 10)


def test_mlp_without_hidden_layers_is_linear() -> None:
    assert [name for name, _ in models.mlp(hidden=()).named_parameters()] == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("family", "config", "field", "message"),
    [
        ("mlp", {"depth": 3}, "depth", "there is no such setting; there are: in_features, hidden, num_classes"),
        ("mlp", {"in_features": "64"}, "in_features", "expected int, got str"),
        ("mlp", {"in_features": 6.5}, "in_features", "expected int, got float"),
        ("mlp", {"in_features": True}, "in_features", "expected int, got bool"),
        ("mlp", {"in_features": None}, "in_features", "expected int, got None"),
        ("mlp", {"num_classes": 0}, "num_classes", "must be at least 1"),
        ("mlp", {"hidden": 128}, "hidden", "expected a list of int, got int"),
        ("mlp", {"hidden": [128, 0]}, "hidden", "every width must be at least 1"),
        ("mlp", {"hidden": [128, 1e300]}, "hidden", "every width must be at most 1,000,000"),
        ("mlp", {"hidden": [1] * 101}, "hidden", "must be at most 100 layers, there are 101"),
        ("mlp", {"in_features": 1e12}, "in_features", "must be at most 10,000,000"),
        ("mlp", {"num_classes": 1e12}, "num_classes", "must be at most 1,000,000"),
        ("mlp", {"num_classes": float("inf")}, "num_classes", "expected int, got float"),
        ("small_cnn", {"image_size": 3}, "image_size", "must be at least 4"),
        ("small_cnn", {"image_size": 1e9}, "image_size", "must be at most 256"),
        ("small_cnn", {"width": 1e9}, "width", "must be at most 512"),
        ("small_cnn", {"in_channels": 65}, "in_channels", "must be at most 64"),
        ("small_cnn", {"num_classes": 1e9}, "num_classes", "must be at most 1,000,000"),
    ],
)
def test_wrong_settings_are_named(family: str, config: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(cr.ConfigError, match=message) as caught:
        models.build(family, config)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("mlp", {}),
        ("mlp", {"hidden": []}),
        ("mlp", {"in_features": 7, "hidden": [5, 3, 2], "num_classes": 4}),
        ("small_cnn", {}),
        ("small_cnn", {"in_channels": 3, "image_size": 13, "width": 5, "num_classes": 7}),
    ],
)
def test_parameters_are_counted_without_building(family: str, config: dict[str, Any]) -> None:
    built = models.build(family, config)
    assert models.family(family).num_parameters(config) == sum(p.numel() for p in built.parameters())


def test_the_parameters_of_what_could_not_be_built_are_counted() -> None:
    config = {"in_features": 10_000_000, "hidden": [1_000_000] * 100}
    assert models.family("mlp").num_parameters(config) > 10**14


def test_small_cnn_refuses_images_of_another_size() -> None:
    with pytest.raises(cr.ShapeError, match=r"takes images of shape \(N, 1, 8, 8\), got \(2, 1, 9, 9\)"):
        models.small_cnn()(cr.zeros(2, 1, 9, 9))


def test_unknown_families_are_named() -> None:
    with pytest.raises(cr.UnknownFamilyError, match="known families: gpt, mlp, mobilenet_v2") as caught:
        models.build("resnet1000")
    assert caught.value.family == "resnet1000"


def test_models_built_another_way_have_no_family() -> None:
    with pytest.raises(cr.ConfigError, match="not built from a family"):
        models.family_of(nn.Linear(1, 1))


def test_weights_begin_as_they_always_did() -> None:
    model = models.small_cnn(generator=cr.Generator(0))
    weights = {name: np.round(value.detach().numpy(), 4) for name, value in model.named_parameters()}
    assert io.digest(io.save(weights)) == GOLDEN_WEIGHTS


GOLDEN_WEIGHTS = "3980abee97013e5f09d811592477ccd97e98bed3eae8541c993692b83ac6f03f"
