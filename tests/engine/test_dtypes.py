"""Dtypes: their names, how they mix, what can be cast, and their limits."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import dtypes
from chainrule.engine.dtypes import DType, as_dtype, is_floating, promote, supported

floating = [dtype for dtype in supported if is_floating(dtype)]
integers = [dtype for dtype in supported if dtype.kind in "iu"]


def twin(torch: Any, dtype: DType) -> Any:
    return getattr(torch, str(dtype))


@pytest.mark.torch
def test_pairs_promote_and_cast_as_in_pytorch(torch: Any) -> None:
    for a, b in itertools.product(supported, repeat=2):
        assert twin(torch, cr.promote_types(a, b)) == torch.promote_types(twin(torch, a), twin(torch, b))
        assert cr.can_cast(a, b) == torch.can_cast(twin(torch, a), twin(torch, b)), (a, b)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", floating, ids=str)
def test_limits_of_floats_are_those_of_pytorch(dtype: DType, torch: Any) -> None:
    ours, theirs = cr.finfo(dtype), torch.finfo(twin(torch, dtype))
    for name in ("min", "max", "eps", "tiny", "smallest_normal", "resolution", "bits", "dtype"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert repr(ours) == repr(theirs)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", integers, ids=str)
def test_limits_of_integers_are_those_of_pytorch(dtype: DType, torch: Any) -> None:
    ours, theirs = cr.iinfo(dtype), torch.iinfo(twin(torch, dtype))
    assert (ours.min, ours.max, ours.bits, ours.dtype) == (theirs.min, theirs.max, theirs.bits, theirs.dtype)
    assert repr(ours) == repr(theirs)


def test_limits_of_the_default_are_those_of_float32() -> None:
    assert cr.finfo() == cr.finfo(cr.float32)


def test_limits_are_refused_for_the_other_kind() -> None:
    with pytest.raises(TypeError, match=r"finfo\(\) requires a floating point input type, got int64. Use iinfo"):
        cr.finfo(cr.int64)
    with pytest.raises(TypeError, match=r"iinfo\(\) requires an integer input type, got float32. Use finfo"):
        cr.iinfo(cr.float32)
    with pytest.raises(TypeError, match="bool is not supported by iinfo"):
        cr.iinfo(cr.bool)


def test_dimensions_come_before_0d_tensors_and_these_before_numbers() -> None:
    assert promote([dtypes.float32], [dtypes.float64]) == dtypes.float32
    assert promote([dtypes.int8], [dtypes.int64], [3]) == dtypes.int8
    assert promote([dtypes.int64], [dtypes.float16]) == dtypes.float16
    assert promote([dtypes.int64], [], [2.5]) == dtypes.float32
    assert promote([], [dtypes.bool_], [2]) == dtypes.int64
    assert promote([], [], []) == dtypes.float32


def test_an_unsupported_dtype_is_refused_by_name() -> None:
    for dtype in ("complex64", "uint16", "S3"):
        with pytest.raises(cr.DTypeError, match=f"dtype .*{np.dtype(dtype)} is not supported; convert to one of"):
            as_dtype(dtype)
    with pytest.raises(cr.DTypeError, match="dtype nonsense is not supported"):
        as_dtype("nonsense")


def test_the_default_dtype_stays() -> None:
    dtypes.set_default_dtype(np.float32)
    assert dtypes.get_default_dtype() == np.float32
    with pytest.raises(cr.ConfigError, match="pass dtype= where you need it"):
        dtypes.set_default_dtype(np.float64)
