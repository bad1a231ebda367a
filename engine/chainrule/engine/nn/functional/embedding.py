"""Tables of vectors that are looked up by an index."""

from __future__ import annotations

import numpy as np

from chainrule.engine.autograd.mode import no_grad
from chainrule.engine.dtypes import Array, int64, type_name
from chainrule.engine.errors import ConfigError, DTypeError, ShapeError, TargetError, UnsupportedError
from chainrule.engine.functions.arguments import require_tensor
from chainrule.engine.nn.functional.checks import RequirementError, SettingError, SizeError
from chainrule.engine.ops import embedding as rows
from chainrule.engine.tensor import Tensor
from chainrule.engine.watching import watched

__all__ = ["embedding", "embedding_bag", "one_hot"]


@watched
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """weight[input], for indices of any shape and a table (V, D).

    Args:
        input: the indices, int64 or int32.
        weight: the table.
        padding_idx: a row that receives no gradient.
        max_norm: rows that are used and longer than this are shortened to it in the table itself.
        norm_type: the p of that length.
        scale_grad_by_freq: whether the gradient of a row is divided by how often it is used here.
        sparse: not supported: gradients are dense.

    Raises:
        TargetError: an index is no row.
        DTypeError: the indices are no int64 or int32.
        ShapeError: the table is no matrix.
        RequirementError: the row of padding is none.
    """
    index = _checked_index("embedding", input, weight, sparse)
    padding_idx = padding_row(padding_idx, weight.shape[0])
    if max_norm is not None:
        _renormalise(weight, index, max_norm, norm_type)
    scale = _gradient_scale(index, padding_idx, scale_grad_by_freq)
    return rows.embedding(weight, index=index, scale=scale)


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The sum or the mean of `embedding` over each bag of indices; 0 for an empty bag.

    The bags are the rows of `input` (B, N), or the parts of `input` (N) that begin at `offsets` (B); with
    `include_last_offset` the last offset is where the last bag ends. Indices equal to `padding_idx` do not count.

    Raises:
        UnsupportedError: `mode` max, or the gradient of a mean scaled by frequency.
        ConfigError: another mode.
        SizeError: the shapes do not fit.
        Others as `embedding`.
    """
    if per_sample_weights is not None and per_sample_weights.shape != input.shape:
        raise SizeError(
            f"embedding_bag: If per_sample_weights ({per_sample_weights.shape}) is not None, then it must have the "
            f"same shape as the input ({input.shape})"
        )
    if mode not in ("sum", "mean", "max"):
        raise ConfigError("mode", mode, "mode has to be one of sum, mean or max")
    if mode == "max":
        raise UnsupportedError("embedding_bag: mode='max' is not supported by this version; use 'sum' or 'mean'")
    if per_sample_weights is not None and mode != "sum":
        raise UnsupportedError(
            f"embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' "
            f"(got mode='{mode}')."
        )
    starts, end = _bags(input, offsets, include_last_offset)
    vectors = embedding(input.reshape(-1), weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    padding_idx = padding_row(padding_idx, weight.shape[0])
    counted = np.ones(input.numel(), bool) if padding_idx is None else input.data.reshape(-1) != padding_idx
    if padding_idx is not None:
        vectors = vectors * Tensor(counted[:, None].astype(weight.dtype))
    if per_sample_weights is not None:
        vectors = vectors * per_sample_weights.reshape(-1, 1)
    y = rows.sum_bags(vectors[:end], starts=starts)
    if mode == "sum":
        return y
    sizes = rows.sum_bags(counted[:end].astype(weight.dtype), starts=starts)
    return y / Tensor(np.maximum(sizes, 1)[:, None])


def _bags(input: Tensor, offsets: Tensor | None, include_last_offset: bool) -> tuple[Array, int]:
    """Where each bag begins, and where the last one ends."""
    if input.ndim == 2:
        if offsets is not None:
            raise SizeError(
                "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length "
                f"sequences. However, found offsets of type {type(offsets)}"
            )
        return np.arange(input.shape[0]) * input.shape[1], input.numel()
    if input.ndim != 1:
        raise SizeError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.ndim}")
    if offsets is None:
        raise SizeError("offsets has to be a 1D Tensor but got None")
    if offsets.ndim != 1:
        raise SizeError("offsets has to be a 1D Tensor")
    starts = offsets.data.astype(np.int64)
    if len(starts) and (starts[0] != 0 or (np.diff(starts) < 0).any() or starts[-1] > input.numel()):
        raise ShapeError(
            f"offsets has to begin with 0, not fall, and end at {input.numel()}, the length of the input; got "
            f"{starts.tolist()}"
        )
    return (starts[:-1], int(starts[-1])) if include_last_offset else (starts, input.numel())


@watched
def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """y[..., c] = 1 where the tensor is c, else 0, in int64; by default there are as many classes as the largest says.

    Raises:
        DTypeError: the tensor is no int64.
        SettingError: a class is negative or too large, or there is nothing to count the classes by.
    """
    require_tensor("one_hot", tensor)
    if tensor.dtype != int64:
        raise DTypeError("one_hot is only applicable to index tensor of type LongTensor.")
    if not tensor.numel() and num_classes <= 0:
        raise SettingError("num_classes", num_classes, "Can not infer total number of classes from empty tensor.")
    if tensor.numel():
        low, high = int(tensor.data.min()), int(tensor.data.max())
        if low < 0:
            raise SettingError("tensor", low, "Class values must be non-negative.")
        if num_classes == -1:
            num_classes = high + 1
        elif num_classes <= high:
            raise SettingError("num_classes", num_classes, "Class values must be smaller than num_classes.")
    return Tensor((tensor.data[..., None] == np.arange(num_classes)).astype(np.int64))


def padding_row(padding_idx: int | None, rows: int) -> int | None:
    """The row of padding, counted from 0.

    Raises:
        RequirementError: there is no such row.
    """
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise RequirementError("padding_idx", padding_idx, "Padding_idx must be within num_embeddings")
    return padding_idx % rows


def _checked_index(name: str, input: Tensor, weight: Tensor, sparse: bool) -> Array:
    require_tensor(name, input)
    if sparse:
        raise UnsupportedError(f"{name}: sparse gradients are not supported by this version; leave sparse=False")
    if weight.ndim != 2:
        raise ShapeError("'weight' must be 2-D")
    if input.dtype not in (np.int64, np.int32):
        raise DTypeError(
            f"Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; but got "
            f"{type_name(input.dtype)}Tensor instead (while checking arguments for {name})"
        )
    index = input.data.copy()
    outside = (index < 0) | (index >= weight.shape[0])
    if outside.any():
        raise TargetError(
            f"index out of range in self: {index[outside].flat[0]} is none of the {weight.shape[0]} rows of the table"
        )
    return index


def _gradient_scale(index: Array, padding_idx: int | None, by_frequency: bool) -> Array | None:
    """0 for padding, and 1 over how often the index is there, if that is wanted; None where all are 1."""
    if padding_idx is None and not by_frequency:
        return None
    scale = np.ones(index.shape)
    if by_frequency:
        _, inverse, counts = np.unique(index.reshape(-1), return_inverse=True, return_counts=True)
        scale = (1 / counts)[inverse].reshape(index.shape)
    if padding_idx is not None:
        scale[index == padding_idx] = 0
    return scale


def _renormalise(weight: Tensor, index: Array, max_norm: float, norm_type: float) -> None:
    """Shortens the rows named by `index` that are longer than `max_norm`."""
    used = np.unique(index)
    table = weight.data[used].astype(np.float64)
    norms = np.linalg.norm(table, ord=norm_type, axis=1)
    long = norms > max_norm
    table[long] *= (max_norm / (norms[long] + 1e-7))[:, None]
    with no_grad():
        weight[Tensor(used)] = Tensor(table.astype(weight.dtype))
