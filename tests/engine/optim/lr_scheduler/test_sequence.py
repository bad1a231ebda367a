"""Schedulers of schedulers refuse what does not go together."""

from __future__ import annotations

from typing import Any

import pytest

import chainrule.engine as cr
from chainrule.engine.optim import lr_scheduler
from tests.engine.optim.lr_scheduler.cases import ours, theirs


@pytest.mark.torch
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda s, o, _: s.SequentialLR(o, [], []), ValueError, "SequentialLR expects at least one scheduler"),
        (
            lambda s, o, _: s.SequentialLR(o, [s.StepLR(o, 1)], [1]),
            ValueError,
            "number of schedulers 1 and the number of milestones to be equal to 1",
        ),
        (
            lambda s, o, p: s.SequentialLR(o, [s.StepLR(o, 1), s.StepLR(p, 1)], [1]),
            ValueError,
            "expects all schedulers to belong to the same optimizer, but got scheduler StepLR at index 1",
        ),
        (
            lambda s, o, _: s.SequentialLR(o, [s.ReduceLROnPlateau(o)], []),
            ValueError,
            "does not support `ReduceLROnPlateau` scheduler",
        ),
        (lambda s, o, _: s.SequentialLR(o, [3], []), TypeError, "at index 0 should have `optimizer`"),
        (lambda s, o, _: s.ChainedScheduler([]), ValueError, "ChainedScheduler expects at least one scheduler"),
        (
            lambda s, o, p: s.ChainedScheduler([s.StepLR(o, 1), s.StepLR(p, 1)]),
            ValueError,
            "expects all schedulers to belong to the same optimizer",
        ),
        (
            lambda s, o, p: s.ChainedScheduler([s.StepLR(o, 1)], optimizer=p),
            ValueError,
            "expects all schedulers to belong to the same optimizer",
        ),
        (
            lambda s, o, _: s.ChainedScheduler([s.StepLR(o, 1), s.ReduceLROnPlateau(o)]),
            ValueError,
            "got one at index 1",
        ),
    ],
)
def test_schedulers_that_do_not_go_together_are_refused_as_by_pytorch(
    make: Any, error: type[Exception], message: str, torch: Any
) -> None:
    with pytest.raises(error, match=message) as caught:
        make(lr_scheduler, ours(), ours())
    assert isinstance(caught.value, cr.ChainruleError)
    with pytest.raises(error, match=message):
        make(torch.optim.lr_scheduler, theirs(torch), theirs(torch))


def test_a_sequence_cannot_begin_at_a_milestone() -> None:
    optimizer = ours()
    inner = lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.StepLR(optimizer, 1), lr_scheduler.StepLR(optimizer, 2)], [1]
    )
    outer = lr_scheduler.SequentialLR(optimizer, [lr_scheduler.ConstantLR(optimizer), inner], [1])
    optimizer.step()
    with pytest.raises(cr.UnsupportedError, match="list its schedulers there instead"):
        outer.step()
