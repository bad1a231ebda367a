"""What programs ask of accelerators before they choose a device, and the answer: there is none."""

from __future__ import annotations

from chainrule.engine.layout import device

__all__ = ["current_accelerator", "device_count", "is_available"]


def is_available() -> bool:
    """False: tensors lie in the memory of the CPU."""
    return False


def current_accelerator(check_available: bool = False) -> device | None:  # noqa: ARG001 - PyTorch's argument
    """None."""
    return None


def device_count() -> int:
    """0."""
    return 0
