"""Operations that move elements without computing with them: shapes, indices, concatenation.

What numpy can express as a view is a view. Each of them is linear, and its gradient is its reverse.
"""

# mypy: disable-error-code=has-type
# A formula may name operations declared further down.

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.errors import ShapeError
from chainrule.engine.ops.broadcasting import sum_to
from chainrule.engine.ops.elementwise import zeros_like
from chainrule.engine.ops.op import Gradient, Op, op

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

Shape = tuple[int, ...]


def _reshape(x: Array, *, shape: Shape) -> Array:
    return x.reshape(shape)


def _reshaping(name: str) -> Op:
    return Op(name, _reshape, {"x": lambda g, x_shape: reshape(g, shape=x_shape)}, view=True)


reshape = _reshaping("View")
squeeze = _reshaping("Squeeze")
unsqueeze = _reshaping("Unsqueeze")


@op("Permute", view=True, x=lambda g, dims: permute(g, dims=tuple(int(i) for i in np.argsort(dims))))
def permute(x: Any, *, dims: Shape) -> Any:
    """The dimensions of `x` in another order."""
    return x.transpose(dims)


@op("Transpose", view=True, x=lambda g, dim0, dim1: transpose(g, dim0=dim0, dim1=dim1))
def transpose(x: Any, *, dim0: int, dim1: int) -> Any:
    """`x` with two dimensions swapped."""
    return x.swapaxes(dim0, dim1)


@op("Clone", exact=True, x=lambda g: g)
def contiguous(x: Any, *, channels_last: bool = False) -> Any:
    """A copy of `x`, row by row in memory; of images (N, C, H, W) on request with the channels innermost."""
    if channels_last:
        return x.transpose(0, 2, 3, 1).copy(order="C").transpose(0, 3, 1, 2)
    return x.copy(order="C")


@op("Copy", exact=True, x=lambda g: zeros_like(g), v=lambda g, v_shape: sum_to(g, shape=v_shape))
def copied(x: Any, v: Any) -> Any:
    """The values `v`, broadcast to the shape of `x`; nothing of `x` is left."""
    return np.broadcast_to(v, x.shape)


# ---- Turning, rolling, repeating, cutting corners ----


@op("Flip", exact=True, x=lambda g, dims: flip(g, dims=dims))
def flip(x: Any, *, dims: Shape) -> Any:
    """`x` in reverse order along `dims`."""
    return np.flip(x, dims).copy(order="K")


@op("Roll", exact=True, x=lambda g, shifts, dims: roll(g, shifts=tuple(-n for n in shifts), dims=dims))
def roll(x: Any, *, shifts: Shape, dims: Shape) -> Any:
    """`x` moved on by `shifts` along `dims`; what leaves at the end comes in at the beginning."""
    return np.roll(x, shifts, dims)


@op("Repeat", exact=True, x=lambda g, x_shape, repeats: _sum_of_repeats(g, x_shape, repeats))
def repeat(x: Any, *, repeats: Shape) -> Any:
    """`x` side by side with itself, `repeats` times along each dimension."""
    return np.tile(x, repeats)


def _sum_of_repeats(g: Any, shape: Shape, repeats: Shape) -> Any:
    lengths = (1,) * (len(repeats) - len(shape)) + shape
    split = [n for pair in zip(repeats, lengths, strict=True) for n in pair]  # (r₀, n₀, r₁, n₁, ...)
    kept = [n for length in lengths for n in (1, length)]
    return reshape(sum_to(reshape(g, shape=tuple(split)), shape=tuple(kept)), shape=shape)


@op("Tril", exact=True, x=lambda g, diagonal: tril(g, diagonal=diagonal))
def tril(x: Any, *, diagonal: int) -> Any:
    """The matrices with zeros above a diagonal."""
    return np.where(np.tri(x.shape[-2], x.shape[-1], diagonal, bool), x, np.zeros((), x.dtype))


