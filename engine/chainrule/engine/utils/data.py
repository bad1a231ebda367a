"""The names of `chainrule.engine.data` where PyTorch has them."""

from chainrule.engine.data import *  # noqa: F403 - all of them
from chainrule.engine.data import __all__ as __all__
