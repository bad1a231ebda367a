"""Functions that make tensors: from data, or filled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import Array, DType, as_dtype, bool_, default_dtype, int64, is_floating, promote_pair
from chainrule.engine.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from chainrule.engine.functions.arguments import Number, check_fits, ints, require_tensor, with_keyword
from chainrule.engine.layout import MemoryFormat, channels_last, check_device, check_format, preserve_format

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

Size = int | Sequence[int]

# ---- From data ----


def tensor(data: Any, *, dtype: npt.DTypeLike | None = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of a copy of `data`: numbers, nested sequences of them, an array or a Tensor.

    Python floats make float32, integers int64, bools bool; arrays, tensors and numpy's numbers keep their dtype.

    Raises:
        ArgumentError: sequences differ in length, or a number does not fit the dtype.
        DTypeError: `data` does not hold numbers, or of a dtype that is not supported.
        UnsupportedError: complex numbers, or a device other than the CPU.
    """
    return made(as_array(data, dtype, copy=True), device, requires_grad)


def as_tensor(data: Any, dtype: npt.DTypeLike | None = None, device: Any = None) -> Tensor:
    """`data` as a tensor; an array of the right dtype shares its memory, a Tensor of it is returned itself."""
    check_device(device)
    if isinstance(data, Variable):
        given: Any = data
        return given if dtype is None else given.to(dtype)  # type: ignore[no-any-return]
    return made(as_array(data, dtype, copy=False))


