"""What helps training without being part of a model."""

from chainrule.engine.utils import checkpoint, data

__all__ = ["checkpoint", "data"]
