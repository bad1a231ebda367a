"""Products of vectors, matrices and batches of matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from chainrule.engine.dtypes import bool_, type_name
from chainrule.engine.errors import DTypeError, ShapeError, UnsupportedError
from chainrule.engine.functions.arguments import Number, as_operand, axis_of, c_name
from chainrule.engine.functions.arranging import diagonal, roll
from chainrule.engine.functions.autocast import active, lowered, raised
from chainrule.engine.functions.reduction import sum as total
from chainrule.engine.functions.shapes import broadcast_pair, expand, permute, reshape
from chainrule.engine.ops import elementwise, linalg
from chainrule.engine.ops.shape import squeeze, unsqueeze

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

__all__ = [
    "addbmm",
    "addmm",
    "addmv",
    "addr",
    "baddbmm",
    "bmm",
    "cross",
    "dot",
    "ger",
    "inner",
    "kron",
    "matmul",
    "mm",
    "mv",
    "outer",
    "tensordot",
    "trace",
    "vdot",
]


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """input @ other by the dimensions: vectors, matrices, or batches of matrices that broadcast.

    Raises:
        ShapeError: an operand is 0-d, or the shapes do not fit.
        DTypeError: the dtypes differ.
    """
    a, b = as_operand(input), as_operand(other)
    if active:
        a, b = lowered(a, b)
    match a.data.ndim, b.data.ndim:
        case (0, _) | (_, 0):
            raise ShapeError(
                f"both arguments to matmul need to be at least 1D, but they are {a.data.ndim}D and {b.data.ndim}D"
            )
        case 1, 1:
            return dot(a, b)
        case 2, 1:
            return mv(a, b)
        case 2, 2:
            return mm(a, b)
        case 1, 2:
            return squeeze(mm(unsqueeze(a, shape=(1, a.data.size)), b), shape=b.data.shape[1:])
        case 1, _:
            product = _batched(unsqueeze(a, shape=(1, a.data.size)), b)
            return squeeze(product, shape=product.shape[:-2] + product.shape[-1:])
        case _, 1:
            rows = reshape(a, math.prod(a.shape[:-1]), a.shape[-1])
            return reshape(mv(rows, b), a.shape[:-1])
        case _, 2 if a.data.flags.c_contiguous or a.shape[-1] != b.shape[0]:  # one large product rather than many
            rows = reshape(a, math.prod(a.shape[:-1]), a.shape[-1])
            return reshape(mm(rows, b), (*a.shape[:-1], b.shape[-1]))
    return _batched(a, b)


def _batched(a: Tensor, b: Tensor) -> Tensor:
    batch = broadcast_pair(a.data.shape[:-2], b.data.shape[:-2])
    if a.data.shape[-1] != b.data.shape[-2]:
        count = math.prod(batch)
        raise ShapeError(
            f"Expected size for first two dimensions of batch2 tensor to be: [{count}, {a.data.shape[-1]}] but got: "
            f"[{count}, {b.data.shape[-2]}]."
        )
    _check_batched_dtype(a, b)
    return linalg.bmm(a, b)


def _check_batched_dtype(a: Tensor, b: Tensor) -> None:
    if a.data.dtype != b.data.dtype:
        raise DTypeError(f"expected scalar type {type_name(a.dtype)} but found {type_name(b.dtype)}")
    _refuse_bool("baddbmm", a)


def _refuse_bool(name: str, x: Tensor) -> None:
    if x.data.dtype == bool_:
        raise UnsupportedError(f"\"{name}\" not implemented for 'Bool'; convert with to(int64)")


def _by(x: Tensor) -> str:
    return "x".join(map(str, x.data.shape))


# ---- Of given dimensions ----


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """Σ aᵢ·bᵢ of two vectors.

    Raises:
        ShapeError: they are no vectors, or differ in length.
        DTypeError: the dtypes differ.
    """
    a, b = as_operand(input), as_operand(tensor)
    if a.data.ndim != 1 or b.data.ndim != 1:
        raise ShapeError(f"1D tensors expected, but got {a.data.ndim}D and {b.data.ndim}D tensors")
    if a.data.dtype != b.data.dtype:
        raise DTypeError(
            f"dot : expected both vectors to have same dtype, but found {type_name(a.dtype)} and {type_name(b.dtype)}"
        )
    if a.data.size != b.data.size:
        raise ShapeError(
            f"inconsistent tensor size, expected tensor {list(a.shape)} and src {list(b.shape)} to have the same "
            f"number of elements, but got {a.data.size} and {b.data.size} elements respectively"
        )
    _refuse_bool("dot", a)
    return linalg.dot(a, b)


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """`dot`, as long as there are no complex numbers."""
    return dot(input, other)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """A·b of a matrix and a vector.

    Raises:
        ShapeError: they are not, or do not fit.
        DTypeError: the dtypes differ.
    """
    a, b = as_operand(input), as_operand(vec)
    _check_mv(a, b, b.data.shape[0] if b.data.shape else 0, 1, a.data.ndim)
    if a.data.dtype != b.data.dtype:
        raise DTypeError(
            "addmv input tensors must have the same dtype, but got "
            f"{type_name(b.dtype)}, {type_name(a.dtype)}, and {type_name(b.dtype)}"
        )
    _refuse_bool("addmv_impl_cpu", a)
    return linalg.mv(a, b)


def _check_mv(a: Tensor, b: Tensor, size: int, x_ndim: int, a_ndim: int) -> None:
    if a_ndim != 2 or b.data.ndim != 1:
        raise ShapeError(f"vector + matrix @ vector expected, got {x_ndim}, {a_ndim}, {b.data.ndim}")
    if a.data.shape[1] != b.data.size:
        rows = a.data.shape[0] if size == b.data.size else size
        raise ShapeError(f"size mismatch, got input ({rows}), mat ({_by(a)}), vec ({b.data.size})")


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """A·B of two matrices.

    Raises:
        ShapeError: they are not, or do not fit.
        DTypeError: the dtypes differ.
    """
    a, b = as_operand(input), as_operand(mat2)
    if active:
        a, b = lowered(a, b)
    _check_mm(a, b, "self")
    return linalg.mm(a, b)


def _check_mm(a: Tensor, b: Tensor, first: str) -> None:
    if a.data.ndim != 2:
        raise ShapeError(f"{first} must be a matrix")
    if b.data.ndim != 2:
        raise ShapeError("mat2 must be a matrix")
    if a.data.shape[1] != b.data.shape[0]:
        raise ShapeError(f"mat1 and mat2 shapes cannot be multiplied ({_by(a)} and {_by(b)})")
    if a.data.dtype != b.data.dtype:
        raise DTypeError(f"expected m1 and m2 to have the same dtype, but got: {c_name(a.dtype)} != {c_name(b.dtype)}")
    _refuse_bool("addmm_impl_cpu_", a)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """A·B of each pair of matrices of two batches, (B, N, M) and (B, M, P).

    Raises:
        ShapeError: they are not, or do not fit.
        DTypeError: the dtypes differ.
    """
    if active:
        input, mat2 = lowered(input, mat2)
    _check_bmm(input, mat2)
    return linalg.bmm(input, mat2)


def _check_bmm(a: Tensor, b: Tensor) -> None:
    for name, x in (("batch1", a), ("batch2", b)):
        if x.data.ndim != 3:
            raise ShapeError(f"{name} must be a 3D tensor")
    wanted, got = [a.data.shape[0], a.data.shape[2]], [*b.data.shape[:2]]
    if wanted != got:
        raise ShapeError(f"Expected size for first two dimensions of batch2 tensor to be: {wanted} but got: {got}.")
    _check_batched_dtype(a, b)


# ---- Added to something ----


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """β · input + α · mat1 @ mat2, where `input` broadcasts.

    Raises:
        ShapeError: the matrices do not fit, or `input` does not broadcast.
        DTypeError: the dtypes differ.
    """
    if active:
        input, mat1, mat2 = lowered(input, mat1, mat2)
    _check_mm(mat1, mat2, "mat1")
    _check_added(input, mat2)
    expand(input.detach(), mat1.shape[0], mat2.shape[1])
    return linalg.addmm(input, mat1, mat2, beta=beta, alpha=alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """β · input + α · mat @ vec, where `input` broadcasts; see `addmm`."""
    size = input.data.size
    if mat.data.ndim != 2 or vec.data.ndim != 1 or input.data.ndim > 1:
        raise ShapeError(f"vector + matrix @ vector expected, got {input.data.ndim}, {mat.data.ndim}, {vec.data.ndim}")
    if mat.data.shape[1] != vec.data.size or size not in (1, mat.data.shape[0]):
        raise ShapeError(f"size mismatch, got input ({size}), mat ({_by(mat)}), vec ({vec.data.size})")
    if not input.dtype == mat.dtype == vec.dtype:
        raise DTypeError(
            f"addmv input tensors must have the same dtype, but got {type_name(input.dtype)}, {type_name(mat.dtype)}, "
            f"and {type_name(vec.dtype)}"
        )
    _refuse_bool("addmv_impl_cpu", mat)
    return linalg.addmv(input, mat, vec, beta=beta, alpha=alpha)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """β · input + α · batch1 @ batch2 for each pair of matrices, where `input` broadcasts; see `addmm`."""
    if active:
        input, batch1, batch2 = lowered(input, batch1, batch2)
    _check_bmm(batch1, batch2)
    _check_added(input, batch2)
    expand(input.detach(), *batch1.shape[:2], batch2.shape[2])
    return linalg.baddbmm(input, batch1, batch2, beta=beta, alpha=alpha)


def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """β · input + α · Σ batch1 @ batch2 over the batch, where `input` broadcasts; see `addmm`."""
    if active:
        input, batch1, batch2 = lowered(input, batch1, batch2)
    _check_bmm(batch1, batch2)
    count, rows, inner = batch1.shape
    a = reshape(permute(batch1, 1, 0, 2), rows, count * inner)
    return addmm(input, a, reshape(batch2, count * inner, batch2.shape[2]), beta=beta, alpha=alpha)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """β · input + α · vec1 · vec2ᵀ, where `input` broadcasts."""
    product = outer(vec1, vec2)
    product = product if alpha == 1 else elementwise.mul(product, alpha)
    if beta == 0:
        return product
    return elementwise.add(expand(input if beta == 1 else elementwise.mul(input, beta), product.shape), product)


def _check_added(input: Tensor, b: Tensor) -> None:
    if input.dtype != b.dtype:
        raise DTypeError(
            f"self and mat2 must have the same dtype, but got {type_name(input.dtype)} and {type_name(b.dtype)}"
        )


# ---- Of any dimensions ----


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """a·bᵀ of two vectors.

    Raises:
        ShapeError: one is no vector.
    """
    for name, x in (("self", input), ("vec2", vec2)):
        if x.data.ndim != 1:
            raise ShapeError(f"outer: Expected 1-D argument {name}, but got {x.data.ndim}-D")
    return elementwise.mul(unsqueeze(input, shape=(input.data.size, 1)), vec2)


ger = outer


def inner(input: Tensor, other: Tensor) -> Tensor:
    """The products summed over the last dimension of both.

    Raises:
        ShapeError: these dimensions differ.
    """
    if input.data.ndim == 0 or other.data.ndim == 0:
        return elementwise.mul(input, other)
    if input.data.shape[-1] != other.data.shape[-1]:
        raise ShapeError(
            "inner() the last dimension must match on both input tensors but got shapes "
            f"{list(input.shape)} and {list(other.shape)}"
        )
    return tensordot(input, other, dims=([-1], [-1]))


def tensordot(a: Tensor, b: Tensor, dims: int | Sequence[Any] = 2) -> Tensor:
    """The products summed over `dims`: the last ones of `a` and the first ones of `b`, or a pair of lists.

    Raises:
        ShapeError: the dimensions differ in number or length, or one is named twice.
    """
    pairs: Any = dims.tolist() if hasattr(dims, "tolist") else dims
    if isinstance(pairs, int):
        if pairs < 0:
            raise ShapeError(f"tensordot expects dims >= 0, but got dims={pairs}")
        if pairs > min(a.data.ndim, b.data.ndim):
            raise ShapeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={pairs}")
        pairs = (range(-pairs, 0), range(pairs))
    given = [[part] if isinstance(part, int) else list(part) for part in pairs]
    if len(given[0]) != len(given[1]):
        raise ShapeError("both dimension lists should have same length")
    first, second = [axis_of(a, dim) for dim in given[0]], [axis_of(b, dim) for dim in given[1]]
    for axes in (first, second):
        for axis in axes:
            if axes.count(axis) > 1:
                raise ShapeError(f"dim {axis} appears multiple times in the list of dims")
    for i, j, dim, other in zip(first, second, *given, strict=True):
        n, m = a.shape[i], b.shape[j]
        if n != m and n == 1:
            b = total(b, j, True, dtype=b.dtype)
        elif n != m and m == 1:
            a = total(a, i, True, dtype=a.dtype)
        elif n != m:
            raise ShapeError(
                f"contracted dimensions need to match, but first has size {n} in dim {dim} and second has size {m} in "
                f"dim {other}"
            )
    rows = [axis for axis in range(a.ndim) if axis not in first]
    columns = [axis for axis in range(b.ndim) if axis not in second]
    shape = tuple([a.shape[axis] for axis in rows] + [b.shape[axis] for axis in columns])
    inner = math.prod(a.shape[axis] for axis in first)
    left = reshape(permute(a, rows + first), math.prod(a.shape[axis] for axis in rows), inner)
    right = reshape(permute(b, second + columns), inner, math.prod(b.shape[axis] for axis in columns))
    return reshape(mm(left, right), shape)


def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: `other` times each element of `input`, side by side."""
    ndim = max(input.data.ndim, other.data.ndim)
    a, b = [(1,) * (ndim - x.data.ndim) + x.data.shape for x in (input, other)]
    left = reshape(input, [size for n in a for size in (n, 1)])
    right = reshape(other, [size for n in b for size in (1, n)])
    return reshape(elementwise.mul(left, right), [n * m for n, m in zip(a, b, strict=True)])


