"""The heavy operations by oneDNN, called through ctypes; what it does not have goes to `reference`."""

from chainrule.engine.kernels.onednn.activation import gelu, gelu_gradient, gelu_tanh, gelu_tanh_gradient
from chainrule.engine.kernels.onednn.convolution import conv2d, conv2d_input, conv2d_weight
from chainrule.engine.kernels.onednn.elementwise import add
from chainrule.engine.kernels.onednn.exponential import (
    log_softmax_gradient,
    safe_softmax,
    softmax,
    softmax_gradient,
)
from chainrule.engine.kernels.onednn.layer_normalization import layer_norm, layer_norm_gradients
from chainrule.engine.kernels.onednn.library import DISTRIBUTION, LibraryError
from chainrule.engine.kernels.onednn.library import find as load
from chainrule.engine.kernels.onednn.normalization import (
    batch_norm,
    batch_norm_fixed,
    batch_norm_gradients,
    batch_norm_relu,
)
from chainrule.engine.kernels.onednn.pooling import avg_pool2d, avg_unpool, max_pool2d, unpool
from chainrule.engine.kernels.onednn.products import linear, mm

__all__ = [
    "DISTRIBUTION",
    "LibraryError",
    "add",
    "avg_pool2d",
    "avg_unpool",
    "batch_norm",
    "batch_norm_fixed",
    "batch_norm_gradients",
    "batch_norm_relu",
    "conv2d",
    "conv2d_input",
    "conv2d_weight",
    "gelu",
    "gelu_gradient",
    "gelu_tanh",
    "gelu_tanh_gradient",
    "layer_norm",
    "layer_norm_gradients",
    "linear",
    "load",
    "log_softmax_gradient",
    "max_pool2d",
    "mm",
    "safe_softmax",
    "softmax",
    "softmax_gradient",
    "unpool",
]
