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
    assert {"gpt", "mlp", "mobilenet_v2", "resnet18", "resnet34", "resnet50", "small_cnn", "vgg11"} <= families.keys()
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
        ("small_cnn", {"dropout": 1.5}, "dropout", "must be at most 1"),
        ("small_cnn", {"dropout": -0.1}, "dropout", "must be at least 0"),
        ("resnet18", {"num_classes": 0}, "num_classes", "must be at least 1"),
        ("resnet18", {"norm_layer": None}, "norm_layer", "there is no such setting"),
        ("resnet34", {"zero_init_residual": 1}, "zero_init_residual", "expected bool, got int"),
        ("resnet50", {"groups": 65}, "groups", "must be at most 64"),
        ("resnet50", {"width_per_group": 0}, "width_per_group", "must be at least 1"),
        ("resnet50", {"replace_stride_with_dilation": [True]}, "replace_stride_with_dilation", "3-element tuple"),
        ("vgg11", {"dropout": 1.5}, "dropout", "must be at most 1"),
        ("vgg11", {"dropout": float("nan")}, "dropout", "must be at least 0"),
        ("mobilenet_v2", {"width_mult": -1.0}, "width_mult", "must be at least 0"),
        ("mobilenet_v2", {"round_nearest": 0}, "round_nearest", "must be at least 1"),
        ("gpt", {"heads": 3}, "heads", "must divide dim, which is 128"),
        ("gpt", {"heads": 256}, "heads", "must be at most 128"),
        ("gpt", {"context": 1e9}, "context", "must be at most 8,192"),
        ("gpt", {"vocab_size": 0}, "vocab_size", "must be at least 1"),
        ("gpt", {"layers": 1000}, "layers", "must be at most 128"),
        ("gpt", {"dropout": -0.1}, "dropout", "must be at least 0"),
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
        ("resnet18", {"num_classes": 7}),
        ("resnet34", {"num_classes": 3, "zero_init_residual": True}),
        ("resnet50", {"num_classes": 3, "groups": 4, "width_per_group": 8}),
        ("resnet50", {"num_classes": 3, "width_per_group": 33, "replace_stride_with_dilation": [False, True, False]}),
        ("mobilenet_v2", {"num_classes": 3}),
        ("mobilenet_v2", {"num_classes": 3, "width_mult": 0.35, "round_nearest": 4}),
        ("mobilenet_v2", {"num_classes": 3, "width_mult": 0.0, "round_nearest": 8}),
        ("gpt", {"vocab_size": 7, "context": 5, "dim": 12, "heads": 3, "layers": 2}),
        ("gpt", {"vocab_size": 7, "context": 5, "dim": 12, "heads": 1, "layers": 3, "tie_weights": False}),
    ],
)
def test_parameters_are_counted_without_building(family: str, config: dict[str, Any]) -> None:
    built = models.build(family, config)
    assert models.family(family).num_parameters(config) == sum(p.numel() for p in built.parameters())


def test_the_parameters_of_what_could_not_be_built_are_counted() -> None:
    config = {"in_features": 10_000_000, "hidden": [1_000_000] * 100}
    assert models.family("mlp").num_parameters(config) > 10**14
    assert models.family("gpt").num_parameters({"dim": 16_384, "heads": 128, "layers": 128}) > 10**11


def test_small_cnn_refuses_images_of_another_size() -> None:
    with pytest.raises(cr.ShapeError, match=r"takes images of shape \(N, 1, 8, 8\), got \(2, 1, 9, 9\)"):
        models.small_cnn()(cr.zeros(2, 1, 9, 9))


def test_small_cnn_has_dropout_where_it_is_asked_for() -> None:
    plain, with_dropout = (models.small_cnn(dropout=p, generator=cr.Generator(1)) for p in (0.0, 0.5))
    x = cr.randn(4, 1, 8, 8, generator=cr.Generator(2))
    assert not any(isinstance(module, nn.Dropout) for module in plain.modules())
    assert io.save(plain.state_dict()) == io.save(with_dropout.state_dict())

    drawn = []
    for seed in (3, 3, 4):
        cr.manual_seed(seed)
        drawn.append(with_dropout(x).tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    state = cr.default_generator.get_state()
    plain(x)
    assert cr.default_generator.get_state() == state

    models_at_rest = [model.eval() for model in (plain, with_dropout)]
    for model in models_at_rest:
        model.load_state_dict(plain.state_dict())
    assert models_at_rest[0](x).tolist() == models_at_rest[1](x).tolist()
    assert models.family_of(with_dropout)[1]["dropout"] == 0.5


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
