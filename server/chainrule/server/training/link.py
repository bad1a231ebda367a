"""How a worker and the parameter server exchange a step. Users of a link see the interface only; what
carries the bytes can change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from chainrule.engine import ChainruleError
from chainrule.server.training.reduction import Block
from chainrule.server.training.state import Arrays, Contribution


class LinkError(ChainruleError):
    """The other side did not answer in time."""


@dataclass(frozen=True)
class Push:
    """What a worker sends in a step."""

    fence: int
    """Attempt of the job that the worker belongs to; a partition refuses those of another one."""
    step: int
    """Number of the step, from 0: the version of the weights the gradients were computed with."""
    worker: int
    """Index of the worker, for messages."""
    blocks: tuple[tuple[Block, Contribution], ...]
    """Sums over aligned blocks of shards."""


@dataclass(frozen=True)
class Weights:
    """What a worker gets back: the weights to compute the next step with."""

    step: int
    """Steps these weights have seen."""
    parameters: Arrays
    """Trainable values by name. Shared and read-only."""


class Link(Protocol):
    """A worker's connection to the parameter server. Not for use from several threads."""

    def pull(self) -> Weights:
        """The weights as they are now."""

    def send(self, push: Push) -> None:
        """Hand over a step's contribution without waiting for the answer."""

    def receive(self) -> Weights:
        """Wait for the answer to `send`: the next weights, once all shards have come in.

        Raises LinkError if it takes longer than the link's time limit.
        """
