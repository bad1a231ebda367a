"""The Tensor: a numpy array that remembers how it was computed."""

from __future__ import annotations

import builtins
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from chainrule.engine.autograd.graph import AccumulateGrad, Node
from chainrule.engine.autograd.mode import state
from chainrule.engine.dtypes import (
    Array,
    DType,
    as_dtype,
    bool_,
    float32,
    float64,
    int64,
    type_name,
)
from chainrule.engine.errors import AutogradError, DimensionError, DTypeError, ShapeError, UnsupportedError
from chainrule.engine.formatting import format_tensor

if TYPE_CHECKING:
    from chainrule.engine.ops.reduction import Dim

Number = bool | int | float


class VersionCounter:
    """How often the memory of a tensor, shared with its views, was written to."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Extreme(NamedTuple):
    """What `max` and `min` along a dimension find."""

    values: Tensor
    indices: Tensor


class Tensor:
    """A numpy array, with what automatic differentiation needs beside it.

    Attributes:
        data: the elements. Writing to them directly is not seen by autograd.
        grad: of a leaf that requires one, the gradient that `backward` has added up so far.
        grad_fn: the node that turns this tensor's gradient into those of what it was computed from; None for a leaf.
        counter: how often the memory was written to, shared with views.
    """

    __slots__ = ("__weakref__", "_accumulator", "_requires_grad", "counter", "data", "grad", "grad_fn")
    __array_ufunc__ = None  # so that `ndarray * Tensor` is ours

    data: Array
    grad: Tensor | None
    grad_fn: Node | None
    counter: VersionCounter
    _requires_grad: bool
    _accumulator: weakref.ref[AccumulateGrad] | None

    def __init__(self, data: npt.ArrayLike, *, requires_grad: bool = False) -> None:
        array = np.asarray(data, None if isinstance(data, np.ndarray | np.generic) else float32)
        as_dtype(array.dtype)
        self._set(array, None, None)
        self.requires_grad = requires_grad

    def _set(self, array: Array, counter: VersionCounter | None, grad_fn: Node | None) -> None:
        self.data = array
        self.grad = None
        self.grad_fn = grad_fn
        self.counter = counter or VersionCounter()
        self._requires_grad = grad_fn is not None
        self._accumulator = None

    @staticmethod
    def wrap(array: Array, *, counter: VersionCounter | None = None, grad_fn: Node | None = None) -> Tensor:
        """A tensor around an array, without a copy or a check."""
        tensor = Tensor.__new__(Tensor)
        tensor._set(array, counter, grad_fn)
        return tensor

    def set_history(self, node: Node) -> None:
        """Makes this the output of `node`."""
        self.grad_fn = node
        self._requires_grad = True

    def gradient_edge(self) -> Node:
        """The node that receives this tensor's gradient."""
        if self.grad_fn is not None:
            return self.grad_fn
        node = self._accumulator() if self._accumulator is not None else None
        if node is None:
            node = AccumulateGrad(self)
            self._accumulator = weakref.ref(node)  # the graph keeps it, not the leaf, which it keeps in turn
        return node

    # ---- What it is ----

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self.data.dtype.kind != "f":
            raise AutogradError(
                f"only Tensors of floating point dtype can require gradients, this is {self.data.dtype}"
            )
        if not value and self.grad_fn is not None:
            raise AutogradError(
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable "
                "in a subgraph that doesn't require differentiation use var_no_grad = var.detach()."
            )
        self._requires_grad = bool(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Sets `requires_grad`."""
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user rather than recorded."""
        return self.grad_fn is None

    @property
    def _version(self) -> int:
        return self.counter.value

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def dtype(self) -> DType:
        return self.data.dtype

    @overload
    def size(self, dim: None = None) -> tuple[int, ...]: ...
    @overload
    def size(self, dim: int) -> int: ...
    def size(self, dim: int | None = None) -> tuple[int, ...] | int:
        """The shape, or its entry at `dim`."""
        return self.data.shape if dim is None else self.data.shape[dim]

    def dim(self) -> int:
        """The number of dimensions."""
        return self.data.ndim

    def numel(self) -> int:
        """The number of elements."""
        return self.data.size

    def is_floating_point(self) -> bool:
        return self.data.dtype.kind == "f"

    def is_contiguous(self) -> bool:
        """Whether the elements lie in memory row by row."""
        return bool(self.data.flags.c_contiguous)

    def __len__(self) -> int:
        if not self.data.ndim:
            raise DTypeError("len() of a 0-d tensor")
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        if not self.data.ndim:
            raise DTypeError("iteration over a 0-d tensor")
        return (self[i] for i in range(len(self.data)))

    def __repr__(self) -> str:
        suffix = (
            [f"grad_fn=<{self.grad_fn.name()}>"]
            if self.grad_fn is not None
            else ["requires_grad=True"]
            if self._requires_grad
            else []
        )
        return format_tensor(self.data, suffix)

    # ---- Out of the graph, and out of chainrule ----

    def detach(self) -> Tensor:
        """The same memory without the history."""
        return Tensor.wrap(self.data, counter=self.counter)

    def numpy(self) -> Array:
        """The array itself: it shares the tensor's memory.

        Raises:
            AutogradError: the tensor requires a gradient.
        """
        if self._requires_grad:
            raise AutogradError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        return self.data

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def item(self) -> Any:
        """The one element as a Python number."""
        if self.data.size != 1:
            raise ShapeError(f"a Tensor with {self.data.size} elements cannot be converted to Scalar")
        return self.data.item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self.data.tolist()

    def __bool__(self) -> bool:
        if self.data.size != 1:
            raise ShapeError("Boolean value of Tensor with more than one value is ambiguous")
        return bool(self.data.item())

    def __float__(self) -> builtins.float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.data.dtype.kind != "i" or self.data.size != 1:
            raise DTypeError("only integer tensors of a single element can be converted to an index")
        return int(self.data.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.data.ndim == 0 and spec else format(repr(self), spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self.grad_fn is not None:
            raise AutogradError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the "
                "moment. Use detach().clone() to copy the value of a computed one."
            )
        copied: Tensor = type(self).__new__(type(self))
        copied._set(self.data.copy(order="K"), None, None)
        copied._requires_grad = self._requires_grad
        memo[id(self)] = copied
        copied.grad = None if self.grad is None else self.grad.detach().clone()
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        if self.grad_fn is not None:
            raise AutogradError("a recorded tensor cannot be pickled; pickle its detach()")
        return _rebuild, (type(self), self.data, self._requires_grad)

    # ---- Differentiation ----

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Tensor | Sequence[Tensor] | None = None,
    ) -> None:
        """Adds to `grad` of every leaf the gradient of this tensor; see `autograd.backward`."""
        traversal.backward(self, gradient, retain_graph, create_graph, inputs=inputs)

    # ---- Arithmetic ----

    def __add__(self, other: Operand) -> Tensor:
        return elementwise.add(self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return elementwise.add(other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return elementwise.sub(self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return elementwise.sub(other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return elementwise.mul(self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return elementwise.mul(other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        return elementwise.div(self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return elementwise.div(other, self)

    def __pow__(self, other: Operand) -> Tensor:
        return elementwise.pow(self, other)

    def __rpow__(self, other: Operand) -> Tensor:
        return elementwise.pow(other, self)

    def __neg__(self) -> Tensor:
        return elementwise.neg(self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return elementwise.abs(self)

    def __matmul__(self, other: Tensor) -> Tensor:
        return linalg.matmul(self, _as_operand(other))

    def __rmatmul__(self, other: Array) -> Tensor:
        return linalg.matmul(_as_operand(other), self)

    def add(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """self + alpha · other"""
        return elementwise.add(self, other if alpha == 1 else other * alpha)

    def sub(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """self − alpha · other"""
        return elementwise.sub(self, other if alpha == 1 else other * alpha)

    def mul(self, other: Operand) -> Tensor:
        return elementwise.mul(self, other)

    def div(self, other: Operand) -> Tensor:
        return elementwise.div(self, other)

    def pow(self, exponent: Operand) -> Tensor:
        return elementwise.pow(self, exponent)

    def neg(self) -> Tensor:
        return elementwise.neg(self)

    def matmul(self, other: Tensor) -> Tensor:
        return linalg.matmul(self, other)

    mm = matmul

    # ---- Functions of each element ----

    def exp(self) -> Tensor:
        return elementwise.exp(self)

    def log(self) -> Tensor:
        return elementwise.log(self)

    def sqrt(self) -> Tensor:
        return elementwise.sqrt(self)

    def square(self) -> Tensor:
        return elementwise.pow(self, 2)

    def tanh(self) -> Tensor:
        return elementwise.tanh(self)

    def sigmoid(self) -> Tensor:
        return elementwise.sigmoid(self)

    def relu(self) -> Tensor:
        return elementwise.relu(self)

    def abs(self) -> Tensor:
        return elementwise.abs(self)

    def sign(self) -> Tensor:
        return elementwise.sign(self)

    def clamp(self, min: Number | None = None, max: Number | None = None) -> Tensor:
        """The elements limited to [min, max]."""
        if min is None and max is None:
            raise AutogradError("clamp: at least one of min or max must not be None")
        x = self if self.is_floating_point() or not (isinstance(min, float) or isinstance(max, float)) else self.float()
        return elementwise.clamp(x, min=min, max=max)

    def isnan(self) -> Tensor:
        return elementwise.isnan(self)

    # ---- Comparisons ----

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return elementwise.eq(self, other) if isinstance(other, _operand_types) else NotImplemented

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return elementwise.ne(self, other) if isinstance(other, _operand_types) else NotImplemented

    __hash__ = object.__hash__

    def __lt__(self, other: Any) -> Tensor:
        return elementwise.lt(self, other)

    def __le__(self, other: Any) -> Tensor:
        return elementwise.le(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return elementwise.gt(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return elementwise.ge(self, other)

    def __and__(self, other: Operand) -> Tensor:
        return elementwise.logical_and(self, other)

    __rand__ = __and__

    def __or__(self, other: Operand) -> Tensor:
        return elementwise.logical_or(self, other)

    __ror__ = __or__

    def __invert__(self) -> Tensor:
        return elementwise.logical_not(self)

    def eq(self, other: Operand) -> Tensor:
        return elementwise.eq(self, other)

    def ne(self, other: Operand) -> Tensor:
        return elementwise.ne(self, other)

    def lt(self, other: Operand) -> Tensor:
        return elementwise.lt(self, other)

    def le(self, other: Operand) -> Tensor:
        return elementwise.le(self, other)

    def gt(self, other: Operand) -> Tensor:
        return elementwise.gt(self, other)

    def ge(self, other: Operand) -> Tensor:
        return elementwise.ge(self, other)

    # ---- Reductions ----

    def sum(self, dim: Dim = None, keepdim: bool = False) -> Tensor:
        return reduction.sum(self, dim=dim, keepdim=keepdim)

    def mean(self, dim: Dim = None, keepdim: bool = False) -> Tensor:
        """The mean over `dim`; of floating tensors only.

        Raises:
            DTypeError: the tensor is of integers or bools.
        """
        if self.data.dtype.kind != "f":
            raise DTypeError(
                "mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. "
                f"Got: {type_name(self.dtype)}"
            )
        return reduction.mean(self, dim=dim, keepdim=keepdim)

    @overload
    def max(self, dim: None = None) -> Tensor: ...
    @overload
    def max(self, dim: int, keepdim: bool = False) -> Extreme: ...
    def max(self, dim: int | None = None, keepdim: bool = False) -> Tensor | Extreme:
        """The largest element (ties share the gradient), or along `dim` the first largest ones and their indices."""
        if dim is None:
            return reduction.amax(self)
        return self._pick(reduction.argmax(self, dim=dim, keepdim=True), dim, keepdim)

    @overload
    def min(self, dim: None = None) -> Tensor: ...
    @overload
    def min(self, dim: int, keepdim: bool = False) -> Extreme: ...
    def min(self, dim: int | None = None, keepdim: bool = False) -> Tensor | Extreme:
        """The smallest element (ties share the gradient), or along `dim` the first smallest ones and their indices."""
        if dim is None:
            return reduction.amin(self)
        return self._pick(reduction.argmin(self, dim=dim, keepdim=True), dim, keepdim)

    def _pick(self, indices: Tensor, dim: int, keepdim: bool) -> Extreme:
        values = shaping.gather(self, dim=dim, index=indices.data)
        return Extreme(values, indices) if keepdim else Extreme(values.squeeze(dim), indices.squeeze(dim))

    def amax(self, dim: Dim = None, keepdim: bool = False) -> Tensor:
        return reduction.amax(self, dim=dim, keepdim=keepdim)

    def amin(self, dim: Dim = None, keepdim: bool = False) -> Tensor:
        return reduction.amin(self, dim=dim, keepdim=keepdim)

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """The index of the first largest element, in the flattened tensor or along `dim`."""
        return reduction.argmax(self, dim=dim, keepdim=keepdim)

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """The index of the first smallest element, in the flattened tensor or along `dim`."""
        return reduction.argmin(self, dim=dim, keepdim=keepdim)

    def logsumexp(self, dim: Dim, keepdim: bool = False) -> Tensor:
        return reduction.logsumexp(self, dim=dim, keepdim=keepdim)

    def softmax(self, dim: int) -> Tensor:
        return loss.softmax(self, dim=dim)

    def log_softmax(self, dim: int) -> Tensor:
        return loss.log_softmax(self, dim=dim)

    def all(self) -> Tensor:
        """Whether every element is true."""
        return Tensor.wrap(np.asarray(np.all(self.data)))

    def any(self) -> Tensor:
        """Whether an element is true."""
        return Tensor.wrap(np.asarray(np.any(self.data)))

    # ---- Shapes and indices ----

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """The elements, row by row, in another shape; -1 stands for what is left. Shares memory where it can."""
        return shaping.reshape(self, shape=shaping.infer_shape(self.data.size, _ints(shape)))

    def view(self, *shape: int | Sequence[int]) -> Tensor:
        """`reshape` that never copies.

        Raises:
            ShapeError: the memory layout does not allow it.
        """
        viewed = shaping.reshape(self, shape=shaping.infer_shape(self.data.size, _ints(shape)))
        if self.data.size and not np.may_share_memory(self.data, viewed.data):
            raise ShapeError(
                "view size is not compatible with input tensor's size and stride (at least one dimension spans across "
                "two contiguous subspaces). Use .reshape(...) instead."
            )
        return viewed

    def view_as(self, other: Tensor) -> Tensor:
        return self.view(*other.shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """The dimensions from `start_dim` to `end_dim` made one."""
        if self.data.ndim == 0:
            return self.reshape(1)
        start, end = self._axis(start_dim), self._axis(end_dim)
        if start > end:
            raise ShapeError(f"flatten() has invalid args: start_dim {start_dim} comes after end_dim {end_dim}")
        count = int(np.prod(self.shape[start : end + 1]))
        return shaping.reshape(self, shape=(*self.shape[:start], count, *self.shape[end + 1 :]))

    def squeeze(self, dim: int | None = None) -> Tensor:
        """Without the dimensions of length one, or without the one at `dim`."""
        drop = range(self.ndim) if dim is None else (() if self.ndim == 0 else (self._axis(dim),))
        shape = tuple(n for axis, n in enumerate(self.shape) if n != 1 or axis not in drop)
        return shaping.squeeze(self, shape=shape)

    def unsqueeze(self, dim: int) -> Tensor:
        """With a new dimension of length one at `dim`."""
        if not -self.ndim - 1 <= dim <= self.ndim:
            raise DimensionError(
                f"Dimension out of range (expected to be in range of [{-self.ndim - 1}, {self.ndim}], but got {dim})"
            )
        axis = dim % (self.ndim + 1)
        return shaping.unsqueeze(self, shape=(*self.shape[:axis], 1, *self.shape[axis:]))

    def permute(self, *dims: int | Sequence[int]) -> Tensor:
        """The dimensions in another order."""
        order = tuple(self._axis(dim) for dim in _ints(dims))
        if sorted(order) != list(range(self.ndim)):
            raise ShapeError(f"permute(dims={list(order)}) must name each of the {self.ndim} dimensions once")
        return shaping.permute(self, dims=order)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Two dimensions swapped."""
        return shaping.transpose(self, dim0=self._axis(dim0), dim1=self._axis(dim1))

    def t(self) -> Tensor:
        """The transpose of a matrix."""
        if self.ndim > 2:
            raise ShapeError(f"t() expects a tensor with <= 2 dimensions, but self is {self.ndim}D")
        return self.T

    @property
    def T(self) -> Tensor:  # noqa: N802 - PyTorch's name
        """The dimensions in reverse order."""
        return shaping.permute(self, dims=tuple(range(self.ndim))[::-1])

    @property
    def mT(self) -> Tensor:  # noqa: N802 - PyTorch's name
        """The last two dimensions swapped."""
        return self.transpose(-2, -1)

    def expand(self, *shape: int | Sequence[int]) -> Tensor:
        """Repeated along new dimensions and those of length one, without copying; -1 keeps a length."""
        wanted = _ints(shape)
        new = len(wanted) - self.ndim
        wanted = tuple(self.shape[i - new] if n == -1 and i >= new else n for i, n in enumerate(wanted))
        return op.expand(self, shape=wanted)

    def contiguous(self) -> Tensor:
        """The tensor with its elements in memory row by row: itself if they are, else a copy."""
        return self if self.is_contiguous() else shaping.contiguous(self)

    def gather(self, dim: int, index: Tensor) -> Tensor:
        """out[i][j] = self[index[i][j]][j], for dim = 0."""
        return shaping.gather(self, dim=self._axis(dim), index=index.data)

    def __getitem__(self, index: Any) -> Tensor:
        return shaping.getitem(self, _index(index))

    def _axis(self, dim: int) -> int:
        limit = self.ndim or 1
        if not -limit <= dim < limit:
            raise DimensionError(
                f"Dimension out of range (expected to be in range of [{-limit}, {limit - 1}], but got {dim})"
            )
        return dim % limit

    # ---- Copies and dtypes ----

    def clone(self) -> Tensor:
        """A copy, through which gradients flow."""
        return elementwise.clone(self)

    def to(self, dtype: npt.DTypeLike) -> Tensor:
        """The elements in another dtype, itself if they are in it."""
        dtype = as_dtype(dtype)
        return self if self.data.dtype == dtype else elementwise.cast(self, dtype=dtype)

    def float(self) -> Tensor:
        return self.to(float32)

    def double(self) -> Tensor:
        return self.to(float64)

    def long(self) -> Tensor:
        return self.to(int64)

    # ---- In place ----

    def zero_(self) -> Tensor:
        """Every element set to 0."""
        return self.fill_(0)

    def fill_(self, value: Number) -> Tensor:
        """Every element set to `value`."""
        self._before_writing("fill_")
        self.data.fill(value)
        return self

    def copy_(self, src: Operand) -> Tensor:
        """The elements of `src`, broadcast and converted, written here."""
        self._before_writing("copy_", src)
        np.copyto(self.data, _raw(src), casting="unsafe")
        return self

    def add_(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """self += alpha · other"""
        return self._write("add_", np.add, other if alpha == 1 else other * alpha)

    def sub_(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """self −= alpha · other"""
        return self._write("sub_", np.subtract, other if alpha == 1 else other * alpha)

    def mul_(self, other: Operand) -> Tensor:
        """self *= other"""
        return self._write("mul_", np.multiply, other)

    def div_(self, other: Operand) -> Tensor:
        """self /= other"""
        return self._write("div_", np.divide, other)

    __iadd__ = add_
    __isub__ = sub_
    __imul__ = mul_
    __itruediv__ = div_

    def __setitem__(self, index: Any, value: Operand) -> None:
        self._before_writing("__setitem__", value)
        self.data[_index(index)] = _raw(value)

    def _write(self, name: str, ufunc: np.ufunc, other: Operand) -> Tensor:
        self._before_writing(name, other)
        try:
            ufunc(self.data, _raw(other), out=self.data, casting="same_kind")
        except np.exceptions.DTypePromotionError as error:
            raise DTypeError(f"{name}: {error}") from None
        except TypeError as error:
            raise DTypeError(f"{name}: result type can't be cast to {self.dtype} ({error})") from None
        except ValueError as error:
            raise ShapeError(f"{name}: {error}") from None
        return self

    def _before_writing(self, name: str, other: object = None) -> None:
        """Refuses what autograd could not follow, and counts what it can."""
        if state.enabled and self._requires_grad and self.grad_fn is None:
            raise AutogradError("a leaf Variable that requires grad is being used in an in-place operation.")
        if state.enabled and (self._requires_grad or (isinstance(other, Tensor) and other.requires_grad)):
            raise UnsupportedError(
                f"{name} on a recorded tensor is not supported by this version; use the out-of-place operation, "
                "or no_grad() if it needs no gradient"
            )
        if not self.data.flags.writeable:
            raise AutogradError(
                f"{name}: more than one element of the written-to tensor refers to a single memory location, or the "
                "memory is read-only. Please clone() the tensor before performing the operation."
            )
        self.counter.value += 1


Operand = Tensor | Array | Number
_operand_types = (Tensor, np.ndarray, np.generic, bool, int, float)


def _rebuild(kind: type[Tensor], array: Array, requires_grad: bool) -> Tensor:
    tensor = kind.__new__(kind)
    tensor._set(array, None, None)
    tensor._requires_grad = requires_grad
    return tensor


def _as_operand(value: object) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        return Tensor.wrap(value)
    raise DTypeError(f"expected a Tensor, got {type(value).__name__}: {value!r}")


def _raw(value: Operand) -> Any:
    return value.data if isinstance(value, Tensor) else value


def _ints(values: Sequence[int | Sequence[int]]) -> tuple[int, ...]:
    """The integers of f(2, 3) or of f((2, 3))."""
    if len(values) == 1 and not isinstance(values[0], int | np.integer):
        return tuple(int(value) for value in values[0])
    return tuple(int(value) for value in values)  # type: ignore[arg-type]


def _index(index: Any) -> Any:
    """An index with arrays in place of its tensors."""
    if isinstance(index, tuple):
        return tuple(_index(part) for part in index)
    if isinstance(index, Tensor):
        return index.data.copy() if index.data.ndim or index.data.dtype == bool_ else int(index)
    return index


# The operations are declared on Tensors and the methods call the operations: the second half is imported last.
from chainrule.engine.autograd import traversal  # noqa: E402
from chainrule.engine.ops import elementwise, linalg, loss, op, reduction  # noqa: E402
from chainrule.engine.ops import shape as shaping  # noqa: E402
