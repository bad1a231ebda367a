"""What a network is: a family with its configuration, a graph in ONNX, or a Python file; and how it is built."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import chainrule.engine as cr
from chainrule.engine import io, models, nn
from chainrule.engine.models import Outline, outline_of

MAX_GRAPH_BYTES = 16 * 1024**2
"""Largest graph without its weights. It goes to every process of a job, with the plan."""
RUNS_CODE = "CHAINRULE_RUNS_CODE"
"""Environment variable of a process that was started to run one Python file: its SHA-256. No other process runs it."""


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

    def outline(self) -> Outline:
        """What the network consists of. Raises what `build` does."""
        return outline_of(self.build())


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

    def outline(self) -> Outline:
        """What the network consists of. Raises GraphError."""
        return outline_of(self.build())


@dataclass(frozen=True)
class CodeArchitecture:
    """A Python file with a function that makes the network. Only workers run it, in processes started for it."""

    digest: str
    """SHA-256 of the file."""
    factory: str = "build"
    """The function, or class."""
    config: Mapping[str, object] = field(default_factory=dict)
    """Its keyword arguments."""
    seed: int = 0
    """Of what it draws."""
    declared: Outline = field(default_factory=lambda: Outline({}))
    """What the network consists of: whoever has made the model says so, since the service does not run the file."""
    file_name: str = field(default="model.py", compare=False)
    """What it is called in tracebacks."""
    content: bytes = field(default=b"", repr=False, compare=False)
    """The file. The store knows its digest only: `ModelCatalog.architecture` reads it."""

    def build(self, generator: cr.Generator | None = None) -> nn.Module:  # noqa: ARG002 — it has a seed of its own
        """The network, with weights that are yet to be loaded. Raises CodeError if the file fails, if what it makes is
        not what was declared, or if this process was not started for it."""
        if os.environ.get(RUNS_CODE) != self.digest:
            raise cr.CodeError(f"{self.file_name} is run by workers only, in processes that were started for it")
        if io.digest(self.content) != self.digest:
            raise cr.CodeError(f"{self.file_name} as it came here does not have the SHA-256 {self.digest}")
        module = self.source.build(self.seed)
        different = self.declared.differences(outline_of(module))
        if different:
            raise cr.CodeError(
                f'the network that "{self.factory}" of {self.file_name} makes is not that which the model was created '
                f"with: {'; '.join(different)}. What it consists of must follow from the file and its configuration; "
                "create the model anew with the weights of this one"
            )
        return module

    @property
    def source(self) -> models.Source:
        """The file and how it is called."""
        return models.Source(self.content, self.factory, self.config, self.file_name)

    def outline(self) -> Outline:
        """What the network consists of, as declared."""
        return self.declared

    @property
    def environment(self) -> dict[str, str]:
        """What a process that is started to run it must have in its environment. Sets and hashes of texts are the same
        in all of them, so that code which goes through a set does so in one order."""
        return {RUNS_CODE: self.digest, "PYTHONHASHSEED": "0"}


Buildable = Builtin | GraphArchitecture
"""What any process may build, the service's too."""
Architecture = Buildable | CodeArchitecture
