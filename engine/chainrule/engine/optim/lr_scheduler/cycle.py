"""Schedulers that raise and lower the learning rate, and the momentum against it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from chainrule.engine.errors import ConfigError
from chainrule.engine.optim.lr_scheduler.scheduler import LRScheduler, checked_optimizer, per_group
from chainrule.engine.optim.optimizer import Group, Optimizer


class OneCycleLR(LRScheduler):
    """Up to a high rate, then down far below the first; the momentum goes the other way. Step it after each batch.

    Between two rates a and b, at the fraction x of the phase:

        b + (a − b)/2 · (1 + cos(π·x))      "cos"
        a + (b − a)·x                       "linear"

    Source: https://arxiv.org/abs/1708.07120; two phases by default, as fast.ai has them

    Args:
        optimizer: whose groups are scheduled.
        max_lr: the highest rate, or one for each group.
        total_steps: how many steps the cycle has; else `epochs` · `steps_per_epoch`.
        epochs: how many epochs the cycle has.
        steps_per_epoch: how many steps an epoch has.
        pct_start: which fraction of the cycle the rate rises; a float.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: whether the momentum (β₁ where there are `betas`) cycles too.
        base_momentum: the lowest momentum, or one for each group.
        max_momentum: the highest momentum, or one for each group.
        div_factor: the first rate is max_lr / div_factor.
        final_div_factor: the last rate is the first / final_div_factor.
        three_phase: whether to come down to the first rate as fast as up, and only then to the last.
        last_epoch: the step to go on from; −1 to begin.

    Raises:
        ConfigError: a setting cannot be used; from `step`, the cycle is over.
        DTypeError: `optimizer` is none.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        checked_optimizer(optimizer)
        self.total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            message = f"Expected float between 0 and 1 pct_start, but got {pct_start}"
            raise ConfigError("pct_start", pct_start, message)
        if anneal_strategy not in ("cos", "linear"):
            message = f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            raise ConfigError("anneal_strategy", anneal_strategy, message)
        self._anneal_func_type = anneal_strategy
        self._schedule_phases = _phases(self.total_steps, pct_start, three_phase)
        rates = per_group("max_lr", optimizer, max_lr)
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["initial_lr"] = rate / div_factor
                group["max_lr"] = rate
                group["min_lr"] = group["initial_lr"] / final_div_factor
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.use_beta1 = begin_momentum_cycle(optimizer, base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch)

    def _next_lr(self) -> list[float]:
        n = self.last_epoch
        if n > self.total_steps:
            message = f"Tried to step {n} times. The specified number of total steps is {self.total_steps}"
            raise ConfigError("total_steps", self.total_steps, message)
        phase, x = self._place(n)
        groups = self.optimizer.param_groups
        if self.cycle_momentum:
            for group in groups:
                momentum = self._between(group[phase["start_momentum"]], group[phase["end_momentum"]], x)
                set_momentum(group, momentum, self.use_beta1)
        return [self._between(group[phase["start_lr"]], group[phase["end_lr"]], x) for group in groups]

    def _place(self, n: int) -> tuple[dict[str, Any], float]:
        """The phase that step `n` is in, and which fraction of it has passed."""
        start = 0.0
        *earlier, phase = self._schedule_phases
        for candidate in earlier:
            if n <= candidate["end_step"]:
                phase = candidate
                break
            start = candidate["end_step"]
        length = phase["end_step"] - start
        if not length:
            message = f"leaves the phase that ends with step {phase['end_step']} no length; change it or pct_start"
            raise ConfigError("total_steps", self.total_steps, message)
        return phase, (n - start) / length

    def _between(self, a: float, b: float, x: float) -> float:
        return b + (a - b) / 2.0 * (math.cos(math.pi * x) + 1) if self._anneal_func_type == "cos" else (b - a) * x + a


