"""The heavy operations by oneDNN, called through ctypes; what it does not have goes to `reference`."""

from chainrule.engine.kernels.onednn.convolution import conv2d, conv2d_input, conv2d_weight
from chainrule.engine.kernels.onednn.library import DISTRIBUTION, LibraryError
from chainrule.engine.kernels.onednn.library import find as load

__all__ = ["DISTRIBUTION", "LibraryError", "conv2d", "conv2d_input", "conv2d_weight", "load"]
