"""Expressions that mean the same with chainrule and with PyTorch: `m` is either module, `x` a matrix (2, 3)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

import chainrule.engine as cr


def evaluate(m: Any, expression: str) -> Any:
    """The value of an expression, or the error that it raises."""
    names = {
        "m": m,
        "np": np,
        "x": m.arange(6.0).reshape(2, 3),
        "n": m.arange(6).reshape(2, 3),
        "v": m.arange(3),
        "s": m.tensor(1.0),
        "b": m.ones(2, 2, 3),
        "mask": m.tensor([True, False, True]),
        "assigned": _assigned,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return eval(expression, names)
        except (RuntimeError, TypeError, IndexError, ValueError, NotImplementedError) as error:
            return error


def _assigned(x: Any, index: Any, value: Any) -> Any:
    y = x.clone()
    y[index] = value
    return y


def plain(value: Any) -> Any:
    """A result of either module in terms that can be compared: dtype, shape, elements."""
    if isinstance(value, tuple | list) and not all(isinstance(part, int) for part in value):
        return tuple(plain(part) for part in value)
    if isinstance(value, tuple):
        return tuple(value)
    if isinstance(value, cr.Tensor) or type(value).__module__.startswith("torch"):
        if hasattr(value, "tolist") and hasattr(value, "shape"):
            return str(value.dtype).removeprefix("torch."), tuple(value.shape), str(value.tolist())
        return str(value).removeprefix("torch.")
    return value if not isinstance(value, np.dtype) else str(value)


def assert_agrees(torch: Any, expression: str) -> None:
    """The expression has one value, or one error with PyTorch's first sentence, in both."""
    ours, theirs = evaluate(cr, expression), evaluate(torch, expression)
    if isinstance(theirs, Exception):
        assert isinstance(ours, cr.ChainruleError), ours
        assert isinstance(ours, type(theirs)), (type(ours), type(theirs))
        assert str(theirs).split("\n")[0] in str(ours)
    else:
        assert not isinstance(ours, Exception), ours
        assert plain(ours) == plain(theirs)
