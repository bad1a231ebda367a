"""Optimizers."""

from chainrule.engine.optim.optimizer import Optimizer
from chainrule.engine.optim.sgd import SGD, sgd_update

__all__ = ["SGD", "Optimizer", "sgd_update"]
