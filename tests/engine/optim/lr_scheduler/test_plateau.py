"""Rates fall on the plateaus on which PyTorch's fall."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.optim import lr_scheduler
from tests.engine.optim.lr_scheduler.cases import ours, settings, theirs

MEASURES = [*(1 / (1 + n) for n in range(5)), *[0.2] * 8, 0.1, 0.05, *[0.0501] * 9, float("nan"), -0.2, *[0.3] * 12]

ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"patience": 0},
    {"patience": 2, "factor": 0.5},
    {"patience": 2, "cooldown": 3},
    {"patience": 1, "mode": "max"},
    {"patience": 1, "threshold": 0.5},
    {"patience": 1, "threshold": 0.1, "threshold_mode": "abs"},
    {"patience": 1, "threshold": 0.1, "threshold_mode": "abs", "mode": "max"},
    {"patience": 0, "factor": 0.5, "min_lr": 0.01},
    {"patience": 0, "factor": 0.5, "min_lr": [0.01, 0.02]},
    {"patience": 0, "factor": 0.1, "eps": 0.01},
]


@pytest.mark.torch
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_rates_and_state_are_those_of_pytorch(arguments: dict[str, Any], torch: Any) -> None:
    a, b, c = ours(), theirs(torch), ours()
    x = lr_scheduler.ReduceLROnPlateau(a, **arguments)
    y = torch.optim.lr_scheduler.ReduceLROnPlateau(b, **arguments)
    resumed = lr_scheduler.ReduceLROnPlateau(c, mode=arguments.get("mode", "min"))
    for n, measure in enumerate(MEASURES):
        x.step(cr.tensor(np.float64(measure)))
        y.step(measure)
        assert settings(a) == settings(b)
        assert x.get_last_lr() == y.get_last_lr()
        if n == 10:
            c.load_state_dict(b.state_dict())
            resumed.load_state_dict(copy.deepcopy(y.state_dict()))
        if n > 10:
            resumed.step(np.float64(measure))
            assert settings(c) == settings(b)
        saved, expected = x.state_dict(), y.state_dict()
        assert saved == expected
        assert x.in_cooldown == y.in_cooldown


@pytest.mark.torch
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 1.0}, "Factor should be < 1.0."),
        ({"min_lr": [0.1]}, "expected 2 min_lrs, got 1"),
        ({"mode": "mean"}, "mode mean is unknown!"),
        ({"threshold_mode": "log"}, "threshold mode log is unknown!"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused_as_by_pytorch(arguments: dict[str, Any], message: str, torch: Any) -> None:
    with pytest.raises(ValueError, match=message):
        lr_scheduler.ReduceLROnPlateau(ours(), **arguments)
    with pytest.raises(ValueError, match=message):
        torch.optim.lr_scheduler.ReduceLROnPlateau(theirs(torch), **arguments)


@pytest.mark.torch
def test_groups_added_later_need_a_least_rate(torch: Any) -> None:
    for optimizer, module, p in (
        (ours(), lr_scheduler, cr.nn.Parameter(cr.ones(1))),
        (theirs(torch), torch.optim.lr_scheduler, torch.nn.Parameter(torch.ones(1))),
    ):
        strict = module.ReduceLROnPlateau(optimizer, patience=0, min_lr=[0.0, 0.0])
        lenient = module.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        optimizer.add_param_group({"params": p, "lr": 1.0})
        for scheduler in (strict, lenient):
            scheduler.step(1.0)
        lenient.step(1.0)
        assert optimizer.param_groups[2]["lr"] == 0.5
        with pytest.raises(RuntimeError, match=r"number of param groups in the `optimizer` \(3\) differs"):
            strict.step(1.0)


@pytest.mark.torch
def test_an_epoch_may_be_given(torch: Any) -> None:
    for optimizer, module in ((ours(), lr_scheduler), (theirs(torch), torch.optim.lr_scheduler)):
        scheduler = module.ReduceLROnPlateau(optimizer)
        with pytest.warns(UserWarning, match="The epoch parameter in"):
            scheduler.step(1.0, epoch=7)
        assert scheduler.last_epoch == 7
