"""What schedulers share: when they warn, what they refuse, what they leave to their kinds."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import chainrule.engine as cr
from chainrule.engine.optim import lr_scheduler
from chainrule.engine.optim.lr_scheduler.scheduler import ResumeError
from tests.engine.optim.lr_scheduler.cases import ours, settings, theirs


def both(torch: Any) -> list[tuple[Any, Any]]:
    return [(ours(), lr_scheduler), (theirs(torch), torch.optim.lr_scheduler)]


@pytest.mark.torch
def test_a_scheduler_stepped_before_its_optimizer_warns(torch: Any) -> None:
    for optimizer, module in both(torch):
        scheduler = module.StepLR(optimizer, 2)
        with pytest.warns(UserWarning, match=r"Detected call of `lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
            scheduler.step()


@pytest.mark.torch
@pytest.mark.filterwarnings("error")
def test_the_right_order_does_not_warn(torch: Any) -> None:
    for optimizer, module in both(torch):
        first = module.StepLR(optimizer, 2)
        optimizer.step()
        module.ExponentialLR(optimizer, 0.5).step()
        first.step()
        first.step()


@pytest.mark.torch
def test_steps_before_the_scheduler_was_made_do_not_count(torch: Any) -> None:
    for optimizer, module in both(torch):
        optimizer.step()
        scheduler = module.StepLR(optimizer, 2)
        with pytest.warns(UserWarning, match="Detected call"):
            scheduler.step()


@pytest.mark.torch
def test_asking_for_get_lr_outside_a_step_warns(torch: Any) -> None:
    for optimizer, module in both(torch):
        scheduler = module.ExponentialLR(optimizer, 0.5)
        with pytest.warns(UserWarning, match="please use `get_last_lr"):
            assert scheduler.get_lr() == [0.05, 0.15]
        assert scheduler.get_last_lr() == [0.1, 0.3]


@pytest.mark.torch
def test_resuming_an_optimizer_that_was_not_scheduled_is_refused(torch: Any) -> None:
    for optimizer, module in both(torch):
        with pytest.raises(KeyError, match=r"param 'initial_lr' is not specified in param_groups\[0\]"):
            module.StepLR(optimizer, 2, last_epoch=3)
    with pytest.raises(ResumeError) as caught:
        lr_scheduler.StepLR(ours(), 2, last_epoch=3)
    assert str(caught.value).startswith("last_epoch=3: param 'initial_lr'")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.torch
def test_something_that_is_no_optimizer_is_refused(torch: Any) -> None:
    for _, module in both(torch):
        for kind, *arguments in (["StepLR", 2], ["ReduceLROnPlateau"], ["OneCycleLR", 0.1, 10], ["CyclicLR", 0.1, 0.2]):
            with pytest.raises(TypeError, match="str is not an Optimizer"):
                getattr(module, str(kind))("sgd", *arguments)


@pytest.mark.torch
def test_a_scheduler_of_your_own_defines_get_lr_as_in_pytorch(torch: Any) -> None:
    for optimizer, module in both(torch):

        class Harmonic(module.LRScheduler):  # type: ignore[misc, name-defined]
            def get_lr(self) -> list[float]:
                return [rate / (1 + self.last_epoch) for rate in self.base_lrs]

        scheduler = Harmonic(optimizer)
        optimizer.step()
        scheduler.step()
        assert scheduler.get_last_lr() == [0.05, 0.15]
        assert [group["initial_lr"] for group in settings(optimizer)] == [0.1, 0.3]


def test_a_scheduler_that_defines_nothing_says_so() -> None:
    with pytest.raises(NotImplementedError, match="LRScheduler does not define get_lr"):
        lr_scheduler.LRScheduler(ours())


def test_scheduled_rates_are_those_the_optimizer_uses() -> None:
    optimizer = ours()
    p = optimizer.param_groups[0]["params"][0]
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    for expected in (0.9, 0.85, 0.825):
        p.grad = cr.ones(1)
        optimizer.step()
        scheduler.step()
        assert p.item() == pytest.approx(expected)
