"""Stochastic gradient descent, as a pure update of arrays and as an optimizer of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chainrule.engine.dtypes import Array
from chainrule.engine.errors import ConfigError, UnsupportedError
from chainrule.engine.optim.optimizer import Optimizer
from chainrule.engine.tensor import Tensor


def sgd_update(
    parameter: Array,
    gradient: Array,
    momentum_buffer: Array | None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Array | None:
    """One step of SGD on `parameter`, in place; a function of the arguments only.

        g ← g + λ·p                    λ: weight_decay
        b ← μ·b + (1 − τ)·g            μ: momentum, τ: dampening; b = g on the first step
        g ← g + μ·b if nesterov else b
        p ← p − γ·g                    γ: lr

    Source: https://pytorch.org/docs/stable/generated/torch.optim.SGD.html

    Args:
        parameter: p; overwritten.
        gradient: g; left as it is.
        momentum_buffer: b, overwritten; None before the first step.
        lr: γ.
        momentum: μ.
        dampening: τ.
        weight_decay: λ.
        nesterov: whether to look ahead by the momentum.

    Returns:
        The momentum buffer of the next step; None without momentum.
    """
    g = gradient
    if weight_decay != 0:
        g = g + weight_decay * parameter
    if momentum != 0:
        if momentum_buffer is None:
            momentum_buffer = g.copy()
        else:
            momentum_buffer *= momentum
            momentum_buffer += g if dampening == 0 else (1 - dampening) * g
        g = g + momentum * momentum_buffer if nesterov else momentum_buffer
    parameter -= lr * g
    return momentum_buffer


class SGD(Optimizer):
    """`sgd_update` of every parameter that has a gradient.

    Args:
        params: parameters, or dicts of them with settings of their own: `{"params": [...], "lr": 0.1}`.
        lr: the learning rate.
        momentum: how much of the last step goes into this one.
        dampening: how much of the gradient the momentum leaves out.
        weight_decay: how much of the parameter is added to its gradient.
        nesterov: whether to look ahead by the momentum.
        maximize: not supported; negate the loss.

    Raises:
        ConfigError: a setting is out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        if maximize:
            raise UnsupportedError("SGD: maximize is not supported by this version; negate the loss")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
            },
        )

    def check_group(self, group: dict[str, Any]) -> None:
        if group["lr"] < 0:
            raise ConfigError("lr", group["lr"], f"Invalid learning rate: {group['lr']}; it must not be negative")
        if group["momentum"] < 0:
            raise ConfigError(
                "momentum", group["momentum"], f"Invalid momentum value: {group['momentum']}; it must not be negative"
            )
        if group["weight_decay"] < 0:
            raise ConfigError(
                "weight_decay",
                group["weight_decay"],
                f"Invalid weight_decay value: {group['weight_decay']}; it must not be negative",
            )
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ConfigError("nesterov", True, "Nesterov momentum requires a momentum and zero dampening")

    def update(self, parameter: Tensor, gradient: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        buffer = state.get("momentum_buffer")
        updated = sgd_update(
            parameter.data,
            gradient,
            None if buffer is None else buffer.data,
            lr=group["lr"],
            momentum=group["momentum"],
            dampening=group["dampening"],
            weight_decay=group["weight_decay"],
            nesterov=group["nesterov"],
        )
        if updated is not None and buffer is None:
            state["momentum_buffer"] = Tensor.wrap(updated)