def asarray(
    obj: Any,
    *,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    copy: bool | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """`obj` as a tensor: with the memory of an array or a Tensor if it can be shared, unless a copy is asked for.

    Raises:
        ArgumentError: copy=False, and the dtype has to be converted.
    """
    shareable = isinstance(obj, Variable | np.ndarray) and (dtype is None or as_dtype(dtype) == _dtype_of(obj))
    if copy is False and not shareable:
        raise ArgumentError("copy=False: can't alias this object as a tensor of that dtype; leave it None")
    source = obj.data if isinstance(obj, Variable) and (requires_grad or copy) else obj
    if isinstance(source, Variable):
        return as_tensor(source, dtype, device)
    return made(as_array(source, dtype, copy=bool(copy)), device, requires_grad)


def from_numpy(ndarray: Array) -> Tensor:
    """A tensor that shares the array's memory.

    Raises:
        DTypeError: it is no array, or of a dtype that is not supported.
    """
    if not isinstance(ndarray, np.ndarray):
        raise DTypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    return made(ndarray)


def scalar_tensor(
    s: Number, *, dtype: npt.DTypeLike | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A 0-d tensor, of float32 unless a dtype is named."""
    return full((), s, dtype=_or_default(dtype), device=device, requires_grad=requires_grad)


def made(array: Array, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor around an array."""
    check_device(device)
    return Variable.kind(array, requires_grad=requires_grad)


def _dtype_of(source: Any) -> DType:
    return source.data.dtype if isinstance(source, Variable) else source.dtype


# ---- What data mean ----


def as_array(data: Any, dtype: npt.DTypeLike | None, *, copy: bool) -> Array:
    """The array that `tensor` makes of data."""
    if isinstance(data, Variable):
        data = data.data
    if isinstance(data, np.ndarray | np.generic):
        array = np.array(data) if copy else np.asarray(data)
        if array.dtype.kind not in "biufV":
            if array.dtype.kind == "c":
                raise _no_complex()
            raise DTypeError(f"can't convert np.ndarray of type {array.dtype}: a tensor holds numbers")
        return array.astype(as_dtype(array.dtype if dtype is None else dtype), copy=False)
    if isinstance(data, str):
        raise DTypeError("new(): invalid data type 'str'")
    shape = _shape_of(data)
    leaves: list[Any] = []
    _collect(data, shape, 0, leaves)
    inferred = _infer_dtype(leaves)
    resolved = inferred if dtype is None else as_dtype(dtype)
    return _array_of(leaves, inferred, resolved).reshape(shape)


def _is_sequence(part: Any) -> bool:
    if isinstance(part, Variable):
        return part.data.ndim > 0
    return isinstance(part, list | tuple | range) or (isinstance(part, np.ndarray) and part.ndim > 0)


def _shape_of(data: Any) -> tuple[int, ...]:
    """The shape by the first parts of nested sequences."""
    shape = []
    while _is_sequence(data):
        shape.append(len(data))
        if not len(data):
            break
        data = data[0]
    if shape and isinstance(data, str):
        raise ArgumentError("too many dimensions 'str'; a tensor holds numbers")
    return tuple(shape)


def _collect(data: Any, shape: tuple[int, ...], depth: int, leaves: list[Any]) -> None:
    """Appends the numbers of nested sequences, which all have to be as long as the first ones."""
    if depth == len(shape):
        if _is_sequence(data):
            raise DTypeError(f"'{type(data).__name__}' object cannot be interpreted as an integer")
        leaves.append(data)
        return
    if not _is_sequence(data):
        raise DTypeError(f"not a sequence: {data!r} stands where one is expected")
    if len(data) != shape[depth]:
        message = f"expected sequence of length {shape[depth]} at dim {depth} (got {len(data)})"
        raise ArgumentError(message)
    if isinstance(data, Variable):
        raise ArgumentError("only one element tensors can be converted to Python scalars; stack() joins larger ones")
    if depth == len(shape) - 1 and not any(map(_is_sequence, data)):
        leaves.extend(data)
        return
    for part in data:
        _collect(part, shape, depth + 1, leaves)


def _infer_dtype(leaves: list[Any]) -> DType:
    dtype: DType | None = None
    for kind in dict.fromkeys(map(type, leaves)):
        if kind in _python_numbers:
            found = _python_numbers[kind]
        elif issubclass(kind, np.generic):
            found = as_dtype(kind)
        elif issubclass(kind, Variable | np.ndarray):
            for dtype_of_leaf in {_dtype_of(leaf) for leaf in leaves if type(leaf) is kind}:
                dtype = dtype_of_leaf if dtype is None else promote_pair(dtype, dtype_of_leaf)
            continue
        elif issubclass(kind, complex):
            raise _no_complex()
        elif issubclass(kind, str):
            raise DTypeError("new(): invalid data type 'str'")
        else:
            raise DTypeError(f"Could not infer dtype of {kind.__name__}")
        dtype = found if dtype is None else promote_pair(dtype, found)
    return default_dtype if dtype is None else dtype


_python_numbers: dict[type, DType] = {bool: bool_, int: int64, float: default_dtype}


def _no_complex() -> UnsupportedError:
    return UnsupportedError("complex numbers are not supported; keep real and imaginary parts in two tensors")


def _array_of(leaves: list[Any], inferred: DType, dtype: DType) -> Array:
    """The numbers as an array, without a loss on the way to `dtype`."""
    if any(isinstance(leaf, Variable) for leaf in leaves):
        leaves = [leaf.data.item() if isinstance(leaf, Variable) else leaf for leaf in leaves]
    exact = np.float64 if is_floating(inferred) else inferred
    try:
        array = np.array(leaves, exact)
    except OverflowError:
        raise ArgumentError("Overflow when unpacking long long") from None
    if dtype.kind in "iu" and dtype != inferred and array.size:
        for extreme in (array.min().item(), array.max().item()):
            check_fits(extreme, dtype)
    with np.errstate(all="ignore"):
        return array.astype(dtype)


# ---- Filled ----


def zeros(
    *shape: Size,
    size: Size | None = None,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of zeros, of float32 unless a dtype is named.

    Raises:
        ShapeError: a length is negative.
        DTypeError: one is no integer.
    """
    return made(np.zeros(lengths("zeros", with_keyword(shape, size)), _or_default(dtype)), device, requires_grad)


def ones(
    *shape: Size,
    size: Size | None = None,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of ones; see `zeros`."""
    return made(np.ones(lengths("ones", with_keyword(shape, size)), _or_default(dtype)), device, requires_grad)


def empty(
    *shape: Size,
    size: Size | None = None,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: MemoryFormat = preserve_format,
) -> Tensor:
    """A tensor of whatever the memory held; see `zeros`."""
    array = np.empty(lengths("empty", with_keyword(shape, size)), _or_default(dtype))
    return made(_laid_out(array, memory_format), device, requires_grad)


def full(
    size: Sequence[int],
    fill_value: Number | Tensor,
    *,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of one number, in its dtype unless another is named.

    Raises:
        DTypeError: the size is no sequence, or the number does not fit the dtype.
    """
    if not isinstance(size, Sequence):
        raise DTypeError(f"full(): argument 'size' (position 1) must be tuple of ints, not {type(size).__name__}")
    number = _number("full", fill_value)
    resolved = as_array(number, None, copy=False).dtype if dtype is None else as_dtype(dtype)
    return made(_filled(lengths("full", (size,)), number, resolved), device, requires_grad)


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """The identity matrix (n, m).

    Raises:
        ShapeError: a length is negative.
    """
    for name, length in (("n", n), ("m", m)):
        if length is not None and length < 0:
            raise ShapeError(f"{name} must be greater or equal to 0, got {length}")
    return made(np.eye(n, m, dtype=_or_default(dtype)), device, requires_grad)


def lengths(name: str, size: Sequence[Any]) -> tuple[int, ...]:
    """The shape meant by f(2, 3) or f((2, 3)).

    Raises:
        ShapeError: a length is negative.
        DTypeError: one is no integer.
    """
    try:
        shape = ints(size)
    except DTypeError as error:
        raise DTypeError(f"{name}(): argument 'size' (position 1) {str(error).partition(' ')[2][7:]}") from None
    if min(shape, default=0) < 0:
        raise ShapeError(f"{name}: Dimension size must be non-negative. The size is {list(shape)}.")
    return shape


def _number(name: str, value: Any) -> Any:
    if isinstance(value, Variable):
        if value.data.ndim:
            raise DTypeError(f"{name}(): argument 'fill_value' (position 2) must be Number, not Tensor")
        return value.data[()]
    return value


def _filled(shape: tuple[int, ...], number: Any, dtype: DType) -> Array:
    if isinstance(number, complex) and not isinstance(number, float | int):
        raise _no_complex()
    if dtype.kind in "iu":
        if not math.isfinite(number):
            raise ArgumentError(f"value cannot be converted to type {dtype}_t without overflow: {number}")
        number = int(number)
    check_fits(number, dtype)
    return np.full(shape, np.asarray(number).astype(dtype), dtype)


def _or_default(dtype: npt.DTypeLike | None) -> DType:
    return default_dtype if dtype is None else as_dtype(dtype)


# ---- In the shape of another ----


def zeros_like(
    input: Tensor,
    *,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: MemoryFormat = preserve_format,
) -> Tensor:
    """Zeros in the shape and, unless named, the dtype and layout of `input`."""
    require_tensor("zeros_like", input)
    return made(_laid_out(np.zeros_like(input.data, _like(input, dtype)), memory_format), device, requires_grad)


def ones_like(
    input: Tensor,
    *,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: MemoryFormat = preserve_format,
) -> Tensor:
    """Ones in the shape and, unless named, the dtype and layout of `input`."""
    require_tensor("ones_like", input)
    return made(_laid_out(np.ones_like(input.data, _like(input, dtype)), memory_format), device, requires_grad)


def empty_like(
    input: Tensor,
    *,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: MemoryFormat = preserve_format,
) -> Tensor:
    """Memory for the shape and, unless named, the dtype and layout of `input`."""
    require_tensor("empty_like", input)
    return made(_laid_out(np.empty_like(input.data, _like(input, dtype)), memory_format), device, requires_grad)


def full_like(
    input: Tensor,
    fill_value: Number | Tensor,
    *,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: MemoryFormat = preserve_format,
) -> Tensor:
    """One number in the shape and, unless named, the dtype and layout of `input`."""
    require_tensor("full_like", input)
    resolved = _like(input, dtype)
    array = np.empty_like(input.data, resolved)
    array[...] = _filled((), _number("full_like", fill_value), resolved)
    return made(_laid_out(array, memory_format), device, requires_grad)


def _like(input: Tensor, dtype: npt.DTypeLike | None) -> DType:
    return input.dtype if dtype is None else as_dtype(dtype)


def as_laid_out(array: Array, like: Array, memory_format: MemoryFormat) -> Array:
    """The array in the layout of another, or the one that is named."""
    if memory_format is preserve_format and not like.flags.c_contiguous:
        y = np.empty_like(like, array.dtype)
        y[...] = array
        return y
    return _laid_out(array, memory_format)


def _laid_out(array: Array, memory_format: MemoryFormat) -> Array:
    if memory_format is preserve_format:
        return array
    if check_format(memory_format, array.ndim) is channels_last:
        return array.transpose(0, 2, 3, 1).copy(order="C").transpose(0, 3, 1, 2)
    return array.copy(order="C")


# ---- Of the dtype of another ----


def new_tensor(
    input: Tensor, data: Any, *, dtype: npt.DTypeLike | None = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`tensor`, in the dtype of `input` unless another is named."""
    return tensor(data, dtype=_like(input, dtype), device=device, requires_grad=requires_grad)


def new_zeros(
    input: Tensor,
    *shape: Size,
    size: Size | None = None,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`zeros`, in the dtype of `input` unless another is named."""
    return zeros(*shape, size=size, dtype=_like(input, dtype), device=device, requires_grad=requires_grad)


def new_ones(
    input: Tensor,
    *shape: Size,
    size: Size | None = None,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`ones`, in the dtype of `input` unless another is named."""
    return ones(*shape, size=size, dtype=_like(input, dtype), device=device, requires_grad=requires_grad)


def new_empty(
    input: Tensor,
    *shape: Size,
    size: Size | None = None,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`empty`, in the dtype of `input` unless another is named."""
    return empty(*shape, size=size, dtype=_like(input, dtype), device=device, requires_grad=requires_grad)


def new_full(
    input: Tensor,
    size: Sequence[int],
    fill_value: Number | Tensor,
    *,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`full`, in the dtype of `input` unless another is named."""
    return full(size, fill_value, dtype=_like(input, dtype), device=device, requires_grad=requires_grad)
