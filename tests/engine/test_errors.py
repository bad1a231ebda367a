"""The errors: one root, PyTorch's builtin types, safe to pickle."""

from __future__ import annotations

import pickle

import pytest

import chainrule.engine as cr
from chainrule.engine import errors

INSTANCES = [
    cr.AutogradError("a"),
    cr.ShapeError("b"),
    cr.DTypeError("c"),
    cr.DimensionError("c"),
    cr.DivisionError("c"),
    cr.BoundsError("c"),
    cr.ArgumentError("c"),
    cr.TargetError("d"),
    cr.StateDictError("e"),
    cr.FormatError("f"),
    cr.UnsupportedError("g"),
    cr.ConfigError("lr", -1, "must not be negative"),
    cr.UnknownFamilyError("resnet", ["mlp", "small_cnn"]),
    cr.WeightsNotFoundError("resnet18", "/weights/resnet18.safetensors", "put it there"),
    cr.autograd.GradcheckError("h"),
    cr.CodeError("i"),
    cr.ChainruleError("j"),
]


@pytest.mark.parametrize("error", INSTANCES, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling(error: cr.ChainruleError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_every_error_of_the_module_is_tried_and_has_the_root() -> None:
    declared = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert declared <= {type(error) for error in INSTANCES}
    assert all(issubclass(error, cr.ChainruleError) for error in declared)


def test_config_error_names_field_value_and_remedy() -> None:
    error = cr.ConfigError("batch_size", 0, "must be at least 1")
    assert (error.field, error.value, error.message) == ("batch_size", 0, "must be at least 1")
    assert str(error) == "batch_size=0: must be at least 1"
    assert isinstance(error, ValueError)


def test_unknown_family_error_lists_the_known() -> None:
    error = cr.UnknownFamilyError("resnet", ["mlp", "small_cnn"])
    assert str(error) == "there is no model family 'resnet'; known families: mlp, small_cnn"
    assert (error.family, error.known) == ("resnet", ("mlp", "small_cnn"))