@op("Triu", exact=True, x=lambda g, diagonal: triu(g, diagonal=diagonal))
def triu(x: Any, *, diagonal: int) -> Any:
    """The matrices with zeros below a diagonal."""
    return np.where(np.tri(x.shape[-2], x.shape[-1], diagonal - 1, bool), np.zeros((), x.dtype), x)


@op(
    "Diagonal",
    view=True,
    x=lambda g, x_shape, offset, dim1, dim2: on_diagonal(g, shape=x_shape, offset=offset, dim1=dim1, dim2=dim2),
)
def diagonal(x: Any, *, offset: int, dim1: int, dim2: int) -> Any:
    """A diagonal of the matrices in two dimensions of `x`, as the last dimension."""
    y = x.diagonal(offset, dim1, dim2)
    y.flags.writeable = x.flags.writeable  # numpy gives it read-only
    return y


@op(
    "DiagonalBackward",
    exact=True,
    x=lambda g, offset, dim1, dim2: diagonal(g, offset=offset, dim1=dim1, dim2=dim2),
)
def on_diagonal(x: Any, *, shape: Shape, offset: int, dim1: int, dim2: int) -> Any:
    """Zeros of `shape`, with `x` on a diagonal: the reverse of `diagonal`."""
    y = np.zeros(shape, x.dtype)
    part = y.diagonal(offset, dim1, dim2)
    part.flags.writeable = True
    part[...] = x
    return y


@op("Unfold", view=True, x=lambda g, x_shape, dim, step: fold(g, shape=x_shape, dim=dim, step=step))
def unfold(x: Any, *, dim: int, size: int, step: int) -> Any:
    """The windows of `size` along `dim`, `step` apart, each in a new last dimension."""
    windows = np.lib.stride_tricks.sliding_window_view(x, size, dim, writeable=bool(x.flags.writeable))
    return windows[(slice(None),) * dim + (slice(None, None, step),)]


@op("UnfoldBackward", x=lambda g, x_shape, dim, step: unfold(g, dim=dim, size=x_shape[-1], step=step))
def fold(x: Any, *, shape: Shape, dim: int, step: int) -> Any:
    """The reverse of unfold: windows added up where they lie."""
    y = np.zeros(shape, x.dtype)
    for k in range(x.shape[-1]):
        y[(slice(None),) * dim + (slice(k, k + step * (x.shape[dim] - 1) + 1, step),)] += x[..., k]
    return y


# ---- Indexing ----


def _getitem(x: Array, *, index: Any) -> Array:
    y = x[index]
    if type(y) is np.ndarray:
        return y
    parts = index if isinstance(index, tuple) else (index,)
    element: Array = x[(*parts, ...)]  # with `...` one element is a view, too
    return element


def _indexing(name: str, *, view: bool, one_of_many: bool = False) -> Op:
    gradient = lambda g, x_shape, index: put(g, index=index, shape=x_shape)
    return Op(name, _getitem, {"x": gradient}, view=view, one_of_many=one_of_many, exact=True)


select = _indexing("Select", view=True)
slice_ = _indexing("Slice", view=True)
unbind = _indexing("Unbind", view=True, one_of_many=True)
take = _indexing("Index", view=False)
index_select = _indexing("IndexSelect", view=False)


@op("IndexPut", x=lambda g, index: take(g, index=index))
def put(x: Any, *, index: Any, shape: Shape) -> Any:
    """Zeros of `shape`, to which `x` is added at `index`; what is named twice receives twice."""
    y = np.zeros(shape, x.dtype)
    if is_basic(index):
        y[index] = x
    else:
        _add_at(y, index, x)
    return y


