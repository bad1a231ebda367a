"""The Tensor: a Variable with PyTorch's operators and methods, each of which is a function defined elsewhere."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from chainrule.engine import creation
from chainrule.engine.autograd import traversal
from chainrule.engine.autograd.mode import state
from chainrule.engine.autograd.variable import Variable, no_version
from chainrule.engine.dtypes import Array, DType, as_dtype, float32, is_floating
from chainrule.engine.errors import ArgumentError, AutogradError, DTypeError, ShapeError
from chainrule.engine.formatting import format_tensor
from chainrule.engine.functions import (
    arithmetic,
    arranging,
    choosing,
    comparison,
    conversion,
    description,
    drawing,
    in_place,
    indexing,
    joining,
    linalg,
    masking,
    ordering,
    reduction,
    shapes,
)
from chainrule.engine.functions.arguments import Number, Operand, axis_of, operand_types
from chainrule.engine.layout import cpu
from chainrule.engine.layout import device as device_of_tensors
from chainrule.engine.ops import division, elementwise
from chainrule.engine.watching import tell_detached, tell_read, watchers

__all__ = ["Number", "Operand", "Tensor"]


class Tensor(Variable):
    """A numpy array, with what automatic differentiation needs beside it."""

    __slots__ = ()

    def __init__(self, *data: npt.ArrayLike, requires_grad: builtins.bool = False) -> None:
        """Tensor(data) holds an array or sequence, Tensor(2, 3) has that shape and elements that are not set."""
        if all(type(length) is builtins.int for length in data):
            array: Array = np.empty(data or 0, float32)  # type: ignore[arg-type]
        elif len(data) == 1:
            array = np.asarray(data[0], None if isinstance(data[0], np.ndarray | np.generic) else float32)
        else:
            raise DTypeError(
                "Tensor() takes one sequence of numbers, or integers that are the lengths of its dimensions"
            )
        as_dtype(array.dtype)
        self._set(array, no_version if state.inference else None, None)
        self.requires_grad = requires_grad

    def requires_grad_(self, requires_grad: builtins.bool = True) -> Tensor:
        """Sets `requires_grad`."""
        self.requires_grad = requires_grad
        return self

    # ---- What it is ----

    @property
    def shape(self) -> tuple[builtins.int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> builtins.int:
        return self.data.ndim

    @property
    def dtype(self) -> DType:
        return self.data.dtype

    @property
    def itemsize(self) -> builtins.int:
        """The bytes of an element."""
        return self.data.itemsize

    @property
    def nbytes(self) -> builtins.int:
        """The bytes of all elements."""
        return self.data.nbytes

    @overload
    def size(self, dim: None = None) -> tuple[builtins.int, ...]: ...
    @overload
    def size(self, dim: builtins.int) -> builtins.int: ...
    def size(self, dim: builtins.int | None = None) -> tuple[builtins.int, ...] | builtins.int:
        """The shape, or its entry at `dim`."""
        return self.data.shape if dim is None else self.data.shape[axis_of(self, dim)]

    def dim(self) -> builtins.int:
        """The number of dimensions."""
        return self.data.ndim

    ndimension = dim

    @overload
    def stride(self, dim: None = None) -> tuple[builtins.int, ...]: ...
    @overload
    def stride(self, dim: builtins.int) -> builtins.int: ...
    def stride(self, dim: builtins.int | None = None) -> tuple[builtins.int, ...] | builtins.int:
        """The steps in memory from element to element, for each dimension or for one, in elements."""
        steps = tuple(step // self.data.itemsize for step in self.data.strides)
        return steps if dim is None else steps[axis_of(self, dim)]

    def element_size(self) -> builtins.int:
        """The bytes of an element."""
        return self.data.itemsize

    @property
    def device(self) -> device_of_tensors:
        """Where it lies: in the memory of the CPU."""
        return cpu

    @property
    def is_cuda(self) -> builtins.bool:
        """False."""
        return False

    @property
    def is_cpu(self) -> builtins.bool:
        """True."""
        return True

    def __len__(self) -> builtins.int:
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
        y = Variable.wrap(self.data, counter=self.counter)
        if watchers:
            tell_detached(self, y)
        return y

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

    def numpy(self, *, force: builtins.bool = False) -> Array:
        """The array itself: it shares the tensor's memory.

        Raises:
            AutogradError: the tensor requires a gradient, and is not taken out of the graph by `force`.
        """
        if self.requires_grad and not force:
            raise AutogradError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        if watchers:
            tell_read(self)
        return self.data

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: builtins.bool | None = None) -> Array:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __array_function__(
        self, function: Callable[..., Any], types: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """numpy's functions see the arrays, and give arrays."""
        return function(*_arrays(args), **{name: _arrays(value) for name, value in kwargs.items()})

    def item(self) -> Any:
        """The one element as a Python number."""
        if watchers:
            tell_read(self)
        if self.data.size != 1:
            raise ShapeError(f"a Tensor with {self.data.size} elements cannot be converted to Scalar")
        return self.data.item() if self.data.dtype.kind != "V" else float(self.data.reshape(())[()])

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        if watchers:
            tell_read(self)
        return self.data.tolist() if self.data.dtype.kind != "V" else self.data.astype(float32).tolist()

    def __bool__(self) -> builtins.bool:
        if self.data.size != 1:
            which = "no values" if self.data.size == 0 else "more than one value"
            raise ShapeError(f"Boolean value of Tensor with {which} is ambiguous")
        return bool(self.item())

    def __float__(self) -> builtins.float:
        return float(self._number())

    def __int__(self) -> builtins.int:
        return int(self._number())

    def _number(self) -> Any:
        if self.data.size != 1:
            raise ArgumentError("only one element tensors can be converted to Python scalars")
        return self.item()

    def __index__(self) -> builtins.int:
        if self.data.dtype.kind not in "iu" or self.data.size != 1:
            raise DTypeError("only integer tensors of a single element can be converted to an index")
        return int(self.item())

    def __contains__(self, element: Operand) -> builtins.bool:
        return bool((self == element).any())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.data.ndim == 0 and spec else format(repr(self), spec)

    def __deepcopy__(self, memo: dict[builtins.int, Any]) -> Tensor:
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
        retain_graph: builtins.bool | None = None,
        create_graph: builtins.bool = False,
        inputs: Tensor | Sequence[Tensor] | None = None,
    ) -> None:
        """Adds to `grad` of every leaf the gradient of this tensor; see `autograd.backward`."""
        traversal.backward(self, gradient, retain_graph, create_graph, inputs=inputs)

    # ---- Operators ----

    def __add__(self, other: Operand) -> Tensor:
        return elementwise.add.of_two(self, other) if isinstance(other, operand_types) else NotImplemented

    def __radd__(self, other: Operand) -> Tensor:
        return elementwise.add(other, self) if isinstance(other, operand_types) else NotImplemented

    def __sub__(self, other: Operand) -> Tensor:
        return elementwise.sub.of_two(self, other) if isinstance(other, operand_types) else NotImplemented

    def __rsub__(self, other: Operand) -> Tensor:
        return elementwise.sub(other, self) if isinstance(other, operand_types) else NotImplemented

    def __mul__(self, other: Operand) -> Tensor:
        return elementwise.mul.of_two(self, other) if isinstance(other, operand_types) else NotImplemented

    def __rmul__(self, other: Operand) -> Tensor:
        return elementwise.mul(other, self) if isinstance(other, operand_types) else NotImplemented

    def __truediv__(self, other: Operand) -> Tensor:
        return elementwise.div.of_two(self, other) if isinstance(other, operand_types) else NotImplemented

    def __rtruediv__(self, other: Operand) -> Tensor:
        return elementwise.div(other, self) if isinstance(other, operand_types) else NotImplemented

    def __floordiv__(self, other: Operand) -> Tensor:
        return division.floor_divide(self, other) if isinstance(other, operand_types) else NotImplemented

    def __rfloordiv__(self, other: Operand) -> Tensor:
        return division.floor_divide(other, self) if isinstance(other, operand_types) else NotImplemented

    def __mod__(self, other: Operand) -> Tensor:
        return division.remainder(self, other) if isinstance(other, operand_types) else NotImplemented

    def __rmod__(self, other: Operand) -> Tensor:
        return division.remainder(other, self) if isinstance(other, operand_types) else NotImplemented

    def __pow__(self, other: Operand) -> Tensor:
        return elementwise.pow(self, other) if isinstance(other, operand_types) else NotImplemented

    def __rpow__(self, other: Operand) -> Tensor:
        return elementwise.pow(other, self) if isinstance(other, operand_types) else NotImplemented

    def __neg__(self) -> Tensor:
        return elementwise.neg(self)

    def __abs__(self) -> Tensor:
        return elementwise.abs(self)

    __pos__ = arithmetic.positive

    def __matmul__(self, other: Tensor | Array) -> Tensor:
        return linalg.matmul(self, other) if isinstance(other, Variable | np.ndarray) else NotImplemented  # type: ignore[arg-type]

    def __rmatmul__(self, other: Array) -> Tensor:
        return linalg.matmul(other, self) if isinstance(other, Variable | np.ndarray) else NotImplemented  # type: ignore[arg-type]

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return elementwise.eq(self, other) if isinstance(other, operand_types) else NotImplemented

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return elementwise.ne(self, other) if isinstance(other, operand_types) else NotImplemented

    __hash__ = object.__hash__

    def __lt__(self, other: Any) -> Tensor:
        return elementwise.lt(self, other) if isinstance(other, operand_types) else NotImplemented

    def __le__(self, other: Any) -> Tensor:
        return elementwise.le(self, other) if isinstance(other, operand_types) else NotImplemented

    def __gt__(self, other: Any) -> Tensor:
        return elementwise.gt(self, other) if isinstance(other, operand_types) else NotImplemented

    def __ge__(self, other: Any) -> Tensor:
        return elementwise.ge(self, other) if isinstance(other, operand_types) else NotImplemented

    def __and__(self, other: Operand) -> Tensor:
        return elementwise.bitwise_and(self, other) if isinstance(other, operand_types) else NotImplemented

    __rand__ = __and__

    def __or__(self, other: Operand) -> Tensor:
        return elementwise.bitwise_or(self, other) if isinstance(other, operand_types) else NotImplemented

    __ror__ = __or__

    def __xor__(self, other: Operand) -> Tensor:
        return elementwise.bitwise_xor(self, other) if isinstance(other, operand_types) else NotImplemented

    __rxor__ = __xor__

    def __lshift__(self, other: Operand) -> Tensor:
        return elementwise.left_shift(self, other) if isinstance(other, operand_types) else NotImplemented

    def __rlshift__(self, other: Operand) -> Tensor:
        return elementwise.left_shift(other, self) if isinstance(other, operand_types) else NotImplemented

    def __rshift__(self, other: Operand) -> Tensor:
        return elementwise.right_shift(self, other) if isinstance(other, operand_types) else NotImplemented

    def __rrshift__(self, other: Operand) -> Tensor:
        return elementwise.right_shift(other, self) if isinstance(other, operand_types) else NotImplemented

    def __invert__(self) -> Tensor:
        if is_floating(self.data.dtype):
            raise DTypeError("~ (operator.invert) is only implemented on integer and Boolean-type tensors")
        return elementwise.bitwise_not(self)

    __getitem__ = indexing.getitem
    __setitem__ = in_place.setitem
    __iadd__ = in_place.add_
    __isub__ = in_place.sub_
    __imul__ = in_place.mul_
    __itruediv__ = in_place.div_
    __ifloordiv__ = in_place.floor_divide_
    __imod__ = in_place.remainder_
    __ipow__ = in_place.pow_
    __iand__ = in_place.bitwise_and_
    __ior__ = in_place.bitwise_or_
    __ixor__ = in_place.bitwise_xor_
    __ilshift__ = in_place.bitwise_left_shift_
    __irshift__ = in_place.bitwise_right_shift_

    # ---- Methods: each is the function of its name ----

    def where(self, condition: Tensor, other: Operand) -> Tensor:
        """The elements where the condition is true, `other` elsewhere."""
        return arithmetic.where(condition, self, other)

    abs = arithmetic.abs
    absolute = arithmetic.absolute
    acos = arithmetic.acos
    acosh = arithmetic.acosh
    add = arithmetic.add
    addcdiv = arithmetic.addcdiv
    addcmul = arithmetic.addcmul
    arccos = arithmetic.arccos
    arccosh = arithmetic.arccosh
    arcsin = arithmetic.arcsin
    arcsinh = arithmetic.arcsinh
    arctan = arithmetic.arctan
    arctan2 = arithmetic.arctan2
    arctanh = arithmetic.arctanh
    asin = arithmetic.asin
    asinh = arithmetic.asinh
    atan = arithmetic.atan
    atan2 = arithmetic.atan2
    atanh = arithmetic.atanh
    ceil = arithmetic.ceil
    clamp = arithmetic.clamp
    clamp_max = arithmetic.clamp_max
    clamp_min = arithmetic.clamp_min
    clip = arithmetic.clip
    copysign = arithmetic.copysign
    cos = arithmetic.cos
    cosh = arithmetic.cosh
    div = arithmetic.div
    divide = arithmetic.divide
    erf = arithmetic.erf
    exp = arithmetic.exp
    exp2 = arithmetic.exp2
    expm1 = arithmetic.expm1
    float_power = arithmetic.float_power
    floor = arithmetic.floor
    floor_divide = arithmetic.floor_divide
    fmax = arithmetic.fmax
    fmin = arithmetic.fmin
    fmod = arithmetic.fmod
    frac = arithmetic.frac
    heaviside = arithmetic.heaviside
    hypot = arithmetic.hypot
    ldexp = arithmetic.ldexp
    lerp = arithmetic.lerp
    log = arithmetic.log
    log10 = arithmetic.log10
    log1p = arithmetic.log1p
    log2 = arithmetic.log2
    logaddexp = arithmetic.logaddexp
    logaddexp2 = arithmetic.logaddexp2
    logit = arithmetic.logit
    maximum = arithmetic.maximum
    minimum = arithmetic.minimum
    mul = arithmetic.mul
    multiply = arithmetic.multiply
    nan_to_num = arithmetic.nan_to_num
    neg = arithmetic.neg
    negative = arithmetic.negative
    positive = arithmetic.positive
    pow = arithmetic.pow
    reciprocal = arithmetic.reciprocal
    relu = arithmetic.relu
    remainder = arithmetic.remainder
    round = arithmetic.round
    rsqrt = arithmetic.rsqrt
    sgn = arithmetic.sgn
    sigmoid = arithmetic.sigmoid
    sign = arithmetic.sign
    sin = arithmetic.sin
    sinh = arithmetic.sinh
    sqrt = arithmetic.sqrt
    square = arithmetic.square
    sub = arithmetic.sub
    subtract = arithmetic.subtract
    tan = arithmetic.tan
    tanh = arithmetic.tanh
    true_divide = arithmetic.true_divide
    trunc = arithmetic.trunc
    xlogy = arithmetic.xlogy

    all = comparison.all
    allclose = comparison.allclose
    any = comparison.any
    bitwise_and = comparison.bitwise_and
    bitwise_left_shift = comparison.bitwise_left_shift
    bitwise_not = comparison.bitwise_not
    bitwise_or = comparison.bitwise_or
    bitwise_right_shift = comparison.bitwise_right_shift
    bitwise_xor = comparison.bitwise_xor
    eq = comparison.eq
    equal = comparison.equal
    ge = comparison.ge
    greater = comparison.greater
    greater_equal = comparison.greater_equal
    gt = comparison.gt
    isclose = comparison.isclose
    isfinite = comparison.isfinite
    isinf = comparison.isinf
    isnan = comparison.isnan
    isneginf = comparison.isneginf
    isposinf = comparison.isposinf
    isreal = comparison.isreal
    le = comparison.le
    less = comparison.less
    less_equal = comparison.less_equal
    logical_and = comparison.logical_and
    logical_not = comparison.logical_not
    logical_or = comparison.logical_or
    logical_xor = comparison.logical_xor
    lt = comparison.lt
    ne = comparison.ne
    not_equal = comparison.not_equal

    bfloat16 = conversion.bfloat16
    bool = conversion.bool
    byte = conversion.byte
    char = conversion.char
    clone = conversion.clone
    contiguous = conversion.contiguous
    cpu = conversion.cpu
    cuda = conversion.cuda
    double = conversion.double
    float = conversion.float
    half = conversion.half
    int = conversion.int
    is_contiguous = conversion.is_contiguous
    long = conversion.long
    short = conversion.short
    to = conversion.to
    type = conversion.type
    type_as = conversion.type_as

    is_complex = description.is_complex
    is_floating_point = description.is_floating_point
    numel = description.numel
    nelement = description.numel

    bernoulli = drawing.bernoulli
    bernoulli_ = drawing.bernoulli_
    exponential_ = drawing.exponential_
    multinomial = drawing.multinomial
    normal_ = drawing.normal_
    random_ = drawing.random_
    uniform_ = drawing.uniform_

    new_empty = creation.new_empty
    new_full = creation.new_full
    new_ones = creation.new_ones
    new_tensor = creation.new_tensor
    new_zeros = creation.new_zeros

    abs_ = in_place.abs_
    absolute_ = in_place.absolute_
    acos_ = in_place.acos_
    acosh_ = in_place.acosh_
    add_ = in_place.add_
    addcdiv_ = in_place.addcdiv_
    addcmul_ = in_place.addcmul_
    arccos_ = in_place.arccos_
    arccosh_ = in_place.arccosh_
    arcsin_ = in_place.arcsin_
    arcsinh_ = in_place.arcsinh_
    arctan2_ = in_place.arctan2_
    arctan_ = in_place.arctan_
    arctanh_ = in_place.arctanh_
    asin_ = in_place.asin_
    asinh_ = in_place.asinh_
    atan2_ = in_place.atan2_
    atan_ = in_place.atan_
    atanh_ = in_place.atanh_
    bitwise_and_ = in_place.bitwise_and_
    bitwise_left_shift_ = in_place.bitwise_left_shift_
    bitwise_not_ = in_place.bitwise_not_
    bitwise_or_ = in_place.bitwise_or_
    bitwise_right_shift_ = in_place.bitwise_right_shift_
    bitwise_xor_ = in_place.bitwise_xor_
    ceil_ = in_place.ceil_
    clamp_ = in_place.clamp_
    clamp_max_ = in_place.clamp_max_
    clamp_min_ = in_place.clamp_min_
    clip_ = in_place.clip_
    copy_ = in_place.copy_
    copysign_ = in_place.copysign_
    cos_ = in_place.cos_
    cosh_ = in_place.cosh_
    cumprod_ = in_place.cumprod_
    cumsum_ = in_place.cumsum_
    div_ = in_place.div_
    divide_ = in_place.divide_
    eq_ = in_place.eq_
    exp2_ = in_place.exp2_
    erf_ = in_place.erf_
    exp_ = in_place.exp_
    expm1_ = in_place.expm1_
    fill_ = in_place.fill_
    float_power_ = in_place.float_power_
    floor_ = in_place.floor_
    floor_divide_ = in_place.floor_divide_
    fmod_ = in_place.fmod_
    frac_ = in_place.frac_
    ge_ = in_place.ge_
    greater_ = in_place.greater_
    greater_equal_ = in_place.greater_equal_
    gt_ = in_place.gt_
    heaviside_ = in_place.heaviside_
    hypot_ = in_place.hypot_
    index_add_ = in_place.index_add_
    index_copy_ = in_place.index_copy_
    index_fill_ = in_place.index_fill_
    index_put_ = in_place.index_put_
    ldexp_ = in_place.ldexp_
    le_ = in_place.le_
    lerp_ = in_place.lerp_
    less_ = in_place.less_
    less_equal_ = in_place.less_equal_
    log10_ = in_place.log10_
    log1p_ = in_place.log1p_
    log2_ = in_place.log2_
    log_ = in_place.log_
    logical_and_ = in_place.logical_and_
    logical_not_ = in_place.logical_not_
    logical_or_ = in_place.logical_or_
    logical_xor_ = in_place.logical_xor_
    logit_ = in_place.logit_
    lt_ = in_place.lt_
    masked_fill_ = in_place.masked_fill_
    masked_scatter_ = in_place.masked_scatter_
    mul_ = in_place.mul_
    multiply_ = in_place.multiply_
    nan_to_num_ = in_place.nan_to_num_
    ne_ = in_place.ne_
    neg_ = in_place.neg_
    negative_ = in_place.negative_
    not_equal_ = in_place.not_equal_
    pow_ = in_place.pow_
    reciprocal_ = in_place.reciprocal_
    relu_ = in_place.relu_
    remainder_ = in_place.remainder_
    round_ = in_place.round_
    rsqrt_ = in_place.rsqrt_
    scatter_ = in_place.scatter_
    scatter_add_ = in_place.scatter_add_
    scatter_reduce_ = in_place.scatter_reduce_
    sgn_ = in_place.sgn_
    sigmoid_ = in_place.sigmoid_
    sign_ = in_place.sign_
    sin_ = in_place.sin_
    sinh_ = in_place.sinh_
    sqrt_ = in_place.sqrt_
    square_ = in_place.square_
    sub_ = in_place.sub_
    subtract_ = in_place.subtract_
    tan_ = in_place.tan_
    tanh_ = in_place.tanh_
    tril_ = in_place.tril_
    triu_ = in_place.triu_
    true_divide_ = in_place.true_divide_
    trunc_ = in_place.trunc_
    xlogy_ = in_place.xlogy_
    zero_ = in_place.zero_

    diag = arranging.diag
    diag_embed = arranging.diag_embed
    diagonal = arranging.diagonal
    fill_diagonal_ = arranging.fill_diagonal_
    flip = arranging.flip
    fliplr = arranging.fliplr
    flipud = arranging.flipud
    repeat = arranging.repeat
    repeat_interleave = arranging.repeat_interleave
    roll = arranging.roll
    rot90 = arranging.rot90
    tile = arranging.tile
    tril = arranging.tril
    triu = arranging.triu
    unfold = arranging.unfold

    gather = choosing.gather
    index_add = choosing.index_add
    index_copy = choosing.index_copy
    index_fill = choosing.index_fill
    index_put = choosing.index_put
    index_select = choosing.index_select
    scatter = choosing.scatter
    scatter_add = choosing.scatter_add
    scatter_reduce = choosing.scatter_reduce
    take = choosing.take
    take_along_dim = choosing.take_along_dim

    argwhere = masking.argwhere
    masked_fill = masking.masked_fill
    masked_scatter = masking.masked_scatter
    masked_select = masking.masked_select
    nonzero = masking.nonzero

    chunk = joining.chunk
    diff = joining.diff
    dsplit = joining.dsplit
    hsplit = joining.hsplit
    narrow = joining.narrow
    select = joining.select
    split = joining.split
    split_with_sizes = joining.split_with_sizes
    tensor_split = joining.tensor_split
    unbind = joining.unbind
    vsplit = joining.vsplit

    addbmm = linalg.addbmm
    addmm = linalg.addmm
    addmv = linalg.addmv
    addr = linalg.addr
    baddbmm = linalg.baddbmm
    bmm = linalg.bmm
    cross = linalg.cross
    dot = linalg.dot
    ger = linalg.ger
    inner = linalg.inner
    kron = linalg.kron
    matmul = linalg.matmul
    mm = linalg.mm
    mv = linalg.mv
    outer = linalg.outer
    trace = linalg.trace
    vdot = linalg.vdot

    argsort = ordering.argsort
    bincount = ordering.bincount
    histc = ordering.histc
    kthvalue = ordering.kthvalue
    median = ordering.median
    mode = ordering.mode
    msort = ordering.msort
    nanmedian = ordering.nanmedian
    sort = ordering.sort
    topk = ordering.topk
    unique = ordering.unique

    amax = reduction.amax
    amin = reduction.amin
    aminmax = reduction.aminmax
    argmax = reduction.argmax
    argmin = reduction.argmin
    count_nonzero = reduction.count_nonzero
    cumprod = reduction.cumprod
    cumsum = reduction.cumsum
    dist = reduction.dist
    log_softmax = reduction.log_softmax
    logcumsumexp = reduction.logcumsumexp
    logsumexp = reduction.logsumexp
    max = reduction.max
    mean = reduction.mean
    min = reduction.min
    nanmean = reduction.nanmean
    nansum = reduction.nansum
    norm = reduction.norm
    prod = reduction.prod
    softmax = reduction.softmax
    std = reduction.std
    sum = reduction.sum
    var = reduction.var

    T = property(shapes.reversed_dims)
    mT = property(shapes.matrix_transpose)  # noqa: N815 - PyTorch's name
    broadcast_to = shapes.broadcast_to
    expand_as = shapes.expand_as
    moveaxis = shapes.moveaxis
    movedim = shapes.movedim
    ravel = shapes.ravel
    reshape_as = shapes.reshape_as
    swapaxes = shapes.swapaxes
    swapdims = shapes.swapdims
    unflatten = shapes.unflatten
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
