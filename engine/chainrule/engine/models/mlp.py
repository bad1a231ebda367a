"""The multilayer perceptron."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

from chainrule.engine import nn
from chainrule.engine.errors import ConfigError
from chainrule.engine.models.registry import MAX_CLASSES, build, register, require_within
from chainrule.engine.random import Generator
from chainrule.engine.tensor import Tensor

MAX_FEATURES = 10_000_000
MAX_WIDTH = 1_000_000
MAX_LAYERS = 100


@dataclass(frozen=True, slots=True)
class MLPConfig:
    """The settings of an MLP."""

    in_features: int = 64
    """Numbers in one example, once flattened."""
    hidden: tuple[int, ...] = (128,)
    """Width of each hidden layer; none makes a linear classifier."""
    num_classes: int = 10
    """Classes to tell apart."""

    def __post_init__(self) -> None:
        require_within("in_features", self.in_features, 1, MAX_FEATURES)
        require_within("num_classes", self.num_classes, 1, MAX_CLASSES)
        if len(self.hidden) > MAX_LAYERS:
            raise ConfigError(
                "hidden", self.hidden, f"must be at most {MAX_LAYERS} layers, there are {len(self.hidden)}"
            )
        if any(width < 1 for width in self.hidden):
            raise ConfigError("hidden", self.hidden, "every width must be at least 1")
        if any(width > MAX_WIDTH for width in self.hidden):
            raise ConfigError("hidden", self.hidden, f"every width must be at most {MAX_WIDTH:,}")

    @property
    def num_parameters(self) -> int:
        """Σ (a + 1)·b over neighbouring widths a, b."""
        widths = (self.in_features, *self.hidden, self.num_classes)
        return sum((narrow + 1) * wide for narrow, wide in itertools.pairwise(widths))


class MLP(nn.Module):
    """Linear layers with ReLU between them, on flattened examples."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        widths = (config.in_features, *config.hidden)
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths):
            layers += [nn.Linear(narrow, wide), nn.ReLU()]
        self.flatten = nn.Flatten()
        self.hidden = nn.Sequential(*layers)
        self.fc = nn.Linear(widths[-1], config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.hidden(self.flatten(x)))
        return logits


register("mlp", "Linear layers with ReLU between them", MLPConfig, MLP)


def mlp(
    in_features: int = 64,
    hidden: tuple[int, ...] = (128,),
    num_classes: int = 10,
    *,
    generator: Generator | None = None,
) -> MLP:
    """A multilayer perceptron; see `MLPConfig`."""
    config = {"in_features": in_features, "hidden": hidden, "num_classes": num_classes}
    return cast(MLP, build("mlp", config, generator=generator))
