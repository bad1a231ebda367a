"""Every scheduler gives PyTorch's rates and momenta, step by step and to the bit, also from a saved state."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from chainrule.engine.optim import lr_scheduler
from tests.engine.optim.lr_scheduler.cases import CASES, CHAINABLE, Make, ours, settings, theirs
from tests.engine.optim.twins import for_pytorch

STEPS = 20
pytestmark = pytest.mark.filterwarnings("error")


def advance(pairs: list[tuple[Any, Any]], steps: int) -> None:
    """Steps optimizers and their schedulers, which agree all the way; the last pair is PyTorch's."""
    for _ in range(steps):
        for optimizer, scheduler in pairs:
            optimizer.step()
            scheduler.step()
        *mine, (reference, expected) = pairs
        for optimizer, scheduler in mine:
            assert settings(optimizer) == settings(reference)
            assert scheduler.get_last_lr() == expected.get_last_lr()


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_rates_and_state_are_those_of_pytorch(make: Make, kind: str, torch: Any) -> None:
    a, b = ours(kind), theirs(torch, kind)
    pair = [(a, make(lr_scheduler, a)), (b, make(torch.optim.lr_scheduler, b))]
    assert settings(a) == settings(b)
    advance(pair, STEPS)
    assert pair[0][1].state_dict() == pair[1][1].state_dict()


@pytest.mark.torch
@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
@pytest.mark.parametrize("saved_after", [0, 1, 7])
def test_saved_states_go_on_here_and_there(make: Make, saved_after: int, torch: Any) -> None:
    a, b = ours(), theirs(torch)
    x, y = make(lr_scheduler, a), make(torch.optim.lr_scheduler, b)
    advance([(a, x), (b, y)], saved_after)
    pairs = []
    for optimizer, scheduler in ((a, x), (b, y)):
        saved_optimizer, saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
        for module, resumed in ((lr_scheduler, ours()), (torch.optim.lr_scheduler, theirs(torch))):
            going_on = make(module, resumed)
            fits = saved_optimizer if module is lr_scheduler else for_pytorch(torch, saved_optimizer)
            resumed.load_state_dict(copy.deepcopy(fits))
            going_on.load_state_dict(copy.deepcopy(saved))
            pairs.append((resumed, going_on))
    advance([*pairs, (b, y)], STEPS - saved_after)


@pytest.mark.torch
@pytest.mark.parametrize("make", CHAINABLE.values(), ids=CHAINABLE)
def test_an_epoch_may_be_given(make: Make, torch: Any) -> None:
    a, b = ours(), theirs(torch)
    pairs = [(a, make(lr_scheduler, a)), (b, make(torch.optim.lr_scheduler, b))]
    for epoch in (5, 2, 0, 13):
        for optimizer, scheduler in pairs:
            optimizer.step()
            with pytest.warns(UserWarning, match="The epoch parameter in"):
                scheduler.step(epoch)
        assert settings(a) == settings(b)
    advance(pairs, 3)


@pytest.mark.torch
@pytest.mark.parametrize("make", CHAINABLE.values(), ids=CHAINABLE)
@pytest.mark.parametrize("last_epoch", [0, 4])
def test_a_scheduler_made_anew_goes_on_from_an_epoch(make: Make, last_epoch: int, torch: Any) -> None:
    a, b = ours(), theirs(torch)
    first = [(a, make(lr_scheduler, a)), (b, make(torch.optim.lr_scheduler, b))]
    advance(first, last_epoch)
    kind = type(first[0][1]).__name__
    names = {"factor", "total_iters", "start_factor", "end_factor", "gamma", "step_size", "power", "T_max", "eta_min"}
    arguments = {name: value for name, value in vars(first[0][1]).items() if name in names}
    if kind == "MultiStepLR":
        arguments["milestones"] = [2, 7, 7, 12]
    again = [
        (optimizer, getattr(module, kind)(optimizer, **arguments, last_epoch=last_epoch))
        for optimizer, module in ((a, lr_scheduler), (b, torch.optim.lr_scheduler))
    ]
    assert settings(a) == settings(b)
    advance(again, 8)


@pytest.mark.torch
def test_two_schedulers_of_one_optimizer_multiply_as_in_pytorch(torch: Any) -> None:
    a, b = ours(), theirs(torch)
    for n in range(10):
        for optimizer, module in ((a, lr_scheduler), (b, torch.optim.lr_scheduler)):
            if n == 0:
                optimizer.both = [module.CosineAnnealingLR(optimizer, 6), module.StepLR(optimizer, 2)]
            optimizer.step()
            for scheduler in optimizer.both:
                scheduler.step()
        assert settings(a) == settings(b)


@pytest.mark.torch
def test_a_sequence_may_begin_with_a_sequence(torch: Any) -> None:
    pairs = []
    for optimizer, s in ((ours(), lr_scheduler), (theirs(torch), torch.optim.lr_scheduler)):
        inner = s.SequentialLR(optimizer, [s.ConstantLR(optimizer), s.StepLR(optimizer, 2)], milestones=[3])
        with pytest.warns(UserWarning, match="Detected call"):  # the inner one takes its first step once more
            outer = s.SequentialLR(optimizer, [inner, s.ExponentialLR(optimizer, 0.5)], milestones=[8])
        pairs.append((optimizer, outer))
    assert settings(pairs[0][0]) == settings(pairs[1][0])
    advance(pairs, STEPS)
    assert pairs[0][1].state_dict() == pairs[1][1].state_dict()


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_copies_and_pickles_go_on_with_their_own_optimizer(make: Make) -> None:
    optimizer = ours()
    scheduler = make(lr_scheduler, optimizer)
    advance([(optimizer, scheduler)], 4)
    pairs = [copy.deepcopy((optimizer, scheduler))]
    if "lambda" not in str(vars(scheduler)) + str([vars(s) for s in getattr(scheduler, "_schedulers", [])]):
        pairs.append(pickle.loads(pickle.dumps((optimizer, scheduler))))
    for copied, going_on in pairs:
        assert going_on.optimizer is copied
        assert copied is not optimizer
    before = settings(optimizer)
    advance(pairs, 5)
    assert settings(optimizer) == before
    advance([(optimizer, scheduler)], 5)
    assert all(settings(copied) == settings(optimizer) for copied, _ in pairs)
