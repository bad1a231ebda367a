"""Cycles end, need a momentum to cycle, and refuse what PyTorch refuses."""

from __future__ import annotations

from typing import Any

import pytest

import chainrule.engine as cr
from chainrule.engine import nn, optim
from chainrule.engine.optim import lr_scheduler
from tests.engine.optim.lr_scheduler.cases import Warmup, ours, theirs


@pytest.mark.torch
@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("OneCycleLR", {"max_lr": 0.1}, "You must define either total_steps OR"),
        ("OneCycleLR", {"max_lr": 0.1, "epochs": 3}, "You must define either total_steps OR"),
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": 0}, "Expected positive integer total_steps, but got 0"),
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": 1.5}, "Expected positive integer total_steps, but got 1.5"),
        ("OneCycleLR", {"max_lr": 0.1, "epochs": -1, "steps_per_epoch": 2}, "Expected positive integer epochs"),
        ("OneCycleLR", {"max_lr": 0.1, "epochs": 1, "steps_per_epoch": 0}, "Expected positive integer steps_per_epoch"),
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": 9, "pct_start": 1.5}, "Expected float between 0 and 1 pct_start"),
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": 9, "pct_start": 1}, "Expected float between 0 and 1 pct_start"),
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": 9, "anneal_strategy": "exp"}, "must be one of 'cos' or 'linear'"),
        ("OneCycleLR", {"max_lr": [0.1], "total_steps": 9}, "max_lr must have the same length as optimizer.param_gr"),
        ("CyclicLR", {"base_lr": [0.1], "max_lr": 0.2}, "base_lr must have the same length as optimizer.param_groups"),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.2, "mode": "square"}, "mode is invalid and scale_fn is None"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused_as_by_pytorch(
    kind: str, arguments: dict[str, Any], message: str, torch: Any
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        getattr(lr_scheduler, kind)(ours(), **arguments)
    assert isinstance(caught.value, cr.ConfigError)
    with pytest.raises(ValueError, match=message):
        getattr(torch.optim.lr_scheduler, kind)(theirs(torch), **arguments)


@pytest.mark.torch
def test_one_cycle_has_an_end(torch: Any) -> None:
    for optimizer, module in ((ours(), lr_scheduler), (theirs(torch), torch.optim.lr_scheduler)):
        scheduler = module.OneCycleLR(optimizer, 0.5, total_steps=4)
        for _ in range(4):
            optimizer.step()
            scheduler.step()
        with pytest.raises(ValueError, match=r"Tried to step 5 times. The specified number of total steps is 4"):
            scheduler.step()


def test_a_phase_without_length_is_refused() -> None:
    with pytest.raises(cr.ConfigError, match="total_steps=10: leaves the phase that ends"):
        lr_scheduler.OneCycleLR(ours(), 0.5, total_steps=10, pct_start=0.1)


@pytest.mark.parametrize(
    "make", [lambda o: lr_scheduler.OneCycleLR(o, 0.5, 9), lambda o: lr_scheduler.CyclicLR(o, 0, 1)]
)
def test_an_optimizer_without_momentum_cannot_cycle_it(make: Any) -> None:
    optimizer = optim.Optimizer([nn.Parameter(cr.ones(1))], {"lr": 0.1})
    with pytest.raises(ValueError, match="optimizer must support momentum or beta1 with `cycle_momentum` option"):
        make(optimizer)


def test_of_a_scale_that_is_an_object_the_attributes_are_saved() -> None:
    scheduler = lr_scheduler.CyclicLR(ours(), 0.01, 0.2, 3, scale_fn=Warmup(4))
    saved = scheduler.state_dict()
    assert saved["_scale_fn_custom"] == {"over": 4}
    other = Warmup(9)
    lr_scheduler.CyclicLR(ours(), 0.01, 0.2, 3, scale_fn=other).load_state_dict(saved)
    assert other.over == 4