def _add_at(y: Array, index: Any, x: Array) -> None:
    """y[index] += x, where what is named twice receives twice; fast for one array of integers."""
    parts = index if isinstance(index, tuple) else (index,)
    rows = np.asarray(parts[-1])
    plain = all(isinstance(part, slice) and part == slice(None) for part in parts[:-1])
    if not plain or rows.ndim != 1 or rows.dtype.kind not in "iu":
        np.add.at(y, index, x)
        return
    axis = len(parts) - 1
    if x.ndim != y.ndim or x.shape[axis] != len(rows):
        x = np.broadcast_to(x, (*y.shape[:axis], len(rows), *y.shape[axis + 1 :]))
    rows = np.where(rows < 0, rows + y.shape[axis], rows)
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    first = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]])) if len(rows) else rows
    if len(first) == len(rows):  # all different
        y[index] += x
    else:
        y[(*parts[:-1], rows[first])] += np.add.reduceat(x.take(order, axis), first, axis, dtype=x.dtype)


def _overwriting(name: str) -> Op:
    def _write_at(x: Any, v: Any, *, index: Any) -> Any:
        """A copy of `x` with the values `v` at `index`."""
        y = x.copy(order="K")
        y[index] = v
        return y

    return Op(
        name,
        _write_at,
        {
            "x": lambda g, v_shape, index: overwrite(g, np.zeros(v_shape, g.dtype), index=index),
            "v": lambda g, v_shape, index: sum_to(take(g, index=index), shape=v_shape),
        },
        exact=True,
    )


overwrite = _overwriting("IndexPut")
index_copy = _overwriting("IndexCopy")
index_fill = _overwriting("IndexFill")


def _adding(name: str) -> Op:
    def _added_at(x: Any, v: Any, *, index: Any) -> Any:
        """A copy of `x` with `v` added at `index`; what is named twice receives twice."""
        y = x.copy(order="K")
        _add_at(y, index, v)
        return y

    gradients: dict[str, Gradient] = {
        "x": lambda g: g,
        "v": lambda g, v_shape, index: sum_to(take(g, index=index), shape=v_shape),
    }
    return Op(name, _added_at, gradients)


put_add = _adding("IndexPut")
index_add = _adding("IndexAdd")


def getitem(x: Any, index: Any) -> Tensor:
    """x[index], recorded under the name that PyTorch gives this kind of index."""
    if is_basic(index):
        parts = index if isinstance(index, tuple) else (index,)
        return (select if any(isinstance(part, int | np.integer) for part in parts) else slice_)(x, index=index)
    return take(x, index=index)


