"""RMSprop, as a pure update of arrays and as an optimizer of parameters."""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.optim.arithmetic import direction, move_average
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
def rmsprop_update(
    parameter: Array,
    gradient: Array,
    square_avg: Array,
    grad_avg: Array | None = None,
    momentum_buffer: Array | None = None,
    *,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    maximize: bool = False,
) -> None:
    """One step of RMSprop on `parameter`, in place; a function of the arguments only.

        g ← −g if maximize
        g ← g + λ·p                              λ: weight_decay
        v ← α·v + (1 − α)·g²                     v: square_avg, α: alpha
        m ← m + (1 − α)·(g − m)                  m: grad_avg, if it is given (centered); else 0
        d ← g / (√(v − m²) + ε)                  ε: eps
        b ← μ·b + d                              b: momentum_buffer, if it is given; else b = d; μ: momentum
        p ← p − γ·b                              γ: lr

    Source: https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf, slide 29; centered:
    https://arxiv.org/abs/1308.0850, equations 38 to 41, with ε outside the root as in
    https://pytorch.org/docs/stable/generated/torch.optim.RMSprop.html

    Args:
        parameter: p; overwritten.
        gradient: g; left as it is.
        square_avg: v, overwritten; 0 before the first step.
        grad_avg: m, overwritten; 0 before the first step, or None.
        momentum_buffer: b, overwritten; 0 before the first step, or None.
        lr: γ.
        alpha: α.
        eps: ε.
        weight_decay: λ.
        momentum: μ.
        maximize: whether to climb instead of descend.
    """
    p, v, m, b = parameter, square_avg, grad_avg, momentum_buffer
    scratch = np.empty_like(p)
    g = direction(gradient, p, weight_decay, maximize, scratch)

    np.multiply(g, g, out=scratch)
    scratch *= 1 - alpha
    v *= alpha
    v += scratch

    if m is None:
        np.sqrt(v, out=scratch)
    else:
        move_average(m, g, alpha, scratch)
        np.multiply(m, m, out=scratch)
        np.subtract(v, scratch, out=scratch)
        np.sqrt(scratch, out=scratch)
    scratch += eps
    np.divide(g, scratch, out=scratch)

    if b is not None:
        b *= momentum
        b += scratch
        np.copyto(scratch, b)
    scratch *= lr
    p -= scratch


class RMSprop(Optimizer):
    """`rmsprop_update` of every parameter that has a gradient.

    Args:
        params: parameters, named parameters, or dicts of them with settings of their own.
        lr: the learning rate.
        alpha: how much of the average of the squared gradient is kept at a step.
        eps: what keeps the denominator from 0.
        weight_decay: how much of the parameter is added to its gradient.
        momentum: how much of the last step goes into this one.
        centered: whether to divide by the deviation from the average gradient instead of from 0.
        capturable: False; there is one implementation.
        foreach: None or False; there is one implementation.
        maximize: whether to climb instead of descend.
        differentiable: False; there is one implementation.

    Raises:
        ConfigError: a setting is out of range.
        UnsupportedError: an implementation that this version does not have.
    """

    per_element = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        settings = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, settings)

    def check_group(self, group: Group) -> None:
        check_not_negative(group, "lr", "learning rate")
        check_not_negative(group, "eps", "epsilon value")
        check_not_negative(group, "momentum", "momentum value")
        check_not_negative(group, "weight_decay", "weight_decay value")
        check_not_negative(group, "alpha", "alpha value")

    def update(self, parameter: Tensor, gradient: Array, group: Group) -> None:
        state = self.state[parameter]
        count_step(state)
        square_avg = elementwise_state(state, "square_avg", parameter)
        momentum_buffer = elementwise_state(state, "momentum_buffer", parameter) if group["momentum"] > 0 else None
        grad_avg = elementwise_state(state, "grad_avg", parameter) if group["centered"] else None
        rmsprop_update(
            parameter.data,
            gradient,
            square_avg,
            grad_avg,
            momentum_buffer,
            lr=float(group["lr"]),  # of Python: a number of numpy would make the arithmetic float64
            alpha=float(group["alpha"]),
            eps=float(group["eps"]),
            weight_decay=float(group["weight_decay"]),
            momentum=float(group["momentum"]),
            maximize=group["maximize"],
        )
