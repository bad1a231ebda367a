"""Datasets in memory."""

from __future__ import annotations

from dataclasses import dataclass

from chainrule.server.training.state import Array


@dataclass(frozen=True)
class Examples:
    """A dataset in memory."""

    inputs: Array
    """float32 features or int64 tokens, (N, ...)."""
    targets: Array
    """int64 class labels, -100 where there is none, or float32 numbers; (N, ...)."""

    def __len__(self) -> int:
        return len(self.inputs)
