"""What programs ask of the CPU as of other devices."""

from __future__ import annotations

from chainrule.engine.cpu import amp

__all__ = ["amp", "current_device", "device_count", "is_available"]


def is_available() -> bool:
    """True: tensors lie in its memory."""
    return True


def device_count() -> int:
    """1."""
    return 1


def current_device() -> str:
    """Its name."""
    return "cpu"