def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The cross product along a dimension of length three, by default the first one; the others broadcast.

    Raises:
        ShapeError: there is no such dimension, or the shapes do not fit.
    """
    if input.data.ndim != other.data.ndim:
        raise ShapeError("linalg.cross: inputs must have the same number of dimensions.")
    if dim is None:
        if 3 not in input.shape:
            raise ShapeError("no dimension of size 3 in input")
        dim = input.shape.index(3)
    axis = axis_of(input, dim)
    if input.shape[axis] != 3 or other.shape[axis] != 3:
        raise ShapeError(
            f"linalg.cross: inputs dimension {dim} must have length 3. Got {input.shape[axis]} and {other.shape[axis]}"
        )
    shape = broadcast_pair(input.data.shape, other.data.shape)
    a, b = expand(input, shape), expand(other, shape)
    ahead = elementwise.mul(roll(a, -1, axis), roll(b, -2, axis))
    return elementwise.sub(ahead, elementwise.mul(roll(a, -2, axis), roll(b, -1, axis)))


def trace(input: Tensor) -> Tensor:
    """Σ xᵢᵢ of a matrix.

    Raises:
        ShapeError: the tensor is no matrix.
    """
    if input.data.ndim != 2:
        raise ShapeError(f"trace: expected a matrix, but got tensor with dim {input.data.ndim}")
    if active:
        (input,) = raised(input)
    return total(diagonal(input))
