"""The heavy operations in pure numpy: plain enough to be the oracle of every other kernel.

Shapes are logically (N, C, H, W); memory comes out channels-last, (N, H, W, C), which is how a product of matrices
leaves it and how the next one wants it.
"""

from chainrule.engine.kernels.reference.convolution import conv2d, conv2d_input, conv2d_weight
from chainrule.engine.kernels.reference.moments import batch_moments
from chainrule.engine.kernels.reference.pooling import avg_pool2d, avg_unpool, max_pool2d, pick, unpool

__all__ = [
    "avg_pool2d",
    "avg_unpool",
    "batch_moments",
    "conv2d",
    "conv2d_input",
    "conv2d_weight",
    "max_pool2d",
    "pick",
    "unpool",
]
