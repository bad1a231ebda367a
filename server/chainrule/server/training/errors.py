"""What goes wrong in training."""

from __future__ import annotations

from chainrule.engine import ChainruleError


class LostPartError(ChainruleError):
    """A process of the job is gone: nothing is wrong with the job itself, it can go on from its last checkpoint."""


class PlacementError(ChainruleError):
    """The cluster has no room for the job's parts."""


class LinkError(ChainruleError):
    """The other side of a link is gone, or does not answer in time."""


class RejectedError(ChainruleError):
    """The other side refuses what came: a push of an attempt, a lease or a step that is over."""


class NonFiniteError(ChainruleError):
    """The loss, a gradient or a parameter became NaN or infinite."""


class FingerprintError(ChainruleError):
    """Workers that do not compute with the same kernels, instruction set, threads and versions."""


class CorruptionError(ChainruleError):
    """A gradient was computed several times and no two results are the same."""


class ObjectiveError(ChainruleError):
    """A loss or a metric does not go with the model's outputs or the dataset's targets."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(field, description)
        self.field = field
        """Which setting: "losses[0].class_weights", or what follows it in one of them."""
        self.description = description
        """The value it has and the remedy."""

    def __str__(self) -> str:
        return f"{self.field} {self.description}".strip()


class DatasetError(ChainruleError):
    """Examples that cannot be read: a chunk is missing, or damaged."""
