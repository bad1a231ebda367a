"""The heavy operations in pure numpy: plain enough to be the oracle of every other kernel.

Shapes are logically (N, C, H, W); memory comes out channels-last, (N, H, W, C), which is how a product of matrices
leaves it and how the next one wants it.
"""

from chainrule.engine.kernels.reference import (
    activation,
    convolution,
    exponential,
    layer_normalization,
    normalization,
    pooling,
    products,
)
from chainrule.engine.kernels.reference.elementwise import add, relu, relu_gradient
from chainrule.engine.kernels.reference.normalization import batch_moments
from chainrule.engine.kernels.reference.precision import in_float32

__all__ = [
    "add",
    "avg_pool2d",
    "avg_unpool",
    "batch_moments",
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
    "log_softmax",
    "log_softmax_gradient",
    "max_pool2d",
    "mm",
    "pick",
    "relu",
    "relu_gradient",
    "safe_softmax",
    "softmax",
    "softmax_gradient",
    "unpool",
]

avg_pool2d = in_float32(pooling.avg_pool2d)
avg_unpool = in_float32(pooling.avg_unpool)
batch_norm = in_float32(normalization.batch_norm)
batch_norm_fixed = in_float32(normalization.batch_norm_fixed)
batch_norm_gradients = in_float32(normalization.batch_norm_gradients)
batch_norm_relu = in_float32(normalization.batch_norm_relu)
conv2d = in_float32(convolution.conv2d)
conv2d_input = in_float32(convolution.conv2d_input)
conv2d_weight = convolution.conv2d_weight
gelu = in_float32(activation.gelu)
gelu_gradient = in_float32(activation.gelu_gradient)
gelu_tanh = in_float32(activation.gelu_tanh)
gelu_tanh_gradient = in_float32(activation.gelu_tanh_gradient)
layer_norm = in_float32(layer_normalization.layer_norm)
layer_norm_gradients = in_float32(layer_normalization.layer_norm_gradients)
linear = in_float32(products.linear)
log_softmax = in_float32(exponential.log_softmax)
log_softmax_gradient = in_float32(exponential.log_softmax_gradient)
max_pool2d = in_float32(pooling.max_pool2d)
mm = in_float32(products.mm)
pick = in_float32(pooling.pick)
safe_softmax = in_float32(exponential.safe_softmax)
softmax = in_float32(exponential.softmax)
softmax_gradient = in_float32(exponential.softmax_gradient)
unpool = in_float32(pooling.unpool)
