"""Attention with learnt projections."""

from __future__ import annotations

from collections.abc import Callable

import numpy.typing as npt

from chainrule.engine.creation import empty
from chainrule.engine.errors import ShapeError
from chainrule.engine.nn import init
from chainrule.engine.nn.functional import attention as F
from chainrule.engine.nn.layers.factory import parameter_dtype
from chainrule.engine.nn.layers.linear import Linear
from chainrule.engine.nn.module import Module
from chainrule.engine.nn.parameter import Parameter
from chainrule.engine.tensor import Tensor


class OperandError(ShapeError, AssertionError):
    """Shapes that PyTorch's attention refuses by an assertion."""


class NonDynamicallyQuantizableLinear(Linear):
    """A Linear under the name that PyTorch gives to the last layer of an attention."""


class MultiheadAttention(Module):
    """Attention of several heads: each projects query, key and value to embed_dim / num_heads features.

        y = [softmax(qᵢ·kᵢᵀ / √d) · vᵢ for each head i] · Wᵒᵀ + bᵒ

    Source: Vaswani et al., Attention is all you need, https://arxiv.org/abs/1706.03762

    Args:
        embed_dim: features of queries and of the output.
        num_heads: divides embed_dim.
        dropout: the share of the attention that is dropped while training.
        bias: whether the projections have one.
        add_bias_kv: whether a key and a value are learnt besides.
        add_zero_attn: whether there is a key and a value of zeros besides.
        kdim, vdim: features of keys and values; None: embed_dim.
        batch_first: whether inputs are (N, L, E) rather than (L, N, E).

    Raises:
        ConfigError: embed_dim is not divisible by num_heads.
    """

    in_proj_weight: Parameter | None  # (3·E, E), where keys and values have E features
    q_proj_weight: Parameter | None  # (E, E), (E, kdim), (E, vdim) otherwise
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None  # (3·E)
    bias_k: Parameter | None  # (1, 1, E)
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: object = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        dtype = parameter_dtype(device, dtype)
        F.check_heads(embed_dim, num_heads)
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        self.add_zero_attn = add_zero_attn
        packed = self.kdim == self.vdim == embed_dim
        for name, inputs in (("q", embed_dim), ("k", self.kdim), ("v", self.vdim)):
            self.register_parameter(
                f"{name}_proj_weight", None if packed else Parameter(empty(embed_dim, inputs, dtype=dtype))
            )
        self.register_parameter(
            "in_proj_weight", Parameter(empty(3 * embed_dim, embed_dim, dtype=dtype)) if packed else None
        )
        self.register_parameter("in_proj_bias", Parameter(empty(3 * embed_dim, dtype=dtype)) if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias=bias, dtype=dtype)
        for name in ("bias_k", "bias_v"):
            self.register_parameter(name, Parameter(empty(1, 1, embed_dim, dtype=dtype)) if add_bias_kv else None)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Draws the weights as Glorot and Bengio do, and sets the biases of projections to 0."""
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None and self.out_proj.bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """What the queries find.

        Args:
            query, key, value: (L, N, E), (S, N, kdim), (S, N, vdim), or without N; see `batch_first`.
            key_padding_mask: (N, S) or (S): true for keys to ignore, or floats to add to their scores.
            need_weights: whether to give the weights too, which takes more memory.
            attn_mask: (L, S) or (N·num_heads, L, S): true where a query may not look, or floats to add.
            average_attn_weights: the mean of the heads' weights, rather than each.
            is_causal: says that `attn_mask` is causal; it has to be given.

        Returns:
            The output, shaped as the query, and the weights (N, L, S) or (N, num_heads, L, S), or None.

        Raises:
            ShapeError: shapes do not fit, or `is_causal` without a mask.
        """
        if is_causal and attn_mask is None:
            raise ShapeError(
                "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
                "`generate_square_subsequent_mask` to create this mask."
            )
        batched = self._check(query, key, value, key_padding_mask)
        if not batched:
            query, key, value = _each(lambda x: x.unsqueeze(0), query, key, value)
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = _each(lambda x: x.transpose(0, 1), query, key, value)
        n, length, keys = *query.shape[:2], key.shape[1]
        mask = F.merged_mask(attn_mask, key_padding_mask, (n, self.num_heads, length, keys), query.dtype)
        y, weights = F.multi_head_attention(
            query,
            key,
            value,
            self.num_heads,
            self._weights(),
            self.in_proj_bias,
            self.out_proj.weight,
            self.out_proj.bias,
            bias_k=self.bias_k,
            bias_v=self.bias_v,
            add_zero_attn=self.add_zero_attn,
            dropout_p=self.dropout if self.training else 0.0,
            mask=mask,
            need_weights=need_weights,
        )
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return y.squeeze(0), None if weights is None else weights.squeeze(0)
        return y if self.batch_first else y.transpose(0, 1), weights

    def _weights(self) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        if self.in_proj_weight is not None:
            return self.in_proj_weight
        assert self.q_proj_weight is not None
        assert self.k_proj_weight is not None
        assert self.v_proj_weight is not None
        return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight

    def _check(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None) -> bool:
        """Whether there is a batch.

        Raises:
            ShapeError: shapes do not fit.
        """
        if query.ndim not in (2, 3):
            raise OperandError(
                f"query should be unbatched 2D or batched 3D tensor but received {query.ndim}-D query tensor"
            )
        batched = query.ndim == 3
        kind = "batched (3-D)" if batched else "unbatched (2-D)"
        if key.ndim != query.ndim or value.ndim != query.ndim:
            raise OperandError(
                f"For {kind} `query`, expected `key` and `value` to be {query.ndim}-D but found {key.ndim}-D and "
                f"{value.ndim}-D tensors respectively"
            )
        if key_padding_mask is not None and key_padding_mask.ndim != query.ndim - 1:
            raise OperandError(
                f"For {kind} `query`, expected `key_padding_mask` to be `None` or {query.ndim - 1}-D but found "
                f"{key_padding_mask.ndim}-D tensor instead"
            )
        if query.shape[-1] != self.embed_dim:
            raise OperandError(f"was expecting embedding dimension of {self.embed_dim}, but got {query.shape[-1]}")
        if key.shape[-1] != self.kdim or value.shape[-1] != self.vdim or key.shape[:-1] != value.shape[:-1]:
            raise ShapeError(
                f"expected keys of {self.kdim} and values of {self.vdim} features, of one number and batch, got shapes "
                f"{list(key.shape)} and {list(value.shape)}"
            )
        batch = 0 if self.batch_first else 1
        if batched and query.shape[batch] != key.shape[batch]:
            raise ShapeError(
                f"expected one batch size, got {query.shape[batch]} queries and {key.shape[batch]} keys; "
                f"batch_first is {self.batch_first}"
            )
        return batched


def _each(
    change: Callable[[Tensor], Tensor], query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value changed; one tensor stays one."""
    made: dict[int, Tensor] = {}
    for x in (query, key, value):
        if id(x) not in made:
            made[id(x)] = change(x)
    return made[id(query)], made[id(key)], made[id(value)]
