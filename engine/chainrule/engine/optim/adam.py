"""Adam and AdamW, as a pure update of arrays and as optimizers of parameters."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.errors import ConfigError
from chainrule.engine.optim.arithmetic import direction, in_blocks, move_average
from chainrule.engine.optim.optimizer import (
    Group,
    Optimizer,
    Params,
    check_not_negative,
    count_step,
    elementwise_state,
)
from chainrule.engine.tensor import Tensor


@np.errstate(all="ignore")  # as PyTorch, which gives inf and nan without a word
def adam_update(
    parameter: Array,
    gradient: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None = None,
    *,
    step: float,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> None:
    """One step of Adam on `parameter`, in place; a function of the arguments only.

        g ← −g if maximize
        p ← p − γ·λ·p if decoupled, else g ← g + λ·p       λ: weight_decay, γ: lr
        m ← m + (1 − β₁)·(g − m)                           m: exp_avg, β: betas
        v ← β₂·v + (1 − β₂)·g²                             v: exp_avg_sq
        u ← max(u, v) if it is given, else v               u: max_exp_avg_sq
        p ← p − γ/(1 − β₁ᵗ) · m / (√u/√(1 − β₂ᵗ) + ε)      t: step, ε: eps

    Source: https://arxiv.org/abs/1412.6980, algorithm 1; decoupled (AdamW): https://arxiv.org/abs/1711.05101,
    algorithm 2; with the maximum (AMSGrad): https://arxiv.org/abs/1904.09237, algorithm 2.

    Args:
        parameter: p; overwritten.
        gradient: g; left as it is.
        exp_avg: m, overwritten; 0 before the first step.
        exp_avg_sq: v, overwritten; 0 before the first step.
        max_exp_avg_sq: u, overwritten; 0 before the first step, or None.
        step: t, the number of this step, from 1.
        lr: γ.
        betas: β₁ and β₂.
        eps: ε.
        weight_decay: λ.
        decoupled_weight_decay: whether the parameter decays by itself (AdamW) or in the gradient.
        maximize: whether to climb instead of descend.
    """
    beta1, beta2 = betas
    for p, slope, m, v, u in in_blocks(parameter, gradient, exp_avg, exp_avg_sq, max_exp_avg_sq):
        scratch = np.empty_like(p)
        if decoupled_weight_decay and weight_decay != 0:
            p *= 1 - lr * weight_decay
        g = direction(slope, p, 0.0 if decoupled_weight_decay else weight_decay, maximize, scratch)

        move_average(m, g, beta1, scratch)
        np.multiply(g, g, out=scratch)
        scratch *= 1 - beta2
        v *= beta2
        v += scratch
        if u is not None:
            np.maximum(u, v, out=u)

        np.sqrt(v if u is None else u, out=scratch)
        scratch /= (1 - beta2**step) ** 0.5
        scratch += eps
        np.divide(m, scratch, out=scratch)
        scratch *= lr / (1 - beta1**step)
        p -= scratch


class Adam(Optimizer):
    """`adam_update` of every parameter that has a gradient.

    Args:
        params: parameters, named parameters, or dicts of them with settings of their own.
        lr: the learning rate.
        betas: how much of the averages of the gradient and of its square is kept at a step; two floats below 1.
        eps: what keeps the denominator from 0.
        weight_decay: how much of the parameter is added to its gradient.
        amsgrad: whether the average of the square never falls.
        foreach: None or False; there is one implementation.
        maximize: whether to climb instead of descend.
        capturable: False; there is one implementation.
        differentiable: False; there is one implementation.
        fused: None or False; there is one implementation.
        decoupled_weight_decay: whether the parameter decays by itself instead, as in AdamW.

    Raises:
        ConfigError: a setting is out of range.
        UnsupportedError: an implementation that this version does not have.
    """

    per_element = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        settings = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, settings)

    def check_group(self, group: Group) -> None:
        check_not_negative(group, "lr", "learning rate")
        check_not_negative(group, "eps", "epsilon value")
        for index, beta in enumerate(group["betas"]):
            if not 0 <= beta < 1:
                message = f"Invalid beta parameter at index {index}: {beta}; it must be at least 0 and below 1"
                raise ConfigError("betas", group["betas"], message)
        check_not_negative(group, "weight_decay", "weight_decay value")
        if len(group["betas"]) != 2 or not all(isinstance(beta, float) for beta in group["betas"]):
            message = "betas must be either both floats or both Tensors; give two floats"
            raise ConfigError("betas", group["betas"], message)

    def update(self, parameter: Tensor, gradient: Array, group: Group) -> None:
        state = self.state[parameter]
        beta1, beta2 = group["betas"]
        step = count_step(state)
        adam_update(
            parameter.data,
            gradient,
            elementwise_state(state, "exp_avg", parameter),
            elementwise_state(state, "exp_avg_sq", parameter),
            elementwise_state(state, "max_exp_avg_sq", parameter) if group["amsgrad"] else None,
            step=step,
            lr=float(group["lr"]),  # of Python: a number of numpy would make the arithmetic float64
            betas=(float(beta1), float(beta2)),
            eps=float(group["eps"]),
            weight_decay=float(group["weight_decay"]),
            decoupled_weight_decay=group["decoupled_weight_decay"],
            maximize=group["maximize"],
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: the parameter decays by itself, not in its gradient; see `Adam`."""

    fixed: ClassVar = {"decoupled_weight_decay": True}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )
