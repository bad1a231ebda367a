"""What programs ask of CUDA before they choose a device, and the answer: there is none."""

from __future__ import annotations

__all__ = ["device_count", "empty_cache", "is_available", "manual_seed", "manual_seed_all"]


def is_available() -> bool:
    """False: tensors lie in the memory of the CPU."""
    return False


def device_count() -> int:
    """0."""
    return 0


def manual_seed(seed: int) -> None:
    """Has no effect, as in PyTorch where there is no device."""


def manual_seed_all(seed: int) -> None:
    """Has no effect, as in PyTorch where there is no device."""


def empty_cache() -> None:
    """Has no effect, as in PyTorch where there is no device."""
