"""Whether Apple's GPUs can be used."""

from __future__ import annotations


def is_available() -> bool:
    """False: tensors lie in the memory of the CPU."""
    return False


def is_built() -> bool:
    """False."""
    return False
