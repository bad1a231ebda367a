"""What is wrong with a graph, said with the names that its file uses.

GraphError            (ChainruleError, ValueError)   malformed, inconsistent, or beyond a limit
└── UnsupportedError                                 operators that are not taken, all of them: nodes
"""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.engine.errors import ChainruleError

Unsupported = tuple[str, str, int, str]
"""The node's name, "domain::OpType", the opset of the domain, and the reason."""


class GraphError(ChainruleError, ValueError):
    """A graph that cannot be loaded or run.

    Attributes:
        message: what is wrong, which node or tensor it is, and the remedy if there is one.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UnsupportedError(GraphError):
    """Operators that cannot be trained here.

    Attributes:
        nodes: every one of them.
    """

    def __init__(self, nodes: Sequence[Unsupported]) -> None:
        self.nodes = list(nodes)
        lines = [f'node "{name}": {op} (opset {opset}): {reason}' for name, op, opset, reason in self.nodes]
        count = f"{len(lines)} node{'s' * (len(lines) != 1)}"
        super().__init__(f"{count} cannot be taken (docs/onnx.md lists what can):\n  " + "\n  ".join(lines))

    def __reduce__(self) -> tuple[type[UnsupportedError], tuple[list[Unsupported]]]:
        return type(self), (self.nodes,)


class Refused(Exception):  # noqa: N818 - a verdict that is collected, not an error that is shown
    """One node cannot be taken; the reason is its argument. Only between an operator and the loader."""
