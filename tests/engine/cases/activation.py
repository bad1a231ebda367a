"""Rows: Activations, and the special functions they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.engine.cases.case import Case, away_from_zero, channels_last, normal, positive, transposed

# Away from every corner of the activations, at 0, ±0.5, ±1, 3 and 6.
_around = np.array([-30.0, -4.1, -2.3, -0.9, -0.3, -0.1, 0.2, 0.4, 0.8, 1.7, 2.9, 3.6, 5.5, 8.0, 30.0])


def around(*size: int) -> Any:
    return lambda draws: draws.permutation(np.resize(_around, int(np.prod(size)))).reshape(size)


def _case(op: str, name: str, *settings: Any, note: str = "", input: Any = None) -> Case:
    call = lambda m, x: getattr(m.nn.functional, name)(x, *settings)
    return Case(f"activation.{op}", call, (around(3, 5) if input is None else input,), note=note)


def _softplus(m: Any, x: Any) -> Any:
    return m.nn.functional.softplus(x, beta=2.0, threshold=3)


CASES = (
    Case("special.erf", lambda m, x: m.erf(2 * x), (normal(2, 5),)),
    Case("special.erf", lambda m, x: m.erf(x), (transposed(2, 3),), note="not-contiguous"),
    # straight lines
    _case("threshold", "threshold", 0.1, -2.0),
    _case("hardtanh", "hardtanh", -0.7, 1.3),
    _case("hardtanh", "relu6", note="relu6"),
    _case("leaky_relu", "leaky_relu", 0.2),
    _case("hardshrink", "hardshrink"),
    _case("softshrink", "softshrink"),
    # PyTorch multiplies its gradient by 1/6 in float32 also for float64; see tests/engine/nn/test_activation.py.
    Case("activation.hardsigmoid", lambda m, x: m.nn.functional.hardsigmoid(x), (around(3, 5),), torch=False),
    _case("hardswish", "hardswish"),
    Case("activation.prelu", lambda m, x, w: m.nn.functional.prelu(x, w), (away_from_zero(4), normal(1))),
    Case(
        "activation.prelu",
        lambda m, x, w: m.nn.functional.prelu(x, w),
        (away_from_zero(2, 3, 2), normal(3)),
        note="channels",
    ),
    _case("rrelu", "rrelu", 0.2, 0.6),
    # exponentials below zero
    _case("elu", "elu", 1.5),
    _case("elu", "selu", note="selu"),
    _case("celu", "celu", 0.5),
    # smooth
    _case("logsigmoid", "logsigmoid"),
    _case("softplus", "softplus"),
    Case("activation.softplus", _softplus, (normal(2, 4),), note="beta"),
    _case("silu", "silu"),
    _case("silu", "silu", input=normal(), note="0d"),
    _case("mish", "mish"),
    _case("glu", "glu", input=normal(3, 4)),
    _case("glu", "glu", 0, input=normal(4, 3), note="dim"),
    _case("gelu", "gelu"),
    _case("gelu", "gelu", input=channels_last(2, 3, 2, 2), note="channels-last"),
    _case("gelu", "gelu", input=normal(0, 3), note="empty"),
    Case("activation.gelu_tanh", lambda m, x: m.nn.functional.gelu(x, approximate="tanh"), (around(3, 5),)),
    Case("activation.silu", lambda m, x: m.nn.functional.silu(x), (positive(2, 1, 3),), note="positive"),
)
