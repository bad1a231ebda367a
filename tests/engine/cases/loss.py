"""Rows: Softmax and losses."""

from __future__ import annotations

import numpy as np

from tests.engine.cases.case import Case, normal

_index = np.array([[0, 2], [1, 1], [2, 0]])
_target = np.array([1, 0, 3])


CASES = (
    # losses
    Case("loss.log_softmax", lambda m, x: m.log_softmax(x, 1), (normal(3, 4),)),
    Case("loss.log_softmax", lambda m, x: m.log_softmax(100 * x, 0), (normal(3, 4),), note="far"),
    Case("loss.softmax", lambda m, x: m.softmax(x, -1), (normal(3, 4),)),
    Case("loss.nll_loss", lambda m, x: m.nn.functional.nll_loss(x, m.tensor(_target)), (normal(3, 4),)),
    Case(
        "loss.nll_loss",
        lambda m, x: m.nn.functional.nll_loss(x, m.tensor(_target), reduction="none"),
        (normal(3, 4),),
        note="none",
    ),
    Case(
        "loss.nll_loss",
        lambda m, x: m.nn.functional.nll_loss(x, m.tensor(_target), reduction="sum", ignore_index=0),
        (normal(3, 4),),
        note="ignore",
    ),
    Case(
        "loss.nll_loss",
        lambda m, x: m.nn.functional.cross_entropy(x, m.tensor(_target), ignore_index=3),
        (normal(3, 4),),
        note="cross-entropy",
    ),
    Case(
        "loss.nll_loss",
        lambda m, x: m.nn.functional.cross_entropy(x, m.tensor(_index), reduction="none"),
        (normal(3, 4, 2),),
        note="images",
    ),
    Case("loss.mse_loss", lambda m, x, t: m.nn.functional.mse_loss(x, t), (normal(3, 2), normal(3, 2))),
    Case(
        "loss.mse_loss",
        lambda m, x, t: m.nn.functional.mse_loss(x, t, reduction="sum"),
        (normal(3, 2), normal(3, 2)),
        note="sum",
    ),
    Case(
        "loss.mse_loss",
        lambda m, x, t: m.nn.functional.mse_loss(x, t, reduction="none"),
        (normal(3, 2), normal(3, 2)),
        note="none",
    ),
)
