"""What one of our runs is to do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run of a work; what is computed is the same for all orders."""

    workers: int
    """Workers, each on one thread."""
    checkpoint_every_steps: int = 0
    """Steps from one checkpoint to the next; 0: one at the end only."""
    kill: str = ""
    """What is killed on the way: `worker`, `partition` or, empty, nothing."""
    kill_after_steps: int = 0
    """Steps done before that."""

    def to_json(self) -> str:
        """As the process takes it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        """The order that `to_json` wrote."""
        return cls(**json.loads(text))
