"""The multilayer perceptron."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

from chainrule.engine import nn
from chainrule.engine.errors import ConfigError
from chainrule.engine.models.registry import build, register, require_positive
from chainrule.engine.random import Generator
from chainrule.engine.tensor import Tensor


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
        require_positive(in_features=self.in_features, num_classes=self.num_classes)
        if any(width < 1 for width in self.hidden):
            raise ConfigError("hidden", self.hidden, "every width must be at least 1")


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
