"""Rows: Pooling."""

from __future__ import annotations

import numpy as np

from chainrule.engine.kernels.geometry import PoolGeometry
from chainrule.engine.ops import pooling
from tests.engine.cases.case import Case, apart, normal, positive

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
        "pooling.max_pool2d",
        lambda m, x: m.nn.functional.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True, return_indices=True)[0],
        (apart(3, 6, 4),),
        note="ceil-mode-with-indices",
    ),
    Case(
        "pooling.max_pool2d",
        lambda m, x: m.nn.functional.max_pool1d(x, 3, stride=2, padding=1, ceil_mode=True),
        (apart(2, 3, 6),),
        note="1d",
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
        "pooling.avg_pool2d",
        lambda m, x: m.nn.functional.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True),
        (normal(2, 3, 6, 4),),
        note="ceil-mode",
    ),
    Case(
        "pooling.avg_pool2d",
        lambda m, x: m.nn.functional.avg_pool2d(x, 2, divisor_override=3),
        (normal(3, 4, 5),),
        note="divisor",
    ),
    Case(
        "pooling.avg_pool2d",
        lambda m, x: m.nn.functional.avg_pool1d(x, 3, 2, 1, count_include_pad=False),
        (normal(2, 3, 5),),
        note="1d",
    ),
    Case(
        "pooling.avg_pool2d",
        lambda m, x: m.nn.functional.adaptive_avg_pool2d(x, (2, 3)),
        (normal(2, 3, 4, 6),),
        note="adaptive",
    ),
    Case(
        "pooling.avg_unpool",
        lambda m, y: pooling.avg_unpool(y, shape=(1, 2, 4, 5), geometry=_pool),
        (normal(1, 2, 3, 4),),
        torch=False,
    ),
    # as many windows as are asked for
    Case(
        "pooling.adaptive_avg_pool2d",
        lambda m, x: m.nn.functional.adaptive_avg_pool2d(x, (3, 7)),
        (normal(2, 3, 5, 4),),
    ),
    Case(
        "pooling.adaptive_avg_pool2d",
        lambda m, x: m.nn.functional.adaptive_avg_pool1d(x, 3),
        (normal(2, 3, 5),),
        note="1d",
    ),
    Case(
        "pooling.adaptive_avg_unpool",
        lambda m, y: pooling.adaptive_avg_unpool(y, size=(5, 4)),
        (normal(2, 3, 3, 7),),
        torch=False,
    ),
    Case(
        "pooling.adaptive_max_pool2d",
        lambda m, x: m.nn.functional.adaptive_max_pool2d(x, (3, 7)),
        (apart(2, 3, 5, 4),),
    ),
    Case(
        "pooling.adaptive_max_pool2d",
        lambda m, x: m.nn.functional.adaptive_max_pool1d(x, 3, return_indices=True)[0],
        (apart(3, 5),),
        note="1d-with-indices",
    ),
    Case(
        "pooling.max_unpool2d",
        lambda m, x: m.nn.functional.max_unpool2d(x, m.tensor([[[[0, 3], [10, 14]]]]), 2, output_size=(4, 5)),
        (normal(1, 1, 2, 2),),
    ),
    Case(
        "pooling.avg_pool2d",
        lambda m, x: m.nn.functional.lp_pool2d(x, 3, (2, 3), stride=1),
        (positive(2, 2, 3, 4),),
        note="lp",
    ),
)
