"""Schedulers made of schedulers: one after another, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from chainrule.engine.errors import ConfigError, DTypeError, UnsupportedError
from chainrule.engine.optim.lr_scheduler.plateau import ReduceLROnPlateau
from chainrule.engine.optim.lr_scheduler.scheduler import LRScheduler
from chainrule.engine.optim.optimizer import Optimizer


class _Composite(LRScheduler):
    """Saves and loads the schedulers it is made of."""

    _schedulers: Sequence[LRScheduler]

    def _next_lr(self) -> list[float]:
        raise UnsupportedError(
            f"{type(self).__name__}: it has no rates of its own, so a SequentialLR cannot turn to it at a milestone; "
            "list its schedulers there instead"
        )

    def state_dict(self) -> dict[str, Any]:
        state = {key: value for key, value in super().state_dict().items() if key != "_schedulers"}
        return {**state, "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "_schedulers"})
        for scheduler, saved in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(saved)


class ChainedScheduler(_Composite):
    """Steps several schedulers at each step.

    Args:
        schedulers: all of one optimizer.
        optimizer: theirs, which it is by default.

    Raises:
        ConfigError: no schedulers, or some that do not go together.
        DTypeError: something that is no scheduler.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        _check_schedulers(type(self).__name__, schedulers, optimizer)
        self._schedulers = schedulers
        self.optimizer = optimizer or schedulers[0].optimizer
        self._last_lr = self._rates()

    def step(self) -> None:  # type: ignore[override]
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._rates()


class SequentialLR(_Composite):
    """One scheduler after another; each begins anew at its milestone.

    Args:
        optimizer: whose groups are scheduled.
        schedulers: all of this optimizer.
        milestones: the epochs at which the second, third, … begins.
        last_epoch: the epoch to go on from; −1 to begin.

    Raises:
        ConfigError: no schedulers, some that do not go together, or not a milestone between each two.
        DTypeError: something that is no scheduler.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        _check_schedulers(type(self).__name__, schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ConfigError(
                "milestones",
                milestones,
                "Sequential Schedulers expects number of schedulers provided to be one more than the number of "
                f"milestone points, but got number of schedulers {len(schedulers)} and the number of milestones to be "
                f"equal to {len(milestones)}",
            )
        self._schedulers = schedulers
        self._milestones = milestones
        self.last_epoch = last_epoch + 1
        self.optimizer = optimizer
        # The schedulers took their first steps when they were made: all are undone, and that of the first is redone.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        _undo_first_step(self)
        first = schedulers[bisect_right(milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def step(self) -> None:  # type: ignore[override]
        self.last_epoch += 1
        number = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[number]
        if number > 0 and self._milestones[number - 1] == self.last_epoch:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


def _undo_first_step(scheduler: LRScheduler) -> None:
    if isinstance(scheduler, _Composite):
        for part in scheduler._schedulers:
            _undo_first_step(part)
    else:
        scheduler.last_epoch -= 1


def _check_schedulers(name: str, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None) -> None:
    if not schedulers:
        raise ConfigError("schedulers", schedulers, f"{name} expects at least one scheduler, but got no scheduler.")
    for index, scheduler in enumerate(schedulers):
        if not hasattr(scheduler, "optimizer"):
            raise DTypeError(f"{name} at index {index} should have `optimizer` as its attribute.")
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ConfigError(
                f"schedulers[{index}]",
                type(scheduler).__name__,
                f"{name} does not support `ReduceLROnPlateau` scheduler as it requires additional kwargs to be "
                f"specified when calling `step`, but got one at index {index} in the given schedulers sequence.",
            )
        optimizer = optimizer or scheduler.optimizer
        if scheduler.optimizer is not optimizer:
            raise ConfigError(
                f"schedulers[{index}]",
                type(scheduler).__name__,
                f"{name} expects all schedulers to belong to the same optimizer, but got scheduler "
                f"{type(scheduler).__name__} at index {index} has {scheduler.optimizer}, which is different from "
                f"{type(optimizer).__name__}.",
            )
