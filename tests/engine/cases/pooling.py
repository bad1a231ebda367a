"""Rows: Pooling."""

from __future__ import annotations

import numpy as np

from chainrule.engine.kernels.geometry import PoolGeometry
from chainrule.engine.ops import pooling
from tests.engine.cases.case import Case, apart, normal

_pool = PoolGeometry(kernel=(2, 2), stride=(2, 1), padding=(1, 0))
_offsets = np.random.default_rng(3).integers(0, 4, (1, 2, 3, 4)).astype(np.int32)


CASES = (
    # pooling
    Case("pooling.max_pool2d", lambda m, x: m.nn.functional.max_pool2d(x, 2), (apart(2, 3, 4, 5),)),
    Case(
        "pooling.max_pool2d",
        lambda m, x: m.nn.functional.max_pool2d(x, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2)),
        (apart(2, 3, 5, 6),),
        note="general",
    ),
    Case(
        "pooling.unpool",
        lambda m, y: pooling.unpool(y, offsets=_offsets, shape=(1, 2, 4, 5), geometry=_pool),
        (normal(1, 2, 3, 4),),
        torch=False,
    ),
    Case(
        "pooling.pick",
        lambda m, x: pooling.pick(x, offsets=_offsets, geometry=_pool),
        (normal(1, 2, 4, 5),),
        torch=False,
    ),
    Case("pooling.avg_pool2d", lambda m, x: m.nn.functional.avg_pool2d(x, 2), (normal(2, 3, 4, 5),)),
    Case(
        "pooling.avg_pool2d",
        lambda m, x: m.nn.functional.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False),
        (normal(2, 3, 5, 6),),
        note="general",
    ),
    Case(
        "pooling.avg_unpool",
        lambda m, y: pooling.avg_unpool(y, shape=(1, 2, 4, 5), geometry=_pool),
        (normal(1, 2, 3, 4),),
        torch=False,
    ),
)
