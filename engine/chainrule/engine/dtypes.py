"""The element types of a tensor, and PyTorch's rule for mixing them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from chainrule.engine.errors import ConfigError, DTypeError

Array = npt.NDArray[Any]
DType = np.dtype[Any]

float16: DType = np.dtype("float16")
bfloat16: DType = np.dtype(ml_dtypes.bfloat16)
float32: DType = np.dtype("float32")
float64: DType = np.dtype("float64")
int8: DType = np.dtype("int8")
int16: DType = np.dtype("int16")
int32: DType = np.dtype("int32")
int64: DType = np.dtype("int64")
uint8: DType = np.dtype("uint8")
bool_: DType = np.dtype("bool")

supported = (float16, bfloat16, float32, float64, int8, int16, int32, int64, uint8, bool_)
default_dtype = float32

_torch_type_names = {
    float16: "Half",
    bfloat16: "BFloat16",
    float32: "Float",
    float64: "Double",
    int8: "Char",
    int16: "Short",
    int32: "Int",
    int64: "Long",
    uint8: "Byte",
    bool_: "Bool",
}
_category = {"b": 0, "i": 1, "u": 1, "f": 2, "V": 2}
_low = (float16, bfloat16)


def as_dtype(dtype: npt.DTypeLike) -> DType:
    """The numpy dtype meant by `dtype`.

    Raises:
        DTypeError: it is none of those in `supported`.
    """
    try:
        resolved = np.dtype(dtype)
    except TypeError:
        resolved = None
    if resolved not in _torch_type_names:
        names = ", ".join(str(known) for known in supported)
        raise DTypeError(f"dtype {dtype if resolved is None else resolved} is not supported; convert to one of {names}")
    assert resolved is not None
    return resolved


def type_name(dtype: DType) -> str:
    """What PyTorch calls a dtype in its messages: `Float`, `Double`, `Long`, `Int`, `Bool`, ..."""
    return _torch_type_names.get(dtype, str(dtype))


def is_floating(dtype: DType) -> bool:
    """Whether the dtype holds fractions; numpy files bfloat16 under `V`."""
    return dtype.kind in "fV"


def is_low_precision(dtype: DType) -> bool:
    """Whether it is float16 or bfloat16, which are computed in float32 and rounded once."""
    return dtype in _low


def widened(value: Any) -> Any:
    """An array of half precision as float32; anything else as it is."""
    return value.astype(float32) if isinstance(value, np.ndarray) and is_low_precision(value.dtype) else value


def get_default_dtype() -> DType:
    """float32, the dtype of tensors of Python floats."""
    return default_dtype


def set_default_dtype(dtype: npt.DTypeLike) -> None:
    """Takes float32 only: a default that changes would make results depend on who set it last.

    Raises:
        ConfigError: another dtype.
    """
    if as_dtype(dtype) != default_dtype:
        raise ConfigError(
            "dtype", as_dtype(dtype), "the default dtype is always float32; pass dtype= where you need it"
        )


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
            best = dtype if best is None else promote_pair(best, dtype)
        if best is not None and (result is None or _category[best.kind] > _category[result.kind]):
            result = best
    return default_dtype if result is None else result


def promote_pair(a: DType, b: DType) -> DType:
    """The dtype of two of one rank: the smallest that holds both, where the category decides before the size."""
    if a is b or a == b:
        return a
    if _category[a.kind] != _category[b.kind]:
        return a if _category[a.kind] > _category[b.kind] else b
    if a in _low and b in _low:
        return float32
    return np.promote_types(a, b)


def _dtype_of_number(number: bool | int | float) -> DType:
    return bool_ if isinstance(number, bool) else int64 if isinstance(number, int) else float32


def promote_types(type1: npt.DTypeLike, type2: npt.DTypeLike) -> DType:
    """The smallest dtype that holds both, where the category (bool < integer < floating) decides before the size."""
    return promote_pair(as_dtype(type1), as_dtype(type2))


def can_cast(from_: npt.DTypeLike, to: npt.DTypeLike) -> bool:
    """Whether a result of dtype `from_` may be written to a tensor of dtype `to`: its category is not lower."""
    source, target = as_dtype(from_), as_dtype(to)
    return _category[source.kind] <= _category[target.kind]


# ---- Limits ----


@dataclass(frozen=True)
class FloatLimits:
    """The limits of a floating dtype, as `torch.finfo`."""

    resolution: float
    """The precision in decimals."""
    min: float
    max: float
    eps: float
    """The distance from 1 to the next number."""
    smallest_normal: float
    tiny: float
    """The same."""
    dtype: str
    bits: int

    def __repr__(self) -> str:
        names = ("resolution", "min", "max", "eps", "smallest_normal", "tiny")
        numbers = ", ".join(f"{name}={getattr(self, name):g}" for name in names)
        return f"finfo({numbers}, dtype={self.dtype})"


@dataclass(frozen=True)
class IntegerLimits:
    """The limits of an integer dtype, as `torch.iinfo`."""

    min: int
    max: int
    dtype: str
    bits: int

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"


def finfo(type: npt.DTypeLike | None = None) -> FloatLimits:
    """The limits of a floating dtype, float32 by default.

    Raises:
        DTypeError: it is none.
    """
    dtype = default_dtype if type is None else as_dtype(type)
    if not is_floating(dtype):
        raise DTypeError(f"finfo() requires a floating point input type, got {dtype}. Use iinfo to handle it")
    limits: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    eps, tiny = float(limits.eps), float(limits.smallest_normal)
    return FloatLimits(
        resolution=10.0 ** -math.floor(-math.log10(eps)),
        min=float(limits.min),
        max=float(limits.max),
        eps=eps,
        smallest_normal=tiny,
        tiny=tiny,
        dtype=str(dtype),
        bits=dtype.itemsize * 8,
    )


def iinfo(type: npt.DTypeLike) -> IntegerLimits:
    """The limits of an integer dtype.

    Raises:
        DTypeError: it is none.
    """
    dtype = as_dtype(type)
    if dtype == bool_:
        raise DTypeError("bool is not supported by iinfo")
    if is_floating(dtype):
        raise DTypeError(f"iinfo() requires an integer input type, got {dtype}. Use finfo to handle it")
    limits = np.iinfo(dtype)
    return IntegerLimits(min=int(limits.min), max=int(limits.max), dtype=str(dtype), bits=limits.bits)
