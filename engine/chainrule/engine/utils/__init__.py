"""What helps training without being part of a model."""

from chainrule.engine import data
from chainrule.engine.utils import checkpoint

__all__ = ["checkpoint", "data"]
