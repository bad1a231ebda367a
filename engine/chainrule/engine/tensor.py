"""The Tensor: a Variable with PyTorch's operators and methods, each of which is a function defined elsewhere."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from chainrule.engine.autograd import traversal
from chainrule.engine.autograd.mode import state
from chainrule.engine.autograd.variable import Variable, no_version
from chainrule.engine.dtypes import Array, DType, as_dtype, float32, is_floating
from chainrule.engine.errors import AutogradError, DTypeError, ShapeError
from chainrule.engine.formatting import format_tensor
from chainrule.engine.functions import (
    arithmetic,
    comparison,
    conversion,
    in_place,
    indexing,
    linalg,
    reduction,
    shapes,
)
from chainrule.engine.functions.arguments import Number, Operand, operand_types
from chainrule.engine.ops import elementwise

__all__ = ["Number", "Operand", "Tensor"]


class Tensor(Variable):
    """A numpy array, with what automatic differentiation needs beside it."""

    __slots__ = ()

    def __init__(self, data: npt.ArrayLike, *, requires_grad: bool = False) -> None:
        array = np.asarray(data, None if isinstance(data, np.ndarray | np.generic) else float32)
        as_dtype(array.dtype)
        self._set(array, no_version if state.inference else None, None)
        self.requires_grad = requires_grad

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Sets `requires_grad`."""
        self.requires_grad = requires_grad
        return self

    # ---- What it is ----

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def dtype(self) -> DType:
        return self.data.dtype

    @property
    def itemsize(self) -> int:
        """The bytes of an element."""
        return self.data.itemsize

    @property
    def nbytes(self) -> int:
        """The bytes of all elements."""
        return self.data.nbytes

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

    nelement = numel

    def stride(self) -> tuple[int, ...]:
        """The steps in memory from element to element, for each dimension, in elements."""
        return tuple(step // self.data.itemsize for step in self.data.strides)

    def element_size(self) -> int:
        """The bytes of an element."""
        return self.data.itemsize

    def is_floating_point(self) -> bool:
        return is_floating(self.data.dtype)

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
        grad_fn = self.grad_fn
        suffix = (
            [f"grad_fn=<{grad_fn.name()}>"]
            if grad_fn is not None
            else ["requires_grad=True"]
            if self.requires_grad
            else []
        )
        return format_tensor(self.data, suffix)

    # ---- Out of the graph, and out of chainrule ----

    def detach(self) -> Tensor:
        """The same memory without the history."""
        return Variable.wrap(self.data, counter=self.counter)

    def detach_(self) -> Tensor:
        """Forgets the history.

        Raises:
            AutogradError: of a view, whose history is its base's.
        """
        if self._view is not None:
            raise AutogradError("Can't detach views in-place. Use detach() instead.")
        self._grad_fn = None
        self._requires_grad = False
        return self

    def numpy(self, *, force: bool = False) -> Array:
        """The array itself: it shares the tensor's memory.

        Raises:
            AutogradError: the tensor requires a gradient, and is not taken out of the graph by `force`.
        """
        if self.requires_grad and not force:
            raise AutogradError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        return self.data

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __array_function__(
        self, function: Callable[..., Any], types: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """numpy's functions see the arrays, and give arrays."""
        return function(*_arrays(args), **{name: _arrays(value) for name, value in kwargs.items()})

    def item(self) -> Any:
        """The one element as a Python number."""
        if self.data.size != 1:
            raise ShapeError(f"a Tensor with {self.data.size} elements cannot be converted to Scalar")
        return self.data.item() if self.data.dtype.kind != "V" else float(self.data.reshape(())[()])

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self.data.tolist() if self.data.dtype.kind != "V" else self.data.astype(float32).tolist()

    def __bool__(self) -> bool:
        if self.data.size != 1:
            which = "no values" if self.data.size == 0 else "more than one value"
            raise ShapeError(f"Boolean value of Tensor with {which} is ambiguous")
        return bool(self.item())

    def __float__(self) -> builtins.float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.data.dtype.kind not in "iu" or self.data.size != 1:
            raise DTypeError("only integer tensors of a single element can be converted to an index")
        return int(self.data.item())

    def __contains__(self, element: Operand) -> bool:
        return bool((self == element).any())

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

    # ---- Operators ----

    def __add__(self, other: Operand) -> Tensor:
        return elementwise.add(self, other) if isinstance(other, operand_types) else NotImplemented

    def __radd__(self, other: Operand) -> Tensor:
        return elementwise.add(other, self) if isinstance(other, operand_types) else NotImplemented

    def __sub__(self, other: Operand) -> Tensor:
        return elementwise.sub(self, other) if isinstance(other, operand_types) else NotImplemented

    def __rsub__(self, other: Operand) -> Tensor:
        return elementwise.sub(other, self) if isinstance(other, operand_types) else NotImplemented

    def __mul__(self, other: Operand) -> Tensor:
        return elementwise.mul(self, other) if isinstance(other, operand_types) else NotImplemented

    def __rmul__(self, other: Operand) -> Tensor:
        return elementwise.mul(other, self) if isinstance(other, operand_types) else NotImplemented

    def __truediv__(self, other: Operand) -> Tensor:
        return elementwise.div(self, other) if isinstance(other, operand_types) else NotImplemented

    def __rtruediv__(self, other: Operand) -> Tensor:
        return elementwise.div(other, self) if isinstance(other, operand_types) else NotImplemented

    def __pow__(self, other: Operand) -> Tensor:
        return elementwise.pow(self, other) if isinstance(other, operand_types) else NotImplemented

    def __rpow__(self, other: Operand) -> Tensor:
        return elementwise.pow(other, self) if isinstance(other, operand_types) else NotImplemented

    def __neg__(self) -> Tensor:
        return elementwise.neg(self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return elementwise.abs(self)

    def __matmul__(self, other: Tensor | Array) -> Tensor:
        return linalg.matmul(self, other) if isinstance(other, Variable | np.ndarray) else NotImplemented  # type: ignore[arg-type]

    def __rmatmul__(self, other: Array) -> Tensor:
        return linalg.matmul(other, self) if isinstance(other, Variable | np.ndarray) else NotImplemented  # type: ignore[arg-type]

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return elementwise.eq(self, other) if isinstance(other, operand_types) else NotImplemented

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return elementwise.ne(self, other) if isinstance(other, operand_types) else NotImplemented

    __hash__ = object.__hash__

    def __lt__(self, other: Operand) -> Tensor:
        return elementwise.lt(self, other) if isinstance(other, operand_types) else NotImplemented

    def __le__(self, other: Operand) -> Tensor:
        return elementwise.le(self, other) if isinstance(other, operand_types) else NotImplemented

    def __gt__(self, other: Operand) -> Tensor:
        return elementwise.gt(self, other) if isinstance(other, operand_types) else NotImplemented

    def __ge__(self, other: Operand) -> Tensor:
        return elementwise.ge(self, other) if isinstance(other, operand_types) else NotImplemented

    def __and__(self, other: Operand) -> Tensor:
        return elementwise.bitwise_and(self, other) if isinstance(other, operand_types) else NotImplemented

    __rand__ = __and__

    def __or__(self, other: Operand) -> Tensor:
        return elementwise.bitwise_or(self, other) if isinstance(other, operand_types) else NotImplemented

    __ror__ = __or__

    def __invert__(self) -> Tensor:
        return elementwise.bitwise_not(self)

    __getitem__ = indexing.getitem
    __setitem__ = in_place.setitem
    __iadd__ = in_place.add_
    __isub__ = in_place.sub_
    __imul__ = in_place.mul_
    __itruediv__ = in_place.div_

    # ---- Methods: each is the function of its name ----

    abs = arithmetic.abs
    add = arithmetic.add
    clamp = arithmetic.clamp
    div = arithmetic.div
    exp = arithmetic.exp
    log = arithmetic.log
    maximum = arithmetic.maximum
    minimum = arithmetic.minimum
    mul = arithmetic.mul
    neg = arithmetic.neg
    pow = arithmetic.pow
    relu = arithmetic.relu
    sigmoid = arithmetic.sigmoid
    sign = arithmetic.sign
    sqrt = arithmetic.sqrt
    square = arithmetic.square
    sub = arithmetic.sub
    tanh = arithmetic.tanh

    all = comparison.all
    allclose = comparison.allclose
    any = comparison.any
    eq = comparison.eq
    equal = comparison.equal
    ge = comparison.ge
    gt = comparison.gt
    isnan = comparison.isnan
    le = comparison.le
    lt = comparison.lt
    ne = comparison.ne

    clone = conversion.clone
    contiguous = conversion.contiguous
    double = conversion.double
    float = conversion.float
    long = conversion.long
    to = conversion.to

    add_ = in_place.add_
    clamp_ = in_place.clamp_
    copy_ = in_place.copy_
    div_ = in_place.div_
    fill_ = in_place.fill_
    mul_ = in_place.mul_
    relu_ = in_place.relu_
    sub_ = in_place.sub_
    zero_ = in_place.zero_

    gather = indexing.gather

    matmul = linalg.matmul
    mm = linalg.matmul

    amax = reduction.amax
    amin = reduction.amin
    argmax = reduction.argmax
    argmin = reduction.argmin
    log_softmax = reduction.log_softmax
    logsumexp = reduction.logsumexp
    max = reduction.max
    mean = reduction.mean
    min = reduction.min
    softmax = reduction.softmax
    sum = reduction.sum

    T = property(shapes.reversed_dims)
    expand = shapes.expand
    flatten = shapes.flatten
    permute = shapes.permute
    reshape = shapes.reshape
    squeeze = shapes.squeeze
    t = shapes.t
    transpose = shapes.transpose
    unsqueeze = shapes.unsqueeze
    view = shapes.view
    view_as = shapes.view_as

    @property
    def mT(self) -> Tensor:  # noqa: N802 - PyTorch's name
        """The last two dimensions swapped."""
        return shapes.transpose(self, -2, -1)


Variable.kind = Tensor


def _arrays(value: Any) -> Any:
    """Nested sequences with arrays in place of tensors."""
    if isinstance(value, list | tuple):
        return type(value)(_arrays(part) for part in value)
    return value.numpy() if isinstance(value, Tensor) else value


def _rebuild(kind: type[Tensor], array: Array, requires_grad: bool) -> Tensor:
    tensor = kind.__new__(kind)
    tensor._set(array, None, None)
    tensor._requires_grad = requires_grad
    return tensor
