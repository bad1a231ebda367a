"""Whether a call comes to the same with chainrule and with PyTorch: the same dtype and values, or the same error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule.engine as cr
from chainrule.engine.dtypes import Array, DType, bool_, is_floating, supported

DTYPES: tuple[DType, ...] = supported
FLOATING = tuple(dtype for dtype in DTYPES if is_floating(dtype))
INTEGERS = tuple(dtype for dtype in DTYPES if not is_floating(dtype) and dtype != bool_)

# One rounding, and what the functions of the C libraries differ by.
TOLERANCE = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 2e-6, "float64": 1e-13}


def to_torch(torch: Any, value: Any) -> Any:
    """Arrays and tensors as PyTorch's; anything else as it is."""
    if isinstance(value, cr.Tensor):
        value = value.detach().numpy()
    if not isinstance(value, np.ndarray):
        return value
    if str(value.dtype) == "bfloat16":
        return torch.tensor(value.astype(np.float32)).to(torch.bfloat16)
    return torch.tensor(value)


def to_array(result: Any) -> Array:
    """A tensor of either as an array, half precision as float32."""
    array = result.detach().numpy() if isinstance(result, cr.Tensor) else _plain(result)
    return array.astype(np.float32) if str(array.dtype) in ("float16", "bfloat16") else array


def _plain(result: Any) -> Any:
    import torch

    return (result.detach().float() if result.dtype == torch.bfloat16 else result.detach()).numpy()


def outcome(call: Callable[..., Any], module: Any, values: list[Any]) -> Any:
    """What a call returns, or the first sentence of what it raises."""
    try:
        return call(module, *values)
    except (RuntimeError, TypeError, IndexError, ValueError, OverflowError) as error:
        return str(error).split("\n")[0]


def difference(torch: Any, call: Callable[..., Any], *values: Any, rtol: float | None = None) -> str | None:
    """What a call on arrays and numbers comes to differently; None if nothing."""
    ours = outcome(call, cr, [cr.Tensor(x.copy()) if isinstance(x, np.ndarray) else x for x in values])
    theirs = outcome(call, torch, [to_torch(torch, x) for x in values])
    return compared(ours, theirs, rtol)


def compared(ours: Any, theirs: Any, rtol: float | None = None) -> str | None:
    """The difference of two results, in words."""
    if isinstance(theirs, str) or isinstance(ours, str):
        both = isinstance(ours, str) and isinstance(theirs, str)
        theirs = theirs.removeprefix("torch.") if both else theirs
        same = both and (ours.startswith(theirs) or theirs.startswith(ours) or "invalid combination" in theirs)
        return None if same else f"{ours!r} is not {theirs!r}"
    if isinstance(theirs, tuple):
        parts = [compared(x, t, rtol) for x, t in zip(ours, theirs, strict=True)]
        return next((part for part in parts if part is not None), None)
    if not isinstance(ours, cr.Tensor):
        return None if ours == theirs else f"{ours} is not {theirs}"
    if str(ours.dtype) != str(theirs.dtype).removeprefix("torch."):
        return f"{ours.dtype} is not {theirs.dtype}"
    if ours.shape != tuple(theirs.shape):
        return f"shape {ours.shape} is not {tuple(theirs.shape)}"
    tolerance = TOLERANCE.get(str(ours.dtype), 0) if rtol is None else rtol
    a, b = to_array(ours), to_array(theirs)
    if not np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True):
        return f"{a} is not {b}"
    return None


def samples(dtype: DType, *size: int, seed: int = 0, positive: bool = False) -> Array:
    """Small numbers that every dtype holds, none of them zero where `positive`."""
    draws = np.random.default_rng(seed).integers(1 if positive else -4, 5, size)
    array: Array = np.asarray(np.abs(draws) if dtype.kind in "bu" else draws).astype(dtype)
    return array
