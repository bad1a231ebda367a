"""Attention: queries look up values by their keys."""

from __future__ import annotations

import math

import numpy as np

from chainrule.engine.dtypes import Array, DType, bool_, is_floating, type_name
from chainrule.engine.errors import ConfigError, DTypeError, ShapeError
from chainrule.engine.functions.autocast import active, lowered
from chainrule.engine.functions.joining import cat
from chainrule.engine.nn.functional.dropout import dropout
from chainrule.engine.nn.functional.linear import linear
from chainrule.engine.ops import attention
from chainrule.engine.tensor import Tensor
from chainrule.engine.watching import watched


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(scale · q·kᵀ + mask) · v, for q (..., L, E), k (..., S, E) and v (..., S, Ev), giving (..., L, Ev).

    A query that may see no key at all gets 0. Source: Vaswani et al., https://arxiv.org/abs/1706.03762

    Args:
        attn_mask: broadcasts to (..., L, S). Of bools: where a query may look; of floats: added to the scores.
        dropout_p: the share of the weights that is dropped; also outside of training.
        is_causal: query i may look at keys 0 to i.
        scale: of the scores; None: 1 / √E.
        enable_gqa: heads, at dimension −3, of k and v serve several heads of q each.

    Raises:
        ShapeError: shapes do not fit, or there are both a mask and `is_causal`.
        DTypeError: dtypes differ or are no floats, or that of the mask is neither bool nor float.
    """
    if active:
        query, key, value, attn_mask = lowered(query, key, value, attn_mask)
    _check_operands(query, key, value)
    if is_causal and attn_mask is not None:
        raise ShapeError(
            "_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True; "
            "combine both into one mask"
        )
    if enable_gqa:
        key, value = (_for_each_query_head(query, x) for x in (key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    mask = causal(query.shape[-2], key.shape[-2]) if is_causal else attn_mask
    return attended(query, key, value, mask, scale, dropout_p)


@watched
def attended(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | Array | None, scale: float, dropout_p: float
) -> Tensor:
    """softmax(scale · q·kᵀ + mask) · v, a share `dropout_p` of whose weights is dropped."""
    alike = query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    if not alike or dropout_p or (isinstance(mask, Tensor) and mask.requires_grad):  # the parts one by one
        return dropout(attention_weights((query * scale) @ key.mT, mask), dropout_p) @ value
    return attention.attend(
        query, key, value, mask=_constant(mask, (*query.shape[:-1], key.shape[-2]), query.dtype), scale=scale
    )


@watched
def attention_weights(scores: Tensor, mask: Tensor | Array | None) -> Tensor:
    """softmax(scores + mask) along the last dimension, 0 in a row that the mask hides.

    Raises:
        DTypeError: the mask is neither of bools nor of the scores' dtype.
    """
    if isinstance(mask, Tensor) and mask.requires_grad:
        _constant(mask, scores.shape, scores.dtype)
        return attention.masked_softmax(scores + mask.to(scores.dtype))
    return attention.masked_softmax(scores, mask=_constant(mask, scores.shape, scores.dtype))


def _constant(mask: Tensor | Array | None, scores: tuple[int, ...], dtype: DType) -> Array | None:
    """The mask as an array of bools or floats, checked for scores of that shape and dtype."""
    if mask is None:
        return None
    if mask.dtype != bool_ and not is_floating(mask.dtype):
        raise DTypeError(
            "Expected attn_mask dtype to be bool or float or to match query dtype, but got attn_mask.dtype: "
            f"{type_name(mask.dtype)} and  query.dtype: {type_name(dtype)} instead."
        )
    _require_broadcast(mask.shape, scores)
    return mask.data if isinstance(mask, Tensor) else mask


def causal(length: int, keys: int) -> Array:
    """The mask (length, keys) with which query i may look at keys 0 to i."""
    mask: Array = np.tri(length, keys, dtype=bool)
    return mask


def _check_operands(query: Tensor, key: Tensor, value: Tensor) -> None:
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ShapeError(
            "Expected query, key, and value to all be  at least 2 dimensional, but got "
            f"query.dim: {query.ndim} key.dim: {key.ndim} and value.dim: {value.ndim} instead."
        )
    if not query.dtype == key.dtype == value.dtype:
        raise DTypeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{query.dtype} key.dtype: {key.dtype} and value.dtype: {value.dtype} instead."
        )
    if not is_floating(query.dtype):
        raise DTypeError(f"expected scalar type Float but found {type_name(query.dtype)}")
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ShapeError(
            "scaled_dot_product_attention: expected query (..., L, E), key (..., S, E) and value (..., S, Ev), got "
            f"{list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
        )


def _require_broadcast(mask: tuple[int, ...], scores: tuple[int, ...]) -> None:
    """Raises ShapeError unless a mask of the one shape broadcasts to scores of the other."""
    fits = len(mask) <= len(scores) and all(m in (1, n) for m, n in zip(mask[::-1], scores[::-1], strict=False))
    if not fits:
        raise ShapeError(f"attention: a mask of shape {list(mask)} does not broadcast to scores of {list(scores)}")


def _for_each_query_head(query: Tensor, x: Tensor) -> Tensor:
    """The heads of x (..., H, S, E), each as often as there are heads of the query for it."""
    if min(query.ndim, x.ndim) < 3 or query.shape[-3] % x.shape[-3]:
        raise ShapeError(
            "Number of heads in key and value must divide the number of heads in query, got "
            f"{list(query.shape)} and {list(x.shape)}"
        )
    repeats = query.shape[-3] // x.shape[-3]
    *batch, heads, s, e = x.shape
    return x.unsqueeze(-3).expand(*batch, heads, repeats, s, e).reshape(*batch, heads * repeats, s, e)


# ---- With several heads ----


def multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    in_proj_weight: Tensor | tuple[Tensor, Tensor, Tensor],
    in_proj_bias: Tensor | None,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    *,
    bias_k: Tensor | None = None,
    bias_v: Tensor | None = None,
    add_zero_attn: bool = False,
    dropout_p: float = 0.0,
    mask: Tensor | None = None,
    need_weights: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Attention of `num_heads` heads, each on its part of the projected features: what nn.MultiheadAttention does.

    Args:
        query, key, value: (N, L, E), (N, S, its own), (N, S, its own).
        in_proj_weight: (3E, E), or those of query, key and value.
        bias_k, bias_v: (1, 1, E), a key and a value besides those of the input.
        add_zero_attn: whether there is a key and a value of zeros besides.
        mask: floats, added to the scores (N, heads or 1, L, S).
        need_weights: whether to give the attention's weights too.

    Returns:
        (N, L, E), and the weights of each head (N, heads, L, S) or None.
    """
    n, length, dim = query.shape
    q, k, v = _in_projection(query, key, value, in_proj_weight, in_proj_bias)
    extra = 0
    if bias_k is not None and bias_v is not None:
        k = cat([k, bias_k.expand(n, 1, dim)], 1)
        v = cat([v, bias_v.expand(n, 1, dim)], 1)
        extra += 1
    if add_zero_attn:
        zeros = Tensor(np.zeros((n, 1, dim), k.dtype))
        k, v = cat([k, zeros], 1), cat([v, zeros], 1)
        extra += 1
    if mask is not None and extra:
        mask = cat([mask, Tensor(np.zeros((*mask.shape[:-1], extra), mask.dtype))], -1)
    q, k, v = (x.reshape(n, x.shape[1], num_heads, dim // num_heads).transpose(1, 2) for x in (q, k, v))
    scale = math.sqrt(1 / (dim // num_heads))
    weights = None
    if need_weights:  # here a row that the mask hides is not a number, as in PyTorch
        scores = (q * scale) @ k.mT  # (N, heads, L, S)
        weights = dropout((scores if mask is None else scores + mask.to(scores.dtype)).softmax(-1), dropout_p)
        y = weights @ v
    else:
        y = attended(q, k, v, mask, scale, dropout_p)
    return linear(y.transpose(1, 2).reshape(n, length, dim), out_proj_weight, out_proj_bias), weights


def _in_projection(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weight: Tensor | tuple[Tensor, Tensor, Tensor],
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    dim = query.shape[-1]
    if query is key and key is value and isinstance(weight, Tensor):  # one product
        qkv = linear(query, weight, bias)
        return qkv[..., :dim], qkv[..., dim : 2 * dim], qkv[..., 2 * dim :]
    parts = [slice(i * dim, (i + 1) * dim) for i in range(3)]
    weights = weight if isinstance(weight, tuple) else tuple(weight[part] for part in parts)
    biases = (None, None, None) if bias is None else tuple(bias[part] for part in parts)
    q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
    return q, k, v


def additive(mask: Tensor, name: str, dtype: np.dtype[np.generic]) -> Tensor:
    """A mask of bools, true where a query may not look, as floats to add to the scores.

    Raises:
        DTypeError: neither bools nor floats.
    """
    if mask.dtype == bool_:
        return Tensor(np.where(mask.data, -np.inf, 0.0).astype(dtype))
    if not is_floating(mask.dtype):
        raise DTypeError(f"only bool and floating types of {name} are supported, got {type_name(mask.dtype)}")
    return mask.to(dtype)


def merged_mask(
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
    sizes: tuple[int, int, int, int],
    dtype: np.dtype[np.generic],
) -> Tensor | None:
    """Both masks of nn.MultiheadAttention as one to add to the scores.

    Args:
        attn_mask: (L, S), or (N·heads, L, S).
        key_padding_mask: (N, S).
        sizes: N, heads, L, S.

    Raises:
        ShapeError: a mask of another shape.
    """
    n, heads, length, keys = sizes
    merged = None
    if attn_mask is not None:
        if attn_mask.ndim not in (2, 3):
            raise ShapeError(f"attn_mask's dimension {attn_mask.ndim} is not supported")
        wanted = (length, keys) if attn_mask.ndim == 2 else (n * heads, length, keys)
        if attn_mask.shape != wanted:
            raise ShapeError(
                f"The shape of the {attn_mask.ndim}D attn_mask is {attn_mask.shape}, but should be {wanted}."
            )
        merged = additive(attn_mask, "attn_mask", dtype)
        merged = merged.reshape(1, 1, length, keys) if attn_mask.ndim == 2 else merged.reshape(n, heads, length, keys)
    if key_padding_mask is not None:
        if key_padding_mask.shape != (n, keys):
            raise ShapeError(f"expecting key_padding_mask shape of {(n, keys)}, but got {key_padding_mask.shape}")
        padding = additive(key_padding_mask, "key_padding_mask", dtype).reshape(n, 1, 1, keys)
        merged = padding if merged is None else merged + padding
    return merged


def check_heads(embed_dim: int, num_heads: int) -> None:
    """Raises ConfigError unless the features divide among the heads."""
    if embed_dim <= 0 or num_heads <= 0:
        raise ConfigError(
            "embed_dim",
            embed_dim,
            f"embed_dim and num_heads must be greater than 0, got embed_dim={embed_dim} and num_heads={num_heads} "
            "instead",
        )
    if embed_dim % num_heads:
        raise ConfigError("num_heads", num_heads, f"embed_dim must be divisible by num_heads, and is {embed_dim}")
