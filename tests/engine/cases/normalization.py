"""Rows: Normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.engine.cases.case import Case, channels_last, normal, positive, transposed

_mean, _variance = np.array([0.1, -0.2, 0.3]), np.array([1.0, 0.5, 2.0])


def _batch_norm(m: Any, x: Any, w: Any = None, b: Any = None) -> Any:
    return m.nn.functional.batch_norm(x, None, None, w, b, training=True, eps=1e-3)


def _batch_norm_relu(m: Any, x: Any, w: Any = None, b: Any = None) -> Any:
    together = getattr(m.nn.functional, "batch_norm_with_statistics", None)
    if together is None:
        return _batch_norm(m, x, w, b).relu()
    return together(x, None, None, w, b, training=True, eps=1e-3, rectify=True)[0]


def _batch_norm_eval(m: Any, x: Any, w: Any = None, b: Any = None) -> Any:
    mean, variance = (m.from_numpy(array.astype(np.float64)).to(x.dtype) for array in (_mean, _variance))
    return m.nn.functional.batch_norm(x, mean, variance, w, b, training=False)


def _functional(name: str, *settings: Any, **named: Any) -> Any:
    return lambda m, x, *parameters: getattr(m.nn.functional, name)(x, *settings, *parameters, **named)


CASES = (
    # over the batch
    Case("normalization.batch_norm", _batch_norm, (normal(3, 3, 2, 2), positive(3), normal(3))),
    Case("normalization.batch_norm", _batch_norm, (channels_last(3, 2, 2, 3),), note="plain"),
    Case("normalization.batch_norm", _batch_norm, (normal(5, 3), positive(3), normal(3)), note="2d"),
    Case("normalization.batch_norm", _batch_norm, (transposed(3, 3, 4), positive(3), normal(3)), note="3d"),
    Case("normalization.batch_norm", _batch_norm, (normal(2, 3, 2, 1, 2), positive(3)), note="5d"),
    Case("normalization.batch_norm_relu", _batch_norm_relu, (normal(3, 3, 2, 2), positive(3), normal(3))),
    Case("normalization.batch_norm_relu", _batch_norm_relu, (channels_last(3, 2, 2, 3),), note="plain"),
    Case("normalization.batch_norm_fixed", _batch_norm_eval, (normal(2, 3, 2, 2), positive(3), normal(3))),
    Case("normalization.batch_norm_fixed", _batch_norm_eval, (normal(4, 3), positive(3), normal(3)), note="2d"),
    Case("normalization.batch_norm_fixed", _batch_norm_eval, (normal(0, 3, 2),), note="empty"),
    # over each example
    Case("normalization.layer_norm", _functional("layer_norm", (4,)), (normal(3, 4), positive(4), normal(4))),
    Case(
        "normalization.layer_norm",
        _functional("layer_norm", (3, 4)),
        (transposed(2, 3, 4), positive(3, 4), normal(3, 4)),
        note="two-dimensions",
    ),
    Case("normalization.layer_norm", _functional("layer_norm", (4,), eps=1e-2), (normal(2, 3, 4),), note="plain"),
    Case("normalization.layer_norm", _functional("layer_norm", (4,)), (normal(0, 4), positive(4)), note="empty"),
    Case("normalization.rms_norm", _functional("rms_norm", (4,)), (normal(3, 4), positive(4))),
    Case("normalization.rms_norm", _functional("rms_norm", (3, 4), eps=1e-2), (normal(2, 3, 4),), note="plain"),
    Case(
        "normalization.group_norm",
        _functional("group_norm", 2),
        (channels_last(2, 4, 2, 3), positive(4), normal(4)),
    ),
    Case("normalization.group_norm", _functional("group_norm", 3), (normal(2, 6),), note="plain"),
    Case("normalization.group_norm", _functional("group_norm", 1), (normal(0, 4, 2), positive(4)), note="empty"),
    Case(
        "normalization.batch_norm",
        lambda m, x, w, b: m.nn.functional.instance_norm(x, weight=w, bias=b),
        (normal(2, 3, 4), positive(3), normal(3)),
        note="instances",
    ),
)
