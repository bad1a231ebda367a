"""Optimizers and schedulers take PyTorch's arguments, in its order and with its defaults."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from chainrule.engine import optim
from chainrule.engine.optim import lr_scheduler

METHODS = ["__init__", "step", "state_dict", "load_state_dict"]
OPTIMIZERS = ["Optimizer", "SGD", "Adam", "AdamW", "RMSprop"]


def arguments(function: Any) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.torch
@pytest.mark.parametrize("name", lr_scheduler.__all__)
def test_schedulers_take_pytorchs_arguments(name: str, torch: Any) -> None:
    for method in METHODS:
        ours, theirs = (getattr(getattr(m, name), method) for m in (lr_scheduler, torch.optim.lr_scheduler))
        assert arguments(ours) == arguments(theirs), method


@pytest.mark.torch
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_take_pytorchs_arguments(name: str, torch: Any) -> None:
    hooks = [method for method in vars(torch.optim.Optimizer) if method.startswith("register_")]
    for method in [*METHODS, "zero_grad", "add_param_group", *hooks]:
        ours, theirs = (getattr(getattr(m, name), method) for m in (optim, torch.optim))
        assert arguments(ours) == arguments(theirs), method


@pytest.mark.torch
def test_there_is_every_scheduler_of_pytorch(torch: Any) -> None:
    assert set(lr_scheduler.__all__) == set(torch.optim.lr_scheduler.__all__)
    assert lr_scheduler.__all__ == sorted(lr_scheduler.__all__)
