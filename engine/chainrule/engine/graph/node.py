"""A node as operators see it: its attributes by kind, with the error that names it."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.graph.errors import GraphError

T = TypeVar("T")


@dataclass(frozen=True)
class Node:
    """One application of an operator. Names are unique in the whole graph, "" where an optional value is not there."""

    name: str
    """As in the file; its operator and number where the file gives none."""
    domain: str
    """"" is ONNX's own."""
    op: str
    opset: int
    """The version of the domain that the file is written in."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """int, float, str, array, block, or a list of them."""
    scope: str = ""
    """The path of the PyTorch module that computes it, where an exporter notes that."""
    module: str = ""
    """The class of that module, where an exporter notes that."""

    @property
    def title(self) -> str:
        """How errors call it."""
        return f'node "{self.name}" ({self.op})'

    def has(self, name: str) -> bool:
        """Whether the file gives this attribute."""
        return name in self.attributes

    def int(self, name: str, default: builtins.int | None = None) -> builtins.int:
        """An attribute of this kind.

        Raises:
            GraphError: it is of another kind, or is not there and has no default.
        """
        return self._get(name, builtins.int, default)

    def float(self, name: str, default: builtins.float | None = None) -> builtins.float:
        """An attribute of this kind: of the floats that round to the file's float32, the one written shortest."""
        return self._get(name, builtins.float, default)

    def string(self, name: str, default: str | None = None) -> str:
        """An attribute of this kind."""
        return self._get(name, str, default)

    def tensor(self, name: str, default: Array | None = None) -> Array:
        """An attribute of this kind."""
        return self._get(name, np.ndarray, default)

    def ints(self, name: str, default: Sequence[builtins.int] | None = None) -> list[builtins.int]:
        """An attribute of this kind."""
        return self._list(name, builtins.int, default)

    def floats(self, name: str, default: Sequence[builtins.float] | None = None) -> list[builtins.float]:
        """An attribute of this kind."""
        return self._list(name, builtins.float, default)

    def strings(self, name: str, default: Sequence[str] | None = None) -> list[str]:
        """An attribute of this kind."""
        return self._list(name, str, default)

    def one_of(self, name: str, choices: Sequence[str], default: str) -> str:
        """A string among `choices`.

        Raises:
            GraphError: it is none of them.
        """
        value = self.string(name, default)
        if value not in choices:
            raise self.error(f'attribute {name} is "{value}", not one of {", ".join(choices)}')
        return value

    def error(self, message: str) -> GraphError:
        """An error about this node, to be raised."""
        return GraphError(f"{self.title}: {message}")

    def _get(self, name: str, kind: type[T], default: T | None) -> T:
        value = self.attributes.get(name, default)
        if value is None:
            raise self.error(f"attribute {name} is missing")
        if not isinstance(value, kind):
            raise self.error(f"attribute {name} is of kind {type(value).__name__}, not {kind.__name__}")
        return value

    def _list(self, name: str, kind: type[T], default: Sequence[T] | None) -> list[T]:
        value = self.attributes.get(name, default)
        if value is None:
            raise self.error(f"attribute {name} is missing")
        if not isinstance(value, list | tuple) or not all(isinstance(item, kind) for item in value):
            raise self.error(f"attribute {name} is not a list of {kind.__name__}")
        return list(value)
