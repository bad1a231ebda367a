"""What schedulers of the learning rate share: they count epochs and write the rates into the optimizer's groups."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from chainrule.engine.errors import ConfigError, DTypeError
from chainrule.engine.optim.optimizer import Optimizer

T = TypeVar("T")
Lambda = Callable[[int], float]

EPOCH_GIVEN = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where possible. Please use "
    "`scheduler.step()` to step the scheduler. If epoch is different from None, the closed form is used instead of the "
    "chainable form, where available."
)


class ResumeError(ConfigError, KeyError):
    """A scheduler is to go on from an epoch, but its optimizer has not been scheduled before."""


class LRScheduler:
    """Sets the learning rates of an optimizer's groups at each step; the first step is taken when it is made.

    A kind of scheduler defines `get_lr`. The rates the groups have at first are kept in them as `initial_lr`.

    Args:
        optimizer: whose groups are scheduled.
        last_epoch: the epoch to go on from; −1 to begin.

    Attributes:
        base_lrs: the `initial_lr` of each group.
        last_epoch: the number of steps since the beginning.

    Raises:
        DTypeError: `optimizer` is none.
        ResumeError: a group has no `initial_lr`, though `last_epoch` is not −1.
    """

    optimizer: Optimizer
    last_epoch: int
    base_lrs: list[float]
    _last_lr: list[float]
    _step_count: int
    _is_initial = False
    _get_lr_called_within_step = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = checked_optimizer(optimizer)
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ResumeError(
                    "last_epoch",
                    last_epoch,
                    f"param 'initial_lr' is not specified in param_groups[{number}] when resuming scheduler with "
                    "last_epoch >= 0. Load the state of the optimizer that was scheduled first, or begin with -1",
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        if not optimizer.scheduled:
            optimizer.scheduled, optimizer.stepped = True, False
        self._initial_step()

    def get_lr(self) -> list[float]:
        """The rate of each group at `last_epoch`, as `step` computes it; afterwards ask `get_last_lr`."""
        if not self._get_lr_called_within_step:
            warnings.warn(
                "To get the last learning rate computed by the scheduler, please use `get_last_lr()`.",
                UserWarning,
                stacklevel=2,
            )
        return self._next_lr()

    def _next_lr(self) -> list[float]:
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr")

    def _get_closed_form_lr(self) -> list[float]:
        """The rates at `last_epoch` from the initial ones; where there is no closed form, from the last ones."""
        return self.get_lr()

    def get_last_lr(self) -> list[float]:
        """The rates that the last step set."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Goes to the next epoch and sets its rates; call it after the optimizer's step.

        Args:
            epoch: the epoch to go to instead; deprecated in PyTorch.
        """
        if self._step_count == 1 and not self.optimizer.stepped:
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. In PyTorch 1.1.0 and later, you "
                "should call them in the opposite order: `optimizer.step()` before `lr_scheduler.step()`. Failure to "
                "do this will result in skipping the first value of the learning rate schedule. See more details at "
                "https://pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate",
                UserWarning,
                stacklevel=2,
            )
        self._step_count += 1
        if epoch is not None:
            warnings.warn(EPOCH_GIVEN, UserWarning, stacklevel=2)
        self._update_lr(epoch)

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def _update_lr(self, epoch: int | None = None) -> None:
        with self._within_step():
            if epoch is None:
                self.last_epoch += 1
                rates = self.get_lr()
            else:
                self.last_epoch = epoch
                rates = self._get_closed_form_lr()
        self._set(rates)

    @contextmanager
    def _within_step(self) -> Iterator[None]:
        self._get_lr_called_within_step = True
        try:
            yield
        finally:
            self._get_lr_called_within_step = False

    def _set(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = self._rates()

    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; the keys are PyTorch's."""
        return {key: value for key, value in vars(self).items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave. The optimizer's rates are loaded with the optimizer."""
        vars(self).update(state_dict)


def checked_optimizer(optimizer: object) -> Optimizer:
    """The optimizer, if it is one."""
    if not isinstance(optimizer, Optimizer):
        raise DTypeError(f"{type(optimizer).__name__} is not an Optimizer")
    return optimizer


def per_group(name: str, optimizer: Optimizer, value: T | Sequence[T]) -> list[T]:
    """A value for each group: those given, or the one given for all."""
    count = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [value] * count  # type: ignore[list-item]
    if len(value) != count:
        raise ConfigError(
            name,
            value,
            f"{name} must have the same length as optimizer.param_groups. {name} has {len(value)} values, "
            f"param_groups has {count}.",
        )
    return list(value)
