"""Restarts are where PyTorch has them, also at fractions of an epoch."""

from __future__ import annotations

from typing import Any

import pytest

from chainrule.engine.optim import lr_scheduler
from tests.engine.optim.lr_scheduler.cases import ours, settings, theirs


@pytest.mark.torch
@pytest.mark.parametrize("T_mult", [1, 2, 3])
def test_warm_restarts_take_fractions_of_an_epoch(T_mult: int, torch: Any) -> None:
    a, b = ours(), theirs(torch)
    x = lr_scheduler.CosineAnnealingWarmRestarts(a, 3, T_mult, eta_min=0.01)
    y = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(b, 3, T_mult, eta_min=0.01)
    for epoch in (0, 0.25, 1.5, 2.75, 3, 4.5, 8.75, 9.25, 20, 40.5, None, None, 2):
        x.step(epoch)
        y.step(epoch)
        assert settings(a) == settings(b)
        assert (x.last_epoch, x.T_cur, x.T_i) == (y.last_epoch, y.T_cur, y.T_i)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"T_0": 0}, "Expected positive integer T_0, but got 0"),
        ({"T_0": 2.5}, "Expected positive integer T_0, but got 2.5"),
        ({"T_0": 2, "T_mult": 0}, "Expected integer T_mult >= 1, but got 0"),
        ({"T_0": 2, "T_mult": 1.5}, "Expected integer T_mult >= 1, but got 1.5"),
        ({"T_0": 2, "eta_min": "a"}, "Expected float or int eta_min, but got a of type <class 'str'>"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused_as_by_pytorch(arguments: dict[str, Any], message: str, torch: Any) -> None:
    with pytest.raises(ValueError, match=message):
        lr_scheduler.CosineAnnealingWarmRestarts(ours(), **arguments)
    with pytest.raises(ValueError, match=message):
        torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(theirs(torch), **arguments)


@pytest.mark.torch
def test_a_negative_epoch_is_refused(torch: Any) -> None:
    for optimizer, module in ((ours(), lr_scheduler), (theirs(torch), torch.optim.lr_scheduler)):
        scheduler = module.CosineAnnealingWarmRestarts(optimizer, 3)
        with pytest.raises(ValueError, match="Expected non-negative epoch, but got -1"):
            scheduler.step(-1)
