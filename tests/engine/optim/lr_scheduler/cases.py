"""Schedulers to compare with PyTorch's: each row makes one from a module of schedulers and an optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chainrule.engine as cr
from chainrule.engine import nn, optim

Make = Callable[[Any, Any], Any]


class Warmup:
    """A factor with a state of its own."""

    def __init__(self, over: int) -> None:
        self.over = over

    def __call__(self, epoch: float) -> float:
        return min(1.0, (epoch + 1) / self.over)


CHAINABLE: dict[str, Make] = {
    "constant": lambda s, o: s.ConstantLR(o),
    "constant half": lambda s, o: s.ConstantLR(o, factor=0.5, total_iters=4),
    "constant one": lambda s, o: s.ConstantLR(o, factor=1.0, total_iters=0),
    "linear": lambda s, o: s.LinearLR(o),
    "linear down": lambda s, o: s.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=9),
    "exponential": lambda s, o: s.ExponentialLR(o, gamma=0.9),
    "step": lambda s, o: s.StepLR(o, step_size=3),
    "step half": lambda s, o: s.StepLR(o, 5, gamma=0.5),
    "multistep": lambda s, o: s.MultiStepLR(o, [2, 7, 7, 12], gamma=0.3),
    "polynomial": lambda s, o: s.PolynomialLR(o),
    "polynomial square": lambda s, o: s.PolynomialLR(o, total_iters=11, power=2.0),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, T_max=6),
    "cosine above": lambda s, o: s.CosineAnnealingLR(o, T_max=5, eta_min=0.01),
    "cosine one": lambda s, o: s.CosineAnnealingLR(o, T_max=1, eta_min=0.01),
}

CASES: dict[str, Make] = {
    **CHAINABLE,
    "lambda": lambda s, o: s.LambdaLR(o, lambda n: 0.95**n),
    "lambda each": lambda s, o: s.LambdaLR(o, [lambda n: n // 3, Warmup(5)]),
    "multiplicative": lambda s, o: s.MultiplicativeLR(o, lambda n: 1.0 if n % 2 else 0.8),
    "warm restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, T_0=4),
    "warm restarts longer": lambda s, o: s.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2, eta_min=0.001),
    "one cycle": lambda s, o: s.OneCycleLR(o, max_lr=0.5, total_steps=20),
    "one cycle linear": lambda s, o: s.OneCycleLR(o, [0.5, 1.0], epochs=4, steps_per_epoch=5, anneal_strategy="linear"),
    "one cycle of three": lambda s, o: s.OneCycleLR(o, 0.5, 20, three_phase=True, pct_start=0.25),
    "one cycle at once": lambda s, o: s.OneCycleLR(o, 0.5, 20, pct_start=0.0, div_factor=5, final_div_factor=10),
    "one cycle without momentum": lambda s, o: s.OneCycleLR(o, 0.5, 20, cycle_momentum=False),
    "one cycle momenta": lambda s, o: s.OneCycleLR(o, 0.5, 20, base_momentum=[0.7, 0.8], max_momentum=0.9),
    "cyclic": lambda s, o: s.CyclicLR(o, 0.01, 0.2, step_size_up=4),
    "cyclic halving": lambda s, o: s.CyclicLR(o, [0.01, 0.1], [0.2, 0.3], 3, step_size_down=4, mode="triangular2"),
    "cyclic exp": lambda s, o: s.CyclicLR(o, 0.01, 0.2, 3, mode="exp_range", gamma=0.9, cycle_momentum=False),
    "cyclic own": lambda s, o: s.CyclicLR(o, 0.01, 0.2, 3, scale_fn=Warmup(9), scale_mode="iterations"),
    "sequential": lambda s, o: s.SequentialLR(
        o, [s.ConstantLR(o, factor=0.1, total_iters=3), s.ExponentialLR(o, gamma=0.9)], milestones=[3]
    ),
    "sequential of three": lambda s, o: s.SequentialLR(
        o,
        [s.LinearLR(o, total_iters=4), s.CosineAnnealingLR(o, T_max=6), s.StepLR(o, 2, gamma=0.5)],
        milestones=[4, 10],
    ),
    "sequential restarts": lambda s, o: s.SequentialLR(
        o, [s.LambdaLR(o, Warmup(4)), s.CosineAnnealingWarmRestarts(o, T_0=3)], milestones=[4]
    ),
    "sequential at once": lambda s, o: s.SequentialLR(
        o, [s.ConstantLR(o), s.PolynomialLR(o, total_iters=8)], milestones=[0]
    ),
    "chained": lambda s, o: s.ChainedScheduler([s.ConstantLR(o, total_iters=4), s.ExponentialLR(o, 0.9)]),
    "chained given": lambda s, o: s.ChainedScheduler([s.StepLR(o, 2), s.CosineAnnealingLR(o, 5)], optimizer=o),
}


def ours(kind: str = "SGD", **settings: Any) -> Any:
    """An optimizer of two groups, with gradients."""
    parameters = [nn.Parameter(cr.ones(1)) for _ in range(2)]
    for p in parameters:
        p.grad = cr.zeros(1)
    return getattr(optim, kind)(groups(parameters), lr=0.1, **settings)


def theirs(torch: Any, kind: str = "SGD", **settings: Any) -> Any:
    """PyTorch's, beside it."""
    parameters = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    for p in parameters:
        p.grad = torch.zeros(1)
    return getattr(torch.optim, kind)(groups(parameters), lr=0.1, **settings)


def groups(parameters: list[Any]) -> list[dict[str, Any]]:
    return [{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 0.3}]


def settings(optimizer: Any) -> list[dict[str, Any]]:
    """All that the groups say: rates, momenta and what schedulers note there."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