class CyclicLR(LRScheduler):
    """Up and down between two rates, again and again; the momentum goes the other way. Step it after each batch.

        γₙ = low + (high − low) · h(n) · s      h: a triangle from 0 to 1 and back to 0 in each cycle
        s = 1                                   "triangular"
        s = 1 / 2^(c − 1), c the cycle from 1   "triangular2"
        s = gammaⁿ                              "exp_range"

    Source: https://arxiv.org/abs/1506.01186, section 3

    Args:
        optimizer: whose groups are scheduled.
        base_lr: low, or one for each group; the rate at first.
        max_lr: high, or one for each group.
        step_size_up: how many steps the rate rises in a cycle.
        step_size_down: how many it falls; by default as many.
        mode: what s is, unless `scale_fn` is given.
        gamma: the constant of "exp_range".
        scale_fn: s, as a function of what `scale_mode` says.
        scale_mode: whether `scale_fn` takes the "cycle", from 1, or "iterations", the steps from 0.
        cycle_momentum: whether the momentum (β₁ where there are `betas`) cycles too.
        base_momentum: the lowest momentum, or one for each group.
        max_momentum: the highest momentum, or one for each group.
        last_epoch: the step to go on from; −1 to begin.

    Raises:
        ConfigError: a setting cannot be used.
        DTypeError: `optimizer` is none.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | Sequence[float],
        max_lr: float | Sequence[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.8,
        max_momentum: float | Sequence[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        checked_optimizer(optimizer)
        lows = per_group("base_lr", optimizer, base_lr)
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, lows, strict=True):
                group["lr"] = rate
        self.max_lrs = per_group("max_lr", optimizer, max_lr)
        up, down = float(step_size_up), float(step_size_up if step_size_down is None else step_size_down)
        self.total_size = up + down
        self.step_ratio = up / self.total_size
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            message = "mode is invalid and scale_fn is None; use 'triangular', 'triangular2' or 'exp_range'"
            raise ConfigError("mode", mode, message)
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        if scale_fn is None:
            scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.scale_mode = scale_mode
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.use_beta1 = begin_momentum_cycle(optimizer, base_momentum, max_momentum, last_epoch)
            self.base_momentums = per_group("base_momentum", optimizer, base_momentum)
            self.max_momentums = per_group("max_momentum", optimizer, max_momentum)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lows

    def scale_fn(self, x: float) -> float:
        """s, by which the height of the triangle is scaled."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular":
            return 1.0
        return 1 / 2.0 ** (x - 1) if self.mode == "triangular2" else float(self.gamma**x)

    def _next_lr(self) -> list[float]:
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            bounds = zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True)
            for group, low, high in bounds:
                set_momentum(group, high - (high - low) * height * scale, self.use_beta1)
        return [low + (high - low) * height * scale for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; of a `scale_fn` its attributes, if it is an object and no function."""
        f = self._scale_fn_custom
        saved = None if f is None or isinstance(f, FunctionType) else vars(f).copy()
        return {**super().state_dict(), "_scale_fn_custom": saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "_scale_fn_custom"})
        if state_dict["_scale_fn_custom"] is not None:
            vars(self._scale_fn_custom).update(state_dict["_scale_fn_custom"])


def begin_momentum_cycle(
    optimizer: Optimizer, base_momentum: float | Sequence[float], max_momentum: float | Sequence[float], last_epoch: int
) -> bool:
    """Notes the bounds of the momentum in the groups and sets it to the highest; gives whether it is β₁.

    Raises:
        ConfigError: the optimizer has no momentum, or the bounds are not as many as the groups.
    """
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        message = "optimizer must support momentum or beta1 with `cycle_momentum` option enabled"
        raise ConfigError("cycle_momentum", True, message)
    use_beta1 = "betas" in optimizer.defaults
    highs = per_group("max_momentum", optimizer, max_momentum)
    lows = per_group("base_momentum", optimizer, base_momentum)
    if last_epoch == -1:
        for group, low, high in zip(optimizer.param_groups, lows, highs, strict=True):
            set_momentum(group, high, use_beta1)
            group["max_momentum"] = high
            group["base_momentum"] = low
    return use_beta1


def set_momentum(group: Group, momentum: float, use_beta1: bool) -> None:
    """Sets a group's momentum, or its β₁."""
    if use_beta1:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum


def _total_steps(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    given = {"total_steps": total_steps}
    if total_steps is None:
        if epochs is None or steps_per_epoch is None:
            message = "You must define either total_steps OR (epochs AND steps_per_epoch)"
            raise ConfigError("total_steps", total_steps, message)
        given = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
    for name, value in given.items():
        if not isinstance(value, int) or value <= 0:
            raise ConfigError(name, value, f"Expected positive integer {name}, but got {value}")
    return math.prod(value for value in given.values() if value is not None)


def _phases(total: int, pct_start: float, three_phase: bool) -> list[dict[str, Any]]:
    """When each phase ends, and between which settings of a group it goes; in the form that PyTorch saves."""
    up = float(pct_start * total) - 1
    rise = _phase(up, "initial_lr", "max_lr", "max_momentum", "base_momentum")
    if not three_phase:
        return [rise, _phase(total - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")]
    return [
        rise,
        _phase(float(2 * pct_start * total) - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
        _phase(total - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
    ]


def _phase(end: float, start_lr: str, end_lr: str, start_momentum: str, end_momentum: str) -> dict[str, Any]:
    return {
        "end_step": end,
        "start_lr": start_lr,
        "end_lr": end_lr,
        "start_momentum": start_momentum,
        "end_momentum": end_momentum,
    }
