"""PyTorch's settings of cuDNN. They may be set and have no effect: the CPU's results are always the same bits."""

from __future__ import annotations

benchmark: bool = False
deterministic: bool = False
enabled: bool = True


def is_available() -> bool:
    """False."""
    return False
