"""The demonstration: handwritten digits, learnt through the whole service."""

from chainrule.client.demo.digits import load_digits

__all__ = ["load_digits"]
