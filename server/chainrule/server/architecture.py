"""What a network is: a family with its configuration, or a graph in ONNX; and how it is built from that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import chainrule.engine as cr
from chainrule.engine import models, nn

MAX_GRAPH_BYTES = 16 * 1024**2
"""Largest graph without its weights. It goes to every process of a job, with the plan."""


@dataclass(frozen=True)
class Builtin:
    """A family that the engine knows."""

    family: str
    """Its name, as `engine.models.build` knows it."""
    config: Mapping[str, object] = field(default_factory=dict)
    """Its configuration; what is left out has the family's default."""

    def build(self, generator: cr.Generator | None = None) -> nn.Module:
        """The network, with weights drawn from `generator`. Raises UnknownFamilyError or ConfigError."""
        return models.build(self.family, self.config, generator=generator)


@dataclass(frozen=True)
class GraphArchitecture:
    """A graph of operators."""

    digest: str
    """SHA-256 of the ONNX file, which has the shapes of the weights and not their values."""
    content: bytes = field(default=b"", repr=False, compare=False)
    """The file. The store knows its digest only: `ModelCatalog.architecture` reads it."""

    def build(self, generator: cr.Generator | None = None) -> nn.Module:  # noqa: ARG002 — as of a family
        """The network, with weights that are yet to be loaded: a graph does not say what they are drawn from. Raises
        GraphError."""
        from chainrule.engine import graph  # it brings onnx, which is not small: only where there is a graph

        return graph.load(self.content)


Architecture = Builtin | GraphArchitecture
