"""The `device` and `dtype` that layers are made with."""

from __future__ import annotations

import numpy.typing as npt

from chainrule.engine.dtypes import DType, as_dtype, default_dtype
from chainrule.engine.nn.conversion import check_device


def parameter_dtype(device: object, dtype: npt.DTypeLike | None) -> DType:
    """The dtype of a layer's parameters.

    Raises:
        UnsupportedError: a device other than the CPU.
        DTypeError: no such dtype.
    """
    check_device(device)
    return default_dtype if dtype is None else as_dtype(dtype)
