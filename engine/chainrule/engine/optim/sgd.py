"""Stochastic gradient descent, as a pure update of arrays and as an optimizer of parameters."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.errors import ConfigError
from chainrule.engine.optim.arithmetic import in_blocks, scratch_for
from chainrule.engine.optim.optimizer import Group, Optimizer, Params, check_not_negative
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
    out: Array | None = None,
) -> Array | None:
    """One step of SGD on `parameter`, in place or into `out`; a function of the arguments only.

        g ← g + λ·p                    λ: weight_decay
        b ← μ·b + (1 − τ)·g            μ: momentum, τ: dampening; b = g on the first step
        g ← g + μ·b if nesterov else b
        p ← p − γ·g                    γ: lr

    Source: https://pytorch.org/docs/stable/generated/torch.optim.SGD.html

    Args:
        parameter: p; overwritten, unless there is `out`.
        gradient: g; left as it is.
        momentum_buffer: b, overwritten; None before the first step.
        lr: γ.
        momentum: μ.
        dampening: τ.
        weight_decay: λ.
        nesterov: whether to look ahead by the momentum.
        out: where the updated parameter goes, of p's shape; None: to p.

    Returns:
        The momentum buffer of the next step; None without momentum.
    """
    is_first = momentum_buffer is None
    if momentum != 0 and momentum_buffer is None:
        momentum_buffer = np.empty_like(parameter, gradient.dtype)
    for p, g, b, updated in in_blocks(parameter, gradient, momentum_buffer, parameter if out is None else out):
        scratch = scratch_for(p, g) if weight_decay != 0 or nesterov else None  # for more than one result on the way
        if weight_decay != 0:
            g = np.add(g, np.multiply(p, weight_decay, out=scratch), out=scratch)
        if momentum != 0:
            if is_first:
                b[...] = g
            else:
                b *= momentum
                b += g if dampening == 0 else (1 - dampening) * g
            g = np.add(g, momentum * b, out=scratch) if nesterov else b
        np.subtract(p, np.multiply(g, lr, out=scratch), out=updated)
    return momentum_buffer


class SGD(Optimizer):
    """`sgd_update` of every parameter that has a gradient.

    Args:
        params: parameters, named parameters, or dicts of them with settings of their own.
        lr: the learning rate.
        momentum: how much of the last step goes into this one.
        dampening: how much of the gradient the momentum leaves out.
        weight_decay: how much of the parameter is added to its gradient.
        nesterov: whether to look ahead by the momentum.
        maximize: whether to climb instead of descend.
        foreach: None or False; there is one implementation.
        differentiable: False; there is one implementation.
        fused: None or False; there is one implementation.

    Raises:
        ConfigError: a setting is out of range.
        UnsupportedError: an implementation that this version does not have.
    """

    per_element = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        settings = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, settings)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ConfigError("nesterov", nesterov, "Nesterov momentum requires a momentum and zero dampening")

    def check_group(self, group: Group) -> None:
        check_not_negative(group, "lr", "learning rate")
        check_not_negative(group, "momentum", "momentum value")
        check_not_negative(group, "weight_decay", "weight_decay value")

    def update(self, parameter: Tensor, gradient: Array, group: Group) -> None:
        momentum = float(group["momentum"])
        buffer = self.state[parameter].get("momentum_buffer") if momentum else None
        updated = sgd_update(
            parameter.data,
            -gradient if group["maximize"] else gradient,
            None if buffer is None else buffer.data,
            lr=float(group["lr"]),  # of Python: a number of numpy would make the arithmetic float64
            momentum=momentum,
            dampening=float(group["dampening"]),
            weight_decay=float(group["weight_decay"]),
            nesterov=group["nesterov"],
        )
        if updated is not None and buffer is None:
            self.state[parameter]["momentum_buffer"] = Tensor.wrap(np.asarray(updated))
