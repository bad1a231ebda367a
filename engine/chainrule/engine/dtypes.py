"""The element types of a tensor, and PyTorch's rule for mixing them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from chainrule.engine.errors import DTypeError

Array = npt.NDArray[Any]
DType = np.dtype[Any]

float32: DType = np.dtype("float32")
float64: DType = np.dtype("float64")
int64: DType = np.dtype("int64")
int32: DType = np.dtype("int32")
bool_: DType = np.dtype("bool")

supported = (float32, float64, int64, int32, bool_)
default_dtype = float32

_torch_type_names = {float32: "Float", float64: "Double", int64: "Long", int32: "Int", bool_: "Bool"}
_category = {"b": 0, "i": 1, "f": 2}


def as_dtype(dtype: npt.DTypeLike) -> DType:
    """The numpy dtype meant by `dtype`.

    Raises:
        DTypeError: it is none of float32, float64, int64, int32, bool.
    """
    resolved = np.dtype(dtype)
    if resolved not in _torch_type_names:
        names = ", ".join(str(known) for known in supported)
        raise DTypeError(f"dtype {resolved} is not supported; convert to one of {names}")
    return resolved


def type_name(dtype: DType) -> str:
    """What PyTorch calls a dtype in its messages: `Float`, `Double`, `Long`, `Int`, `Bool`."""
    return _torch_type_names[dtype]


def promote(
    dimensioned: Iterable[DType], zero_dim: Iterable[DType] = (), numbers: Iterable[bool | int | float] = ()
) -> DType:
    """The dtype of a result, by PyTorch's category rule (bool < integer < floating).

    Tensors with dimensions decide; 0-d tensors, then Python numbers, matter only if their category is higher:
    float32 · int64 → float32, int64 · 2.5 → float32, float32 · float64(0-d) → float32.

    Source: https://pytorch.org/docs/stable/tensor_attributes.html#type-promotion
    """
    result: DType | None = None
    for group in (dimensioned, zero_dim, (_dtype_of_number(number) for number in numbers)):
        best: DType | None = None
        for dtype in group:
            best = dtype if best is None else _promote_pair(best, dtype)
        if best is not None and (result is None or _category[best.kind] > _category[result.kind]):
            result = best
    return default_dtype if result is None else result


def _dtype_of_number(number: bool | int | float) -> DType:
    return bool_ if isinstance(number, bool) else int64 if isinstance(number, int) else float32


def _promote_pair(a: DType, b: DType) -> DType:
    if a.kind != b.kind:
        return a if _category[a.kind] > _category[b.kind] else b
    return np.promote_types(a, b)
