"""Schedulers that follow a cosine, once or again and again."""

from __future__ import annotations

import math

from chainrule.engine.errors import ConfigError
from chainrule.engine.optim.lr_scheduler.scheduler import LRScheduler
from chainrule.engine.optim.optimizer import Optimizer


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate to the least; after `T_max` it rises again.

        γₙ = η + (γ₀ − η) · (1 + cos(π·n/T)) / 2

    computed from γₙ₋₁, so that other schedulers may change the rate too.

    Source: https://arxiv.org/abs/1608.03983, without the restarts

    Args:
        optimizer: whose groups are scheduled.
        T_max: T, the epochs until the rate is least.
        eta_min: η, the least rate.
        last_epoch: the epoch to go on from; −1 to begin.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def _next_lr(self) -> list[float]:
        if self._is_initial:
            return self._rates()
        n, T, low = self.last_epoch, self.T_max, self.eta_min
        if (n - 1 - T) % (2 * T) == 0:  # the last was the least: the ratio below would be 0 / 0
            rise = 1 - math.cos(math.pi / T)
            return [last + (first - low) * rise / 2 for first, last in zip(self.base_lrs, self._rates(), strict=True)]
        ratio = (1 + math.cos(math.pi * n / T)) / (1 + math.cos(math.pi * (n - 1) / T))
        return [ratio * (last - low) + low for last in self._rates()]

    def _get_closed_form_lr(self) -> list[float]:
        low, turn = self.eta_min, 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        return [low + (first - low) * turn / 2 for first in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine from the initial rate to the least, then from the start again, each time `T_mult` as long.

        γ = η + (γ₀ − η) · (1 + cos(π·T_cur/T_i)) / 2

    Source: https://arxiv.org/abs/1608.03983, equation 5

    Args:
        optimizer: whose groups are scheduled.
        T_0: the epochs until the first restart.
        T_mult: by what each run is longer than the one before.
        eta_min: η, the least rate.
        last_epoch: the epoch to go on from; −1 to begin.

    Raises:
        ConfigError: a setting is out of range.
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        if not isinstance(T_0, int) or T_0 <= 0:
            raise ConfigError("T_0", T_0, f"Expected positive integer T_0, but got {T_0}")
        if not isinstance(T_mult, int) or T_mult < 1:
            raise ConfigError("T_mult", T_mult, f"Expected integer T_mult >= 1, but got {T_mult}")
        if not isinstance(eta_min, float | int):
            message = f"Expected float or int eta_min, but got {eta_min} of type {type(eta_min)}"
            raise ConfigError("eta_min", eta_min, message)
        self.T_0 = T_0
        self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def _next_lr(self) -> list[float]:
        low, turn = self.eta_min, 1 + math.cos(math.pi * self.T_cur / self.T_i)
        return [low + (first - low) * turn / 2 for first in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Goes to the next epoch, or to `epoch`, which may be a fraction: `epoch + batch / num_batches`.

        Raises:
            ConfigError: `epoch` is negative.
        """
        if epoch is None and self.last_epoch >= 0:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            epoch = 0 if epoch is None else epoch
            if epoch < 0:
                raise ConfigError("epoch", epoch, f"Expected non-negative epoch, but got {epoch}")
            self._place(epoch)
        self.last_epoch = math.floor(epoch)
        with self._within_step():
            rates = self.get_lr()
        self._set(rates)

    def _place(self, epoch: float) -> None:
        """Finds the run that `epoch` is in, its length T_i and the place T_cur in it."""
        if epoch < self.T_0:
            self.T_i, self.T_cur = self.T_0, epoch
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:
            run = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
            self.T_i = self.T_0 * self.T_mult**run
            self.T_cur = epoch - self.T_0 * (self.T_mult**run - 1) / (self.T_mult - 1)
