"""Transformers: layers of attention and perceptron, and stacks of them.

Source: Vaswani et al., https://arxiv.org/abs/1706.03762; `norm_first`: Xiong et al., https://arxiv.org/abs/2002.04745
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from chainrule.engine.errors import ConfigError
from chainrule.engine.nn import functional as F
from chainrule.engine.nn.containers import ModuleList
from chainrule.engine.nn.layers.attention import MultiheadAttention
from chainrule.engine.nn.layers.dropout import Dropout
from chainrule.engine.nn.layers.linear import Linear
from chainrule.engine.nn.layers.normalization import LayerNorm
from chainrule.engine.nn.module import Module
from chainrule.engine.tensor import Tensor

Activation = Callable[[Tensor], Tensor]


class TransformerEncoderLayer(Module):
    """Self-attention, then a perceptron, each added to its input and normalised.

        x ← norm1(x + attention(x));  x ← norm2(x + linear2(activation(linear1(x))))

    and with `norm_first` x ← x + attention(norm1(x)); x ← x + linear2(activation(linear1(norm2(x)))).

    Args:
        d_model: features of x.
        nhead: heads of the attention.
        dim_feedforward: width of the perceptron.
        dropout: the share dropped while training, of the attention and after each part.
        activation: "relu", "gelu", or a function of a tensor.
        layer_norm_eps: of the normalisations.
        batch_first: whether x is (N, S, E) rather than (S, N, E).
        norm_first: whether normalisation comes before rather than after.
        bias: whether linear layers and normalisations have one.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: object = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout, bias=bias, batch_first=batch_first, **kind)
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, **kind)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, **kind)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **kind)
        self.norm2 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **kind)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = _activation(activation)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """The sequence after the layer; masks as for `MultiheadAttention`."""
        x = src
        masks = (src_mask, src_key_padding_mask, is_causal)
        if self.norm_first:
            x = x + self._sa_block(self.norm1(x), *masks)
            return x + self._ff_block(self.norm2(x))
        x = self.norm1(x + self._sa_block(x, *masks))
        y: Tensor = self.norm2(x + self._ff_block(x))
        return y

    def _sa_block(self, x: Tensor, mask: Tensor | None, padding: Tensor | None, is_causal: bool) -> Tensor:
        y: Tensor = self.dropout1(_attend(self.self_attn, x, x, mask, padding, is_causal))
        return y

    def _ff_block(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))
        return y


class TransformerDecoderLayer(Module):
    """Self-attention, attention to the encoder's output, then a perceptron; arguments as `TransformerEncoderLayer`."""

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: object = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        kind: dict[str, Any] = {"device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout, bias=bias, batch_first=batch_first, **kind)
        self.multihead_attn = MultiheadAttention(
            d_model, nhead, dropout=dropout, bias=bias, batch_first=batch_first, **kind
        )
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, **kind)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, **kind)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **kind)
        self.norm2 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **kind)
        self.norm3 = LayerNorm(d_model, eps=layer_norm_eps, bias=bias, **kind)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = _activation(activation)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """The sequence `tgt` after the layer, which looks at `memory`; masks as for `MultiheadAttention`."""
        x: Tensor = tgt
        own = (tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        other = (memory_mask, memory_key_padding_mask, memory_is_causal)
        if self.norm_first:
            normed = self.norm1(x)
            x = x + self.dropout1(_attend(self.self_attn, normed, normed, *own))
            x = x + self.dropout2(_attend(self.multihead_attn, self.norm2(x), memory, *other))
            x = x + self._ff_block(self.norm3(x))
        else:
            x = self.norm1(x + self.dropout1(_attend(self.self_attn, x, x, *own)))
            x = self.norm2(x + self.dropout2(_attend(self.multihead_attn, x, memory, *other)))
            y: Tensor = self.norm3(x + self._ff_block(x))
            x = y
        return x

    def _ff_block(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout3(self.linear2(self.dropout(self.activation(self.linear1(x)))))
        return y


class TransformerEncoder(Module):
    """`num_layers` copies of an encoder layer, one after another, then `norm` if given.

    The copies begin with equal parameters. `enable_nested_tensor` and `mask_check` change nothing: there are no nested
    tensors here.
    """

    def __init__(
        self,
        encoder_layer: TransformerEncoderLayer,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(encoder_layer) for _ in range(num_layers)])
        self.num_layers = num_layers
        self.norm = norm
        self.enable_nested_tensor = enable_nested_tensor
        self.mask_check = mask_check

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """The sequence after the layers; masks as for `MultiheadAttention`. `is_causal` is found out if None."""
        x = src
        for layer in self.layers:
            x = layer(x, mask, src_key_padding_mask, bool(is_causal))
        return x if self.norm is None else self.norm(x)


class TransformerDecoder(Module):
    """`num_layers` copies of a decoder layer, one after another, then `norm` if given."""

    def __init__(self, decoder_layer: TransformerDecoderLayer, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(decoder_layer) for _ in range(num_layers)])
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """The sequence `tgt` after the layers; arguments as for `TransformerDecoderLayer`."""
        x = tgt
        for layer in self.layers:
            x = layer(
                x,
                memory,
                tgt_mask,
                memory_mask,
                tgt_key_padding_mask,
                memory_key_padding_mask,
                bool(tgt_is_causal),
                memory_is_causal,
            )
        return x if self.norm is None else self.norm(x)


def generate_square_subsequent_mask(size: int) -> Tensor:
    """The causal mask (size, size) of floats: −∞ above the diagonal, 0 elsewhere."""
    return Tensor(np.triu(np.full((size, size), -np.inf, np.float32), 1))


def _attend(
    attention: MultiheadAttention,
    x: Tensor,
    memory: Tensor,
    mask: Tensor | None,
    padding: Tensor | None,
    is_causal: bool,
) -> Tensor:
    found: Tensor = attention(
        x,
        memory,
        memory,
        key_padding_mask=padding,
        need_weights=False,
        attn_mask=mask,
        is_causal=is_causal,
    )[0]
    return found


def _activation(activation: str | Activation) -> Activation:
    if not isinstance(activation, str):
        return activation
    if activation not in ("relu", "gelu"):
        raise ConfigError("activation", activation, f"activation should be relu/gelu, not {activation}")
    return F.relu if activation == "relu" else F.gelu
