"""A scheduler that lowers the learning rate when a measure no longer improves."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, SupportsFloat

from chainrule.engine.errors import ConfigError
from chainrule.engine.optim.lr_scheduler.scheduler import EPOCH_GIVEN, LRScheduler, checked_optimizer
from chainrule.engine.optim.optimizer import Optimizer


class GroupsChangedError(ConfigError, RuntimeError):
    """The optimizer has other groups than when the scheduler was made."""


class ReduceLROnPlateau(LRScheduler):
    """Multiplies the rates by `factor` after more than `patience` epochs without an improvement.

    Args:
        optimizer: whose groups are scheduled.
        mode: "min" if the measure should fall, "max" if it should rise.
        factor: below 1.
        patience: how many epochs without an improvement are borne.
        threshold: by how much better a measure has to be to count.
        threshold_mode: whether `threshold` is "rel", a fraction of the best, or "abs".
        cooldown: for how many epochs after a reduction nothing is counted.
        min_lr: the least rate, or one for each group.
        eps: a smaller change of a rate is not made.

    Raises:
        ConfigError: a setting cannot be used.
        DTypeError: `optimizer` is none.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        if not factor < 1:
            raise ConfigError("factor", factor, "Factor should be < 1.0.")
        self.factor = factor
        self.optimizer = checked_optimizer(optimizer)
        count = len(optimizer.param_groups)
        self.default_min_lr: float | None
        if isinstance(min_lr, list | tuple):
            if len(min_lr) != count:
                raise ConfigError("min_lr", min_lr, f"expected {count} min_lrs, got {len(min_lr)}")
            self.default_min_lr, self.min_lrs = None, list(min_lr)
        else:
            self.default_min_lr, self.min_lrs = min_lr, [min_lr] * count  # type: ignore[assignment]
        if mode not in ("min", "max"):
            raise ConfigError("mode", mode, f"mode {mode} is unknown! Use 'min' or 'max'")
        if threshold_mode not in ("rel", "abs"):
            message = f"threshold mode {threshold_mode} is unknown! Use 'rel' or 'abs'"
            raise ConfigError("threshold_mode", threshold_mode, message)
        self.patience = patience
        self.cooldown = cooldown
        self.eps = eps
        self.mode = mode
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.mode_worse = math.inf if mode == "min" else -math.inf
        self.last_epoch = 0
        self._last_lr = self._rates()
        self._reset()

    def _reset(self) -> None:
        """Forgets what was measured."""
        self.best = self.mode_worse
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    @property
    def in_cooldown(self) -> bool:
        """Whether bad epochs are not counted now."""
        return self.cooldown_counter > 0

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:  # type: ignore[override]
        """Takes note of an epoch's measure, and lowers the rates if it is time.

        Raises:
            GroupsChangedError: groups were added, and `min_lr` was given for each group.
        """
        if epoch is not None:
            warnings.warn(EPOCH_GIVEN, UserWarning, stacklevel=2)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        measure = float(metrics)
        if self._is_better(measure, self.best):
            self.best, self.num_bad_epochs = measure, 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = self._rates()

    def _is_better(self, measure: float, best: float) -> bool:
        sign = -1 if self.mode == "min" else 1
        relative = self.threshold_mode == "rel"
        bound = best * (1.0 + sign * self.threshold) if relative else best + sign * self.threshold
        return measure < bound if self.mode == "min" else measure > bound

    def _reduce(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):
            if self.default_min_lr is None:
                raise GroupsChangedError(
                    "min_lr",
                    self.min_lrs,
                    f"The number of param groups in the `optimizer` ({len(groups)}) differs from when "
                    f"`ReduceLROnPlateau` was initialized ({len(self.min_lrs)}), usually due to a new param group "
                    "being added to the optimizer. Please modify the `min_lrs` field to match the length of the "
                    "`optimizer` param groups.",
                )
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, least in zip(groups, self.min_lrs, strict=True):
            rate = max(float(group["lr"]) * self.factor, least)
            if float(group["lr"]) - rate > self.eps:
                group["lr"] = rate

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.mode_worse = math.inf if self.mode == "min" else -math.inf
