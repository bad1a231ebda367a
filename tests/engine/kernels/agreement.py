"""What the tests of oneDNN's kernels share: whether there are any, and numbers in all kinds of memory."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.dtypes import Array, bfloat16
from chainrule.engine.kernels import onednn

TOLERANCES = {np.dtype(np.float32): 2e-6, bfloat16: 8e-3}
"""Of what both kernels compute: a few roundings of numbers about one."""


def _is_there() -> bool:
    try:
        onednn.load()
    except onednn.LibraryError:
        return False
    return True


needs_onednn = pytest.mark.skipif(not _is_there(), reason="there is no oneDNN 3 here")


def draws(shape: tuple[int, ...], dtype: str = "float32", *, seed: int = 0, scale: float = 1.0) -> Array:
    """Normal numbers."""
    numbers = np.random.default_rng(seed).standard_normal(shape) * scale
    return np.asarray(numbers).astype(bfloat16 if dtype == "bfloat16" else dtype)


def layouts(x: Array) -> dict[str, Array]:
    """The same numbers in other memory: rows, columns, with gaps, backwards."""
    if not x.ndim:
        return {"rows": x}
    gaps = np.repeat(x, 2, axis=-1)[..., ::2]
    backwards = np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    return {"rows": x, "columns": np.asfortranarray(x), "gaps": gaps, "backwards": backwards}


def agree(x: Array, expected: Array, tolerance: float | None = None) -> None:
    """The two have one dtype and shape, and numbers that differ by `tolerance` of the larger of 1 and them at most."""
    assert (x.dtype, x.shape) == (expected.dtype, expected.shape)
    tolerance = TOLERANCES[x.dtype] if tolerance is None else tolerance
    wide = expected.astype(np.float64)
    np.testing.assert_allclose(x.astype(np.float64), wide, rtol=tolerance, atol=tolerance)


def gradient_of(x: cr.Tensor) -> Array:
    """What came back to it."""
    assert x.grad is not None
    return x.grad.numpy()
