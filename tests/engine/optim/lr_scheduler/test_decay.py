"""Factors outside their range are refused; functions are saved by their attributes."""

from __future__ import annotations

from typing import Any

import pytest

import chainrule.engine as cr
from chainrule.engine.optim import lr_scheduler
from tests.engine.optim.lr_scheduler.cases import Warmup, ours, theirs


@pytest.mark.torch
@pytest.mark.parametrize(
    ("kind", "arguments", "error", "message"),
    [
        ("ConstantLR", {"factor": 1.5}, ValueError, "Constant multiplicative factor expected to be between 0 and 1."),
        ("ConstantLR", {"factor": -0.1}, ValueError, "Constant multiplicative factor expected to be between 0 and 1."),
        ("LinearLR", {"start_factor": 0.0}, ValueError, "Starting multiplicative factor expected to be greater than 0"),
        ("LinearLR", {"start_factor": 1.1}, ValueError, "Starting multiplicative factor expected to be greater than 0"),
        ("LinearLR", {"end_factor": 1.1}, ValueError, "Ending multiplicative factor expected to be between 0 and 1."),
        ("LambdaLR", {"lr_lambda": [len]}, ValueError, "Expected 2 lr_lambdas, but got 1"),
        ("MultiplicativeLR", {"lr_lambda": [len]}, ValueError, "Expected 2 lr_lambdas, but got 1"),
        ("MultiplicativeLR", {"lr_lambda": 0.5}, TypeError, "lr_lambda should be a function, but got float"),
    ],
)
def test_impossible_settings_are_refused_as_by_pytorch(
    kind: str, arguments: dict[str, Any], error: type[Exception], message: str, torch: Any
) -> None:
    with pytest.raises(error, match=message) as caught:
        getattr(lr_scheduler, kind)(ours(), **arguments)
    assert isinstance(caught.value, cr.ChainruleError)
    with pytest.raises(error, match=message):
        getattr(torch.optim.lr_scheduler, kind)(theirs(torch), **arguments)


@pytest.mark.parametrize("kind", [lr_scheduler.LambdaLR, lr_scheduler.MultiplicativeLR])
def test_of_functions_nothing_is_saved_and_of_objects_their_attributes(kind: Any) -> None:
    scheduler = kind(ours(), [lambda _: 1.0, Warmup(4)])
    saved = scheduler.state_dict()
    assert saved["lr_lambdas"] == [None, {"over": 4}]
    other = Warmup(9)
    resumed = kind(ours(), [lambda _: 1.0, other])
    resumed.load_state_dict(saved)
    assert other.over == 4
    assert resumed.lr_lambdas[1] is other
    assert saved["lr_lambdas"] == [None, {"over": 4}]
