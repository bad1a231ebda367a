"""The operators of ONNX, each entered in the table of `registry` when its module is imported."""

from chainrule.engine.graph.operators import activation, arithmetic, linear, normalization, shapes

__all__ = ["activation", "arithmetic", "linear", "normalization", "shapes"]
