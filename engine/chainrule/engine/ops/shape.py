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
from chainrule.engine.ops.elementwise import zeros_like
from chainrule.engine.ops.op import Op, op, sum_to

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


@op("Clone", x=lambda g: g)
def contiguous(x: Any) -> Any:
    """A copy of `x`, row by row in memory."""
    return np.ascontiguousarray(x)


@op("Copy", exact=True, x=lambda g: zeros_like(g), v=lambda g, v_shape: sum_to(g, shape=v_shape))
def copied(x: Any, v: Any) -> Any:
    """The values `v`, broadcast to the shape of `x`; nothing of `x` is left."""
    return np.broadcast_to(v, x.shape)


# ---- Indexing ----


def _getitem(x: Array, *, index: Any) -> Array:
    if not is_basic(index):
        return np.asarray(x[index])
    parts = index if isinstance(index, tuple) else (index,)
    view: Array = x[index] if ... in parts else x[(*parts, ...)]  # with `...` one element is a view, too
    return view


def _indexing(name: str, *, view: bool) -> Op:
    gradient = lambda g, x_shape, index: put(g, index=index, shape=x_shape)
    return Op(name, _getitem, {"x": gradient}, view=view)


select = _indexing("Select", view=True)
slice_ = _indexing("Slice", view=True)
take = _indexing("Index", view=False)


@op("IndexPut", x=lambda g, index: take(g, index=index))
def put(x: Any, *, index: Any, shape: Shape) -> Any:
    """Zeros of `shape`, to which `x` is added at `index`; what is named twice receives twice."""
    y = np.zeros(shape, x.dtype)
    if is_basic(index):
        y[index] = x
    else:
        np.add.at(y, index, x)
    return y


@op(
    "IndexPut",
    x=lambda g, v_shape, index: overwrite(g, np.zeros(v_shape, g.dtype), index=index),
    v=lambda g, v_shape, index: sum_to(take(g, index=index), shape=v_shape),
)
def overwrite(x: Any, v: Any, *, index: Any) -> Any:
    """A copy of `x` with the values `v` at `index`."""
    y = x.copy()
    y[index] = v
    return y


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


@op("Gather", x=lambda g, x_shape, dim, index: scatter(g, dim=dim, index=index, shape=x_shape))
def gather(x: Any, *, dim: int, index: Array) -> Any:
    """y[i][j] = x[index[i][j]][j], for dim = 0."""
    return np.take_along_axis(x, index, axis=dim)


@op("ScatterAdd", x=lambda g, dim, index: gather(g, dim=dim, index=index))
def scatter(x: Any, *, dim: int, index: Array, shape: Shape) -> Any:
    """The reverse of gather: zeros of `shape`, with x[i][j] added at [index[i][j]][j], for dim = 0."""
    y = np.zeros(shape, x.dtype)
    where = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    where[dim] = index
    np.add.at(y, tuple(where), x)
    return y


# ---- Joining and cutting ----


@op("Cat", tensors=lambda g, position, tensors_shape, dim: narrow(g, *_span(tensors_shape, dim, position), dim=dim))
def cat(*tensors: Any, dim: int) -> Any:
    """The tensors one after another along `dim`, which is not negative."""
    return np.concatenate(tensors, axis=dim)


@op("Narrow", view=True, x=lambda g, x_shape, start, dim: pad_to(g, start=start, size=x_shape[dim], dim=dim))
def narrow(x: Any, *, start: int, length: int, dim: int) -> Any:
    """The part of `x` that begins at `start` along `dim`."""
    return x[(slice(None),) * dim + (slice(start, start + length),)]


@op("Pad", x=lambda g, x_shape, start, dim: narrow(g, start=start, length=x_shape[dim], dim=dim))
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
    if -1 not in shape:
        if math.prod(shape) != size:
            raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {size}")
        return shape
    if shape.count(-1) > 1:
        raise ShapeError("only one dimension can be inferred")
    rest = -math.prod(shape)
    if rest <= 0 or size % rest:
        raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {size}")
    return tuple(size // rest if n == -1 else n for n in shape)
