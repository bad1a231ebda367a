"""Layers, losses and networks."""

from chainrule.engine.nn import functional, init
from chainrule.engine.nn.containers import ModuleList, Sequential
from chainrule.engine.nn.layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    CrossEntropyLoss,
    Flatten,
    Identity,
    Linear,
    MaxPool2d,
    MSELoss,
    ReLU,
    Sigmoid,
    Tanh,
    collect_batch_statistics,
)
from chainrule.engine.nn.module import IncompatibleKeys, Module
from chainrule.engine.nn.parameter import Parameter

__all__ = [
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Flatten",
    "Identity",
    "IncompatibleKeys",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "collect_batch_statistics",
    "functional",
    "init",
]
