"""Activations."""

from __future__ import annotations

from chainrule.engine.functions.arithmetic import relu, sigmoid, tanh
from chainrule.engine.ops import loss
from chainrule.engine.tensor import Tensor

__all__ = ["log_softmax", "relu", "sigmoid", "softmax", "tanh"]


def softmax(input: Tensor, dim: int) -> Tensor:
    """eˣ / Σ eˣ along `dim`."""
    return loss.softmax(input, dim=dim)


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """x − log Σ eˣ along `dim`."""
    return loss.log_softmax(input, dim=dim)
