"""Rows: Normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.engine.cases.case import Case, channels_last, normal, positive

_mean, _variance = np.array([0.1, -0.2, 0.3]), np.array([1.0, 0.5, 2.0])


def _batch_norm(m: Any, x: Any, w: Any = None, b: Any = None) -> Any:
    return m.nn.functional.batch_norm(x, None, None, w, b, training=True, eps=1e-3)


def _batch_norm_eval(m: Any, x: Any, w: Any = None, b: Any = None) -> Any:
    mean, variance = (m.from_numpy(array.astype(np.float64)).to(x.dtype) for array in (_mean, _variance))
    return m.nn.functional.batch_norm(x, mean, variance, w, b, training=False)


CASES = (
    # normalisation
    Case("normalization.batch_norm", _batch_norm, (normal(3, 3, 2, 2), positive(3), normal(3))),
    Case("normalization.batch_norm", _batch_norm, (channels_last(3, 2, 2, 3),), note="plain"),
    Case("normalization.batch_norm_fixed", _batch_norm_eval, (normal(2, 3, 2, 2), positive(3), normal(3))),
)
