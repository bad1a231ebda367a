"""The works that are measured: what is trained on how many workers, for how many steps, and the goals."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

MOMENTUM = 0.9
LEARNING_RATE = 1e-4
"""Small, as all steps are to be alike: none on gradients that have vanished or grown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One training run that both sides take."""

    name: str
    """What `--only` takes."""
    title: str
    """What the table says."""
    network: str
    """`resnet18` or `mlp`."""
    batch: int
    """Examples in a step, over all workers."""
    shape: tuple[int, ...]
    """The pixels of an image's side; the widths of an MLP."""
    warmup_steps: int
    """Steps that do not count, at the beginning."""
    steps: int
    """Steps that count."""
    workers: int = 2
    """Processes that compute, each on one thread; also the shards that a batch is cut into."""
    goal: float | None = None
    """What DDP's time over ours should be at least."""
    scaling_goal: float | None = None
    """What our workers should reach at least, as a share of as many times a single worker's examples a second; None:
    the single worker is not measured."""

    @property
    def total_steps(self) -> int:
        """All steps, those of warming up included."""
        return self.warmup_steps + self.steps

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Of one example."""
        return (3, self.shape[0], self.shape[0]) if self.network == "resnet18" else self.shape[:1]

    @property
    def classes(self) -> int:
        """What the classifier tells apart."""
        return 1000 if self.network == "resnet18" else self.shape[-1]

    @property
    def family_config(self) -> dict[str, object]:
        """The configuration of our family of models that is called like the network."""
        if self.network == "resnet18":
            return {"num_classes": self.classes}
        return {"in_features": self.shape[0], "hidden": list(self.shape[1:-1]), "num_classes": self.classes}

    def to_json(self) -> str:
        """As a process takes it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Work:
        """The work that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        return cls(**{**fields, "shape": tuple(fields["shape"])})


def mlp_parameters(widths: Sequence[int]) -> int:
    """Σ (a + 1)·b over neighbouring widths a, b."""
    return sum((narrow + 1) * wide for narrow, wide in itertools.pairwise(widths))


def _mlp(widths: tuple[int, ...], batch: int, **settings: Any) -> Work:
    count = mlp_parameters(widths)
    size = f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"
    title = f"MLP {'-'.join(map(str, widths))} ({size} parameters), B{batch}"
    return Work(name=f"mlp-{widths[1]}", title=title, network="mlp", batch=batch, shape=widths, **settings)


WORKS = (
    Work(
        name="resnet18",
        title="ResNet-18 (11.7 M parameters), B32 64²",
        network="resnet18",
        batch=32,
        shape=(64,),
        warmup_steps=10,
        steps=50,
        goal=1.4,
        scaling_goal=0.9,
    ),
    _mlp((784, 4096, 4096, 10), 64, warmup_steps=10, steps=60, goal=2.0),
    _mlp((300, 300, 10), 8, warmup_steps=200, steps=2000, goal=2.5),
)
