"""The layers: modules with nothing but parameters, buffers and a function of `functional`."""

from chainrule.engine.nn.layers.activation import ReLU, Sigmoid, Tanh
from chainrule.engine.nn.layers.batch_norm import BatchNorm2d, collect_batch_statistics
from chainrule.engine.nn.layers.convolution import Conv2d
from chainrule.engine.nn.layers.linear import Flatten, Identity, Linear
from chainrule.engine.nn.layers.loss import CrossEntropyLoss, MSELoss
from chainrule.engine.nn.layers.pooling import AvgPool2d, MaxPool2d

__all__ = [
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Flatten",
    "Identity",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "ReLU",
    "Sigmoid",
    "Tanh",
    "collect_batch_statistics",
]
