"""A small GPT: a decoder of pre-normalised transformer blocks that predicts the next token.

Source: Radford et al., Language models are unsupervised multitask learners (GPT-2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from chainrule.engine import nn
from chainrule.engine.errors import ConfigError, ShapeError
from chainrule.engine.models.registry import build, register, require_within
from chainrule.engine.nn import functional as F
from chainrule.engine.random import Generator
from chainrule.engine.tensor import Tensor

MAX_VOCAB_SIZE = 1_000_000
MAX_CONTEXT = 8192
MAX_DIM = 16_384
MAX_LAYERS = 128


@dataclass(frozen=True, slots=True)
class GPTConfig:
    """The settings of a GPT."""

    vocab_size: int = 256
    """Tokens there are; 256 for bytes."""
    context: int = 128
    """The longest sequence of tokens."""
    dim: int = 128
    """Features of a token; a multiple of `heads`."""
    heads: int = 4
    """Heads of each attention."""
    layers: int = 4
    """Blocks of attention and perceptron."""
    dropout: float = 0.0
    """The share of features, and of attention, that is dropped while training."""
    tie_weights: bool = True
    """Whether the embedding of the tokens is also the weight of the classifier."""

    def __post_init__(self) -> None:
        require_within("vocab_size", self.vocab_size, 1, MAX_VOCAB_SIZE)
        require_within("context", self.context, 1, MAX_CONTEXT)
        require_within("dim", self.dim, 1, MAX_DIM)
        require_within("heads", self.heads, 1, self.dim)
        require_within("layers", self.layers, 1, MAX_LAYERS)
        require_within("dropout", self.dropout, 0, 1)
        if self.dim % self.heads:
            raise ConfigError("heads", self.heads, f"must divide dim, which is {self.dim}")

    @property
    def num_parameters(self) -> int:
        """The embeddings, layers · (12·dim² + 13·dim), the last normalisation, and the classifier unless it is tied."""
        embeddings = (self.vocab_size + self.context) * self.dim
        blocks = self.layers * (12 * self.dim**2 + 13 * self.dim)
        return embeddings + blocks + 2 * self.dim + (0 if self.tie_weights else self.vocab_size * self.dim)


class CausalSelfAttention(nn.Module):
    """Each token's features attend to those of itself and of the tokens before: (N, T, dim) to (N, T, dim)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, t, dim = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)  # (3, N, heads, T, d)
        y = F.scaled_dot_product_attention(
            qkv[0], qkv[1], qkv[2], dropout_p=self.dropout if self.training else 0.0, is_causal=True
        )
        mixed: Tensor = self.drop(self.proj(y.transpose(1, 2).reshape(n, t, dim)))
        return mixed


class Block(nn.Module):
    """x ← x + attention(norm x), then x ← x + perceptron(norm x)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.dim)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.dim)
        self.fc = nn.Linear(config.dim, 4 * config.dim)
        self.gelu = nn.GELU()
        self.proj = nn.Linear(4 * config.dim, config.dim)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        y: Tensor = x + self.drop(self.proj(self.gelu(self.fc(self.ln_2(x)))))
        return y


class GPT(nn.Module):
    """Tokens (N, T), integers below vocab_size, to logits (N, T, vocab_size) of the token after each.

    Raises:
        ShapeError: calling it with something else than (N, T), or with T above the context.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.context = config.context
        self.token_embedding = nn.Embedding(config.vocab_size, config.dim)
        self.position_embedding = nn.Embedding(config.context, config.dim)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.ln_f = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.vocab_size, bias=False)
        if config.tie_weights:
            self.head.weight = self.token_embedding.weight
        self._initialise(config.layers)

    def _initialise(self, layers: int) -> None:
        """Weights from N(0, 0.02²), those that write to the residual stream from N(0, 0.02² / 2·layers); biases 0."""
        drawn: set[int] = set()
        for name, module in self.named_modules():
            if not isinstance(module, nn.Linear | nn.Embedding) or id(module.weight) in drawn:
                continue
            drawn.add(id(module.weight))
            nn.init.normal_(module.weight, 0.0, 0.02 / math.sqrt(2 * layers) if name.endswith("proj") else 0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.ndim != 2 or tokens.shape[1] > self.context:
            raise ShapeError(
                f"gpt takes tokens of shape (N, T) with T at most {self.context}, got {tuple(tokens.shape)}; "
                "cut the sequences, or build it with a larger context"
            )
        x = self.drop(self.token_embedding(tokens) + self.position_embedding(Tensor(np.arange(tokens.shape[1]))))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.ln_f(x))
        return logits


register("gpt", "A decoder of transformer blocks that predicts the next token", GPTConfig, GPT)


def gpt(
    vocab_size: int = 256,
    context: int = 128,
    dim: int = 128,
    heads: int = 4,
    layers: int = 4,
    dropout: float = 0.0,
    *,
    tie_weights: bool = True,
    generator: Generator | None = None,
) -> GPT:
    """A small GPT; see `GPTConfig`."""
    config: dict[str, object] = {
        "vocab_size": vocab_size,
        "context": context,
        "dim": dim,
        "heads": heads,
        "layers": layers,
        "dropout": dropout,
        "tie_weights": tie_weights,
    }
    return cast(GPT, build("gpt", config, generator=generator))
