"""Optimizers, and schedulers of their learning rates."""

from chainrule.engine.optim import lr_scheduler
from chainrule.engine.optim.adam import Adam, AdamW, adam_update
from chainrule.engine.optim.optimizer import Optimizer
from chainrule.engine.optim.rmsprop import RMSprop, rmsprop_update
from chainrule.engine.optim.sgd import SGD, sgd_update

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "adam_update",
    "lr_scheduler",
    "rmsprop_update",
    "sgd_update",
]
