"""Ways to run PyTorch's DDP: which is the best depends on the network and on the machine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run DDP; which is PyTorch's best depends on the network."""

    channels_last: bool = False
    """The order in memory of images and convolutions' weights."""
    tuned: bool = False
    """Whether the graph is declared static, gradients are views of the buckets that travel, and BatchNorm's statistics
    are not broadcast in each step."""
    fused: bool = False
    """Whether SGD is one kernel instead of one for each parameter and operation."""

    def __str__(self) -> str:
        return " ".join(name for name, chosen in asdict(self).items() if chosen) or "plain"

    def to_json(self) -> str:
        """As a process takes it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Variant:
        """The variant that `to_json` wrote."""
        return cls(**json.loads(text))


PLAIN, TUNED, FUSED = Variant(), Variant(tuned=True), Variant(tuned=True, fused=True)
NHWC, NHWC_FUSED = (Variant(channels_last=True, tuned=True, fused=fused) for fused in (False, True))
ALL = {"mlp": (PLAIN, TUNED, FUSED), "resnet18": (PLAIN, FUSED, NHWC, NHWC_FUSED)}
"""What is measured for each network; the best median counts."""
QUICK = {"mlp": (FUSED,), "resnet18": (NHWC_FUSED,)}
"""Never far from the best."""
