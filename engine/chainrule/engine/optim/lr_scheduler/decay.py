"""Schedulers that multiply the learning rate by a factor at each step."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from types import FunctionType
from typing import Any

from chainrule.engine.errors import ConfigError, DTypeError
from chainrule.engine.optim.lr_scheduler.scheduler import Lambda, LRScheduler
from chainrule.engine.optim.optimizer import Optimizer


class _Decay(LRScheduler):
    """γₙ ← γₙ₋₁ · factor(n), so that several schedulers of one optimizer multiply."""

    def _factor(self) -> float:
        """By what the rate is multiplied at `last_epoch`."""
        raise NotImplementedError

    def _closed_factor(self) -> float:
        """By what the initial rate is multiplied at `last_epoch`: the product of the factors."""
        raise NotImplementedError

    def _next_lr(self) -> list[float]:
        return [group["lr"] * self._factor() for group in self.optimizer.param_groups]

    def _get_closed_form_lr(self) -> list[float]:
        return [rate * self._closed_factor() for rate in self.base_lrs]


class ConstantLR(_Decay):
    """A smaller rate for the first epochs.

        γₙ = γ₀ · (factor if n < total_iters else 1)

    Args:
        optimizer: whose groups are scheduled.
        factor: from 0 to 1.
        total_iters: for how many epochs.
        last_epoch: the epoch to go on from; −1 to begin.

    Raises:
        ConfigError: `factor` is outside its range.
    """

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        if not 0 <= factor <= 1:
            message = "Constant multiplicative factor expected to be between 0 and 1."
            raise ConfigError("factor", factor, message)
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _factor(self) -> float:
        if self.last_epoch == 0:
            return self.factor
        return 1 if self.last_epoch != self.total_iters else 1.0 / self.factor

    def _closed_factor(self) -> float:
        return self.factor + (self.last_epoch >= self.total_iters) * (1 - self.factor)


class LinearLR(_Decay):
    """A line from one factor to another.

        γₙ = γ₀ · (start + (end − start) · min(n, total_iters) / total_iters)

    Args:
        optimizer: whose groups are scheduled.
        start_factor: start; above 0, up to 1.
        end_factor: end; from 0 to 1.
        total_iters: how many epochs it takes.
        last_epoch: the epoch to go on from; −1 to begin.

    Raises:
        ConfigError: a factor is outside its range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            message = "Starting multiplicative factor expected to be greater than 0 and less or equal to 1."
            raise ConfigError("start_factor", start_factor, message)
        if not 0 <= end_factor <= 1:
            message = "Ending multiplicative factor expected to be between 0 and 1."
            raise ConfigError("end_factor", end_factor, message)
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _factor(self) -> float:
        n, rise = self.last_epoch, self.end_factor - self.start_factor
        if n == 0:
            return self.start_factor
        if self._is_initial or n > self.total_iters:
            return 1
        return 1.0 + rise / (self.total_iters * self.start_factor + (n - 1) * rise)

    def _closed_factor(self) -> float:
        rise = self.end_factor - self.start_factor
        return self.start_factor + rise * min(self.total_iters, self.last_epoch) / self.total_iters


class ExponentialLR(_Decay):
    """γₙ = γ₀ · gammaⁿ

    Args:
        optimizer: whose groups are scheduled.
        gamma: the factor of each epoch.
        last_epoch: the epoch to go on from; −1 to begin.
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self) -> float:
        return 1 if self._is_initial else self.gamma

    def _closed_factor(self) -> float:
        return float(self.gamma**self.last_epoch)


class StepLR(_Decay):
    """γₙ = γ₀ · gamma^⌊n / step_size⌋

    Args:
        optimizer: whose groups are scheduled.
        step_size: how many epochs a rate lasts.
        gamma: the factor between one rate and the next.
        last_epoch: the epoch to go on from; −1 to begin.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self) -> float:
        return 1 if self.last_epoch == 0 or self.last_epoch % self.step_size else self.gamma

    def _closed_factor(self) -> float:
        return float(self.gamma ** (self.last_epoch // self.step_size))


class MultiStepLR(_Decay):
    """γₙ = γ₀ · gamma^(how many milestones are ≤ n)

    Args:
        optimizer: whose groups are scheduled.
        milestones: the epochs at which the rate changes; one listed twice counts twice.
        gamma: the factor between one rate and the next.
        last_epoch: the epoch to go on from; −1 to begin.
    """

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self) -> float:
        return float(self.gamma ** self.milestones[self.last_epoch]) if self.last_epoch in self.milestones else 1

    def _closed_factor(self) -> float:
        return float(self.gamma ** bisect_right(sorted(self.milestones.elements()), self.last_epoch))


class PolynomialLR(_Decay):
    """γₙ = γ₀ · (1 − min(n, total_iters) / total_iters)^power

    Args:
        optimizer: whose groups are scheduled.
        total_iters: after how many epochs the rate is 0.
        power: 1 for a line.
        last_epoch: the epoch to go on from; −1 to begin.
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def _factor(self) -> float:
        n, total = self.last_epoch, self.total_iters
        if self._is_initial or n > total:
            return 1
        return float(((1.0 - n / total) / (1.0 - (n - 1) / total)) ** self.power)

    def _closed_factor(self) -> float:
        return float((1.0 - min(self.total_iters, self.last_epoch) / self.total_iters) ** self.power)


class LambdaLR(LRScheduler):
    """γₙ = γ₀ · f(n), with f of your own.

    Functions are not saved in `state_dict`; of objects that can be called, the attributes are.

    Args:
        optimizer: whose groups are scheduled.
        lr_lambda: f, or a list with one for each group.
        last_epoch: the epoch to go on from; −1 to begin.

    Raises:
        ConfigError: there are more or fewer functions than groups.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Lambda | Sequence[Lambda], last_epoch: int = -1) -> None:
        count = len(optimizer.param_groups)
        self.lr_lambdas: list[Lambda]
        if isinstance(lr_lambda, list | tuple):
            if len(lr_lambda) != count:
                message = f"Expected {count} lr_lambdas, but got {len(lr_lambda)}"
                raise ConfigError("lr_lambda", lr_lambda, message)
            self.lr_lambdas = list(lr_lambda)
        else:
            self.lr_lambdas = [lr_lambda] * count  # type: ignore[list-item]
        super().__init__(optimizer, last_epoch)

    def _next_lr(self) -> list[float]:
        return [rate * f(self.last_epoch) for f, rate in zip(self.lr_lambdas, self.base_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        saved = [None if isinstance(f, FunctionType) else vars(f).copy() for f in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "lr_lambdas"})
        for f, saved in zip(self.lr_lambdas, state_dict["lr_lambdas"], strict=True):
            if saved is not None:
                vars(f).update(saved)


class MultiplicativeLR(LambdaLR):
    """γₙ = γₙ₋₁ · f(n), with f of your own; see `LambdaLR`.

    Raises:
        DTypeError: something that is no function.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Lambda | Sequence[Lambda], last_epoch: int = -1) -> None:
        for f in lr_lambda if isinstance(lr_lambda, list | tuple) else [lr_lambda]:
            if not callable(f):
                raise DTypeError(f"lr_lambda should be a function, but got {type(f).__name__}")
        super().__init__(optimizer, lr_lambda, last_epoch)

    def _next_lr(self) -> list[float]:
        if self._is_initial:
            return self._rates()
        groups = self.optimizer.param_groups
        return [group["lr"] * f(self.last_epoch) for f, group in zip(self.lr_lambdas, groups, strict=True)]
