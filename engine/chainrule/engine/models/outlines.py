"""What a network consists of, told without the network: names, shapes and dtypes of all that its state_dict holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from chainrule.engine import nn

Spec = tuple[str, tuple[int, ...]]
"""Dtype, as numpy calls it, and shape of an array."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers of a BatchNorm layer that keeps statistics."""


@dataclass(frozen=True)
class Outline:
    """What a network consists of."""

    parameters: Mapping[str, Spec]
    """By name, in the order of `named_parameters`; each once."""
    buffers: Mapping[str, Spec] = field(default_factory=dict)
    """Those of the state_dict, likewise."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """Further names in the state_dict → the name under which it is a parameter or a buffer."""
    batch_norms: Mapping[str, float | None] = field(default_factory=dict)
    """Paths of the BatchNorm layers that keep statistics → their momentum; None: the cumulative average."""

    @property
    def num_parameters(self) -> int:
        """Values of all parameters."""
        return sum(math.prod(shape) for _, shape in self.parameters.values())

    @property
    def specs(self) -> dict[str, Spec]:
        """Everything in the state_dict, by all of its names."""
        own = {**self.parameters, **self.buffers}
        return {**own, **{name: own[of] for name, of in self.tied.items()}}

    def differences(self, other: Outline) -> list[str]:
        """In what the other one is not the same, for people; nothing if it is. The order of buffers does not count."""
        found = []
        for what, ours, theirs in (
            ("parameters", self.parameters, other.parameters),
            ("buffers", self.buffers, other.buffers),
        ):
            if missing := [name for name in ours if name not in theirs]:
                found.append(f"it lacks the {what} {_listed(missing)}")
            if more := [name for name in theirs if name not in ours]:
                found.append(f"it has the {what} {_listed(more)} besides")
            found += [
                f'its "{name}" is {_text(theirs[name])} instead of {_text(spec)}'
                for name, spec in ours.items()
                if name in theirs and theirs[name] != spec
            ]
        if not found and list(self.parameters) != list(other.parameters):
            found.append(f"its parameters come in another order: {_listed(list(other.parameters))}")
        if not found and dict(self.tied) != dict(other.tied):
            found.append(f"its tied names are {dict(other.tied)} instead of {dict(self.tied)}")
        if not found and dict(self.batch_norms) != dict(other.batch_norms):
            found.append(f"its BatchNorm layers are {dict(other.batch_norms)} instead of {dict(self.batch_norms)}")
        return found


def outline_of(module: nn.Module) -> Outline:
    """The outline of a network."""
    values = module.state_dict(keep_vars=True)
    names = {id(value): name for name, value in reversed(values.items())}
    parameters = dict(module.named_parameters())
    buffers = {name: value for name, value in module.named_buffers() if name in values}
    return Outline(
        {name: (value.data.dtype.name, tuple(value.shape)) for name, value in parameters.items()},
        {name: (value.data.dtype.name, tuple(value.shape)) for name, value in buffers.items()},
        {name: names[id(value)] for name, value in values.items() if name not in parameters and name not in buffers},
        {
            name: layer.momentum
            for name, layer in module.named_modules()
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.track_running_stats
        },
    )


def statistics_of(path: str) -> tuple[str, str, str]:
    """The names of the statistics of the BatchNorm layer at a path: mean, variance and counter."""
    mean, variance, count = (f"{path}.{name}" if path else name for name in STATISTICS)
    return mean, variance, count


def _listed(names: list[str]) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8:,} more"


def _text(spec: Spec) -> str:
    return f"{spec[0]} {list(spec[1])}"
