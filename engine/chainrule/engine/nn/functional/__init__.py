"""The layers as functions of their inputs and weights."""

from chainrule.engine.nn.functional.activation import log_softmax, relu, sigmoid, softmax, tanh
from chainrule.engine.nn.functional.convolution import conv2d
from chainrule.engine.nn.functional.linear import linear
from chainrule.engine.nn.functional.loss import cross_entropy, mse_loss, nll_loss
from chainrule.engine.nn.functional.normalization import batch_norm, batch_norm_with_statistics, running_update
from chainrule.engine.nn.functional.pooling import avg_pool2d, max_pool2d

__all__ = [
    "avg_pool2d",
    "batch_norm",
    "batch_norm_with_statistics",
    "conv2d",
    "cross_entropy",
    "linear",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "relu",
    "running_update",
    "sigmoid",
    "softmax",
    "tanh",
]