def is_basic(index: Any) -> bool:
    """Whether an index selects a view: integers, slices, None and `...`, no arrays."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        part is None or part is ... or (isinstance(part, int | np.integer | slice) and not isinstance(part, bool))
        for part in parts
    )


@op("Gather", exact=True, x=lambda g, x_shape, dim, index: scatter(g, dim=dim, index=index, shape=x_shape))
def gather(x: Any, *, dim: int, index: Array) -> Any:
    """y[i][j] = x[index[i][j]][j], for dim = 0."""
    return x[_along(index, dim)]


@op("ScatterAdd", x=lambda g, dim, index: gather(g, dim=dim, index=index))
def scatter(x: Any, *, dim: int, index: Array, shape: Shape) -> Any:
    """The reverse of gather: zeros of `shape`, with x[i][j] added at [index[i][j]][j], for dim = 0."""
    y = np.zeros(shape, x.dtype)
    np.add.at(y, _along(index, dim), x)
    return y


@op("ScatterAdd", x=lambda g: g, v=lambda g, dim, index: gather(g, dim=dim, index=index))
def scatter_add(x: Any, v: Any, *, dim: int, index: Array) -> Any:
    """A copy of `x` with v[i][j] added at [index[i][j]][j], for dim = 0; `v` has the shape of `index`."""
    y = x.copy(order="K")
    np.add.at(y, _along(index, dim), v)
    return y


@op(
    "Scatter",
    exact=True,
    x=lambda g, v_shape, dim, index: scatter_over(g, np.zeros(v_shape, g.dtype), dim=dim, index=index),
    v=lambda g, v_shape, dim, index: sum_to(gather(g, dim=dim, index=index), shape=v_shape),
)
def scatter_over(x: Any, v: Any, *, dim: int, index: Array) -> Any:
    """A copy of `x` with v[i][j] at [index[i][j]][j], for dim = 0; `v` broadcasts to the shape of `index`."""
    y = x.copy(order="K")
    y[_along(index, dim)] = v
    return y


def _along(index: Array, dim: int) -> tuple[Array, ...]:
    """The index that names, for each element of `index`, its place along `dim` and its own along the others."""
    where = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    where[dim] = index
    return tuple(where)


@op(
    "MaskedFill",
    exact=True,
    x=lambda g, v_shape, mask: masked_fill(g, np.zeros(v_shape, g.dtype), mask=mask),
    v=lambda g, v_shape, mask: sum_to(masked_fill(g, np.zeros((), g.dtype), mask=~mask), shape=v_shape),
)
def masked_fill(x: Any, v: Any, *, mask: Array) -> Any:
    """`x` with the number `v` where `mask`, of one shape with `x`, is true."""
    y = x.copy(order="K")
    np.copyto(y, v, where=mask)
    return y


# ---- Joining and cutting ----


@op(
    "Cat",
    exact=True,
    tensors=lambda g, position, tensors_shape, dim: narrow(g, *_span(tensors_shape, dim, position), dim=dim),
)
def cat(*tensors: Any, dim: int) -> Any:
    """The tensors one after another along `dim`, which is not negative."""
    return np.concatenate(tensors, axis=dim)


@op("Stack", exact=True, tensors=lambda g, position, dim: select(g, index=(slice(None),) * dim + (position,)))
def stack(*tensors: Any, dim: int) -> Any:
    """The tensors, of one shape, along a new dimension `dim`, which is not negative."""
    return np.stack(tensors, axis=dim)


def _narrow(x: Any, *, start: int, length: int, dim: int) -> Any:
    """The part of `x` that begins at `start` along `dim`."""
    return x[(slice(None),) * dim + (slice(start, start + length),)]


def _narrowing(name: str, *, one_of_many: bool = False) -> Op:
    gradient = lambda g, x_shape, start, dim: pad_to(g, start=start, size=x_shape[dim], dim=dim)
    return Op(name, _narrow, {"x": gradient}, view=True, one_of_many=one_of_many)


narrow = _narrowing("Slice")
split = _narrowing("Split", one_of_many=True)


@op("Pad", exact=True, x=lambda g, x_shape, start, dim: narrow(g, start=start, length=x_shape[dim], dim=dim))
def pad_to(x: Any, *, start: int, size: int, dim: int) -> Any:
    """`x` at `start` along `dim`, among zeros, `size` long."""
    y = np.zeros((*x.shape[:dim], size, *x.shape[dim + 1 :]), x.dtype)
    y[(slice(None),) * dim + (slice(start, start + x.shape[dim]),)] = x
    return y


def _span(shapes: tuple[Shape, ...], dim: int, position: int) -> tuple[int, int]:
    """Where the tensor at `position` begins along `dim` of all, and how long it is."""
    start = sum(shape[dim] for shape in shapes[:position])
    return start, shapes[position][dim]


# ---- Shapes ----


def infer_shape(size: int, shape: Shape) -> Shape:
    """`shape` with its -1, if it has one, replaced by what makes it hold `size` elements.

    Raises:
        ShapeError: no such number, or more than one -1.
    """
    if math.prod(shape) == size and min(shape, default=0) >= 0:
        return shape
    for position, n in enumerate(shape):
        if n < -1:
            raise ShapeError(f"invalid shape dimension {n} at index {position} of shape {list(shape)}")
    if -1 not in shape:
        raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {size}")
    if shape.count(-1) > 1:
        raise ShapeError("only one dimension can be inferred")
    rest = -math.prod(shape)
    if rest == size == 0:
        raise ShapeError(
            f"cannot reshape tensor of 0 elements into shape {list(shape)} because the unspecified dimension size -1 "
            "can be any value and is ambiguous"
        )
    if rest <= 0 or size % rest:
        raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {size}")
    return tuple(size // rest if n == -1 else n for n in shape)
