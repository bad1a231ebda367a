"""Losses scaled up before `backward`, so that small gradients survive float16, and gradients scaled down again.

    scale' = scale · backoff_factor     after a step whose gradients were not all finite, which is left out
           = scale · growth_factor      after growth_interval steps in a row that were
           = scale                      otherwise

Source: Micikevicius et al., Mixed Precision Training, https://arxiv.org/abs/1710.03740
"""

from __future__ import annotations

import enum
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.engine.autograd.mode import no_grad
from chainrule.engine.creation import full
from chainrule.engine.dtypes import float16, float32
from chainrule.engine.errors import ArgumentError, AutogradError, ChainruleError, StateDictError
from chainrule.engine.tensor import Tensor


class GradScalerError(ChainruleError, AssertionError):
    """A setting out of range, or a call too early; PyTorch asserts that there is none."""


class _Stage(enum.Enum):
    """How far an optimizer has come since the last update: READY → UNSCALED → STEPPED."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


@dataclass
class _Progress:
    stage: _Stage = _Stage.READY
    found: bool | None = None
    """Whether a gradient was not finite; None if there were no gradients to look at."""


class GradScaler:
    """Scales losses, and steps optimizers with the gradients scaled back, unless one of them is infinite or nan.

        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    bfloat16 has float32's range and needs no scaling; float16 does.

    Args:
        device: "cpu"; "cuda", PyTorch's default, warns and disables the scaler.
        init_scale: the first scale.
        growth_factor: more than 1.
        backoff_factor: less than 1.
        growth_interval: in steps.
        enabled: False leaves losses and gradients as they are.

    Raises:
        GradScalerError: a factor is out of range.
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        if device == "cuda" and enabled:
            warnings.warn("torch.cuda.amp.GradScaler is enabled, but CUDA is not available.  Disabling.", stacklevel=2)
            enabled = False
        if enabled and growth_factor <= 1.0:
            raise GradScalerError("The growth factor must be > 1.0.")
        if enabled and backoff_factor >= 1.0:
            raise GradScalerError("The backoff factor must be < 1.0.")
        self._device = device
        self._enabled = enabled
        self._init_scale = init_scale
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._growth_tracker = 0
        self._scale: Tensor | None = None  # a 0-d float32 tensor, from the first call of `scale` on
        self._progress: dict[int, _Progress] = {}

    # ---- A step ----

    def scale(self, outputs: Any) -> Any:
        """A tensor, or each of an iterable of tensors, times the scale.

        Raises:
            ArgumentError: neither.
        """
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            if self._scale is None:
                self._scale = full((), self._init_scale, dtype=float32)
            return outputs * self._scale
        if not isinstance(outputs, Iterable):
            raise ArgumentError("outputs must be a Tensor or an iterable of Tensors")
        scaled = map(self.scale, outputs)
        return type(outputs)(scaled) if isinstance(outputs, list | tuple) else scaled

    def unscale_(self, optimizer: Any) -> None:
        """Divides the gradients of the optimizer's parameters by the scale, and sees whether they are all finite.

        `step` does so unless it has been done, as for `clip_grad_norm_`.

        Raises:
            AutogradError: it has been done since the last `update`.
            GradScalerError: nothing has been scaled yet.
            ArgumentError: a gradient is of float16: parameters belong in float32.
        """
        if not self._enabled:
            return
        scale = self._checked_scale("unscale_")
        progress = self._of(optimizer)
        if progress.stage is _Stage.UNSCALED:
            raise AutogradError("unscale_() has already been called on this optimizer since the last update().")
        if progress.stage is _Stage.STEPPED:
            raise AutogradError("unscale_() is being called after step().")
        inverse = float(np.float32(1 / float(scale.item())))
        with no_grad():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    gradient = parameter.grad
                    if gradient is None:
                        continue
                    if gradient.dtype == float16:
                        raise ArgumentError("Attempting to unscale FP16 gradients.")
                    progress.found = bool(progress.found) or not bool(np.isfinite(gradient.data).all())
                    gradient.mul_(inverse)
        progress.stage = _Stage.UNSCALED

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """`unscale_`, unless it was called, and then `optimizer.step(...)`, if the gradients are all finite.

        Returns:
            what the optimizer's step gives, or None.

        Raises:
            AutogradError: a second step since the last `update`, or one with a closure.
            GradScalerError: nothing has been scaled yet, or there are no gradients.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise AutogradError("Closure use is not currently supported if GradScaler is enabled.")
        self._checked_scale("step")
        progress = self._of(optimizer)
        if progress.stage is _Stage.STEPPED:
            raise AutogradError("step() has already been called since the last update().")
        if progress.stage is _Stage.READY:
            self.unscale_(optimizer)
        if progress.found is None:
            raise GradScalerError("No inf checks were recorded for this optimizer.")
        result = None if progress.found else optimizer.step(*args, **kwargs)
        progress.stage = _Stage.STEPPED
        return result

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Sets the scale of the next iteration: `new_scale`, or by the formula above.

        Raises:
            GradScalerError: nothing has been scaled or stepped yet, or `new_scale` is no number.
        """
        if not self._enabled:
            return
        scale = self._checked_scale("update")
        if new_scale is not None:
            self._set_scale(scale, _number(new_scale))
        else:
            found = [progress.found for progress in self._progress.values() if progress.found is not None]
            if not found:
                raise GradScalerError("No inf checks were recorded prior to update.")
            self._adapt(scale, any(found))
        self._progress = {}

    def _adapt(self, scale: Tensor, found: bool) -> None:
        now = float(scale.item())
        if found:
            self._set_scale(scale, now * self._backoff_factor)
            self._growth_tracker = 0
            return
        self._growth_tracker += 1
        if self._growth_tracker == self._growth_interval:
            with np.errstate(over="ignore"):
                grown = np.float32(now * self._growth_factor)
            if np.isfinite(grown):
                self._set_scale(scale, float(grown))
            self._growth_tracker = 0

    def _set_scale(self, scale: Tensor, value: float) -> None:
        with no_grad():
            scale.fill_(value)

    def _of(self, optimizer: Any) -> _Progress:
        return self._progress.setdefault(id(optimizer), _Progress())

    def _checked_scale(self, function: str) -> Tensor:
        if self._scale is None:
            raise GradScalerError(
                f"Attempted {function} but _scale is None.  This may indicate your script did not use "
                "scaler.scale(loss or outputs) earlier in the iteration."
            )
        return self._scale

    # ---- What is set ----

    def is_enabled(self) -> bool:
        """Whether it scales."""
        return self._enabled

    def get_scale(self) -> float:
        """The scale; 1 if it is not enabled."""
        if not self._enabled:
            return 1.0
        return self._init_scale if self._scale is None else float(self._scale.item())

    def get_growth_factor(self) -> float:
        """By how much the scale grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Sets by how much the scale grows."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """By how much the scale shrinks."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Sets by how much the scale shrinks."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many finite steps in a row the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Sets after how many finite steps in a row the scale grows."""
        self._growth_interval = new_interval

    # ---- Saved and loaded ----

    def state_dict(self) -> dict[str, Any]:
        """The scale, the settings, and the number of finite steps in a row; nothing if it is not enabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave; has no effect if it is not enabled.

        Raises:
            StateDictError: it is empty.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise StateDictError(
                "The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler."
            )
        self._init_scale = state_dict["scale"]
        if self._scale is not None:
            self._set_scale(self._scale, self._init_scale)
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._growth_tracker = state_dict["_growth_tracker"]

    def __getstate__(self) -> dict[str, Any]:
        if self._progress:
            raise GradScalerError(
                "A GradScaler instance may only be pickled at the beginning of an iteration, or at the end after "
                "scaler.update()."
            )
        return {**self.__dict__, "_init_scale": self.get_scale(), "_scale": None}


def _number(scale: float | Tensor) -> float:
    if isinstance(scale, float):
        return scale
    if not isinstance(scale, Tensor) or scale.numel() != 1 or scale.requires_grad:
        raise GradScalerError(
            "new_scale should be a float or a 1-element torch.cuda.FloatTensor or torch.FloatTensor with "
            "requires_grad=False."
        )
    return float(scale.item())
