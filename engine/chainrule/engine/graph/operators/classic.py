"""Operators of ai.onnx.ml that scikit-learn's linear models come with; the models themselves are `lowering`'s."""

from __future__ import annotations

import numpy as np

import chainrule.engine as cr
from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import float32, is_floating
from chainrule.engine.errors import DimensionError
from chainrule.engine.graph.errors import Refused
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.registry import ML_DOMAIN, Bounded, Compute, bounded, operator
from chainrule.engine.tensor import Tensor


@operator("Scaler", domain=ML_DOMAIN)
def scaler(node: Node) -> Compute:
    """(x − offset) · scale, which are constants: a preparation of the data is not learnt."""
    offset = Variable.wrap(np.array(node.floats("offset", [0.0]), float32))
    scale = Variable.wrap(np.array(node.floats("scale", [1.0]), float32))
    return lambda x: (_floating(x) - offset) * scale


@operator("Normalizer", domain=ML_DOMAIN)
def normalizer(node: Node) -> Compute:
    """Rows divided by their largest element, or by the sum or the length of what they are made of; zeros stay."""
    norm = node.one_of("norm", ("MAX", "L1", "L2"), "MAX")

    def compute(x: Tensor) -> Tensor:
        x = _floating(x)
        if norm == "MAX":
            size = cr.amax(x, -1, keepdim=True)
        elif norm == "L1":
            size = cr.sum(cr.abs(x), -1, keepdim=True)
        else:
            size = cr.norm(x, 2, -1, keepdim=True)
        return x / cr.where(size == 0, cr.ones_like(size), size)

    return compute


@operator("ArrayFeatureExtractor", domain=ML_DOMAIN)
def array_feature_extractor(node: Node) -> Bounded:  # noqa: ARG001
    """The columns that the indices name."""

    def compute(x: Tensor, indices: Tensor) -> Tensor:
        rows = x.reshape(1, -1) if x.ndim == 1 else x
        places = indices.data.reshape(-1).astype(np.int64)
        if places.size and not (places.min() >= 0 and places.max() < rows.shape[-1]):
            raise DimensionError(f"an index out of bounds for {rows.shape[-1]} columns")
        return cr.index_select(rows, rows.ndim - 1, Variable.wrap(places))

    return bounded(compute, lambda x, indices: x.numel() // max(x.shape[-1], 1) * indices.numel())


@operator("LinearClassifier", "LinearRegressor", domain=ML_DOMAIN)
def linear(node: Node) -> Compute:
    """What `lowering` has left: settings that nobody's exporter writes for a linear model that is to be trained."""
    transform = node.string("post_transform", "NONE")
    raise Refused(
        "one score for two classes; give it one for each" if transform == "NONE" else f"post_transform={transform}"
    )


def _floating(x: Tensor) -> Tensor:
    return x if is_floating(x.dtype) else x.to(float32)
