"""ONNX files as modules that train."""

from chainrule.engine.graph.errors import GraphError, UnsupportedError
from chainrule.engine.graph.exporting import export
from chainrule.engine.graph.limits import Limits
from chainrule.engine.graph.loading import Summary, check, join, load, split
from chainrule.engine.graph.module import GraphModule
from chainrule.engine.graph.registry import Row
from chainrule.engine.graph.registry import table as operators
from chainrule.engine.graph.source import TensorSpec

__all__ = [
    "GraphError",
    "GraphModule",
    "Limits",
    "Row",
    "Summary",
    "TensorSpec",
    "UnsupportedError",
    "check",
    "export",
    "join",
    "load",
    "operators",
    "split",
]
