"""Small networks of sequences, tokens and tables, written with torch.nn as a user would.

Only `zoo` imports this module, where PyTorch is installed.
"""
# mypy: allow-subclassing-any

from __future__ import annotations

import math
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")
nn: Any = torch.nn
F: Any = torch.nn.functional
Module: Any = nn.Module

# ---- Attention ----


class MlpMixer(Module):
    def __init__(self, patches: int = 16, dim: int = 8) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, dim, 4, 4)
        self.norm1, self.norm2, self.norm = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.tokens = nn.Sequential(nn.Linear(patches, 12), nn.GELU(), nn.Linear(12, patches))
        self.channels = nn.Sequential(nn.Linear(dim, 12), nn.GELU(), nn.Linear(12, dim))
        self.head = nn.Linear(dim, 5)

    def forward(self, x: Any) -> Any:
        y = self.embed(x).flatten(2).transpose(1, 2)
        y = y + self.tokens(self.norm1(y).transpose(1, 2)).transpose(1, 2)
        y = y + self.channels(self.norm2(y))
        return self.head(self.norm(y).mean(1))


def mlp_mixer() -> Any:
    return MlpMixer()


class ViTBlock(Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim)
        self.self_attention = nn.MultiheadAttention(dim, heads, dropout=0.0, batch_first=True)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Any) -> Any:
        y = self.ln_1(x)
        y, _ = self.self_attention(y, y, y, need_weights=False)
        y = x + y
        return y + self.mlp(self.ln_2(y))


class ViT(Module):
    """With a class token and learned positions."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, dim, 4, 4)
        self.class_token = nn.Parameter(torch.randn(1, 1, dim) * 0.1)
        self.pos_embedding = nn.Parameter(torch.randn(1, 17, dim) * 0.1)
        self.layers = nn.Sequential(ViTBlock(dim, 2), ViTBlock(dim, 2))
        self.ln = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 5)

    def forward(self, x: Any) -> Any:
        y = self.conv_proj(x).flatten(2).permute(0, 2, 1)
        y = torch.cat([self.class_token.expand(x.shape[0], -1, -1), y], 1) + self.pos_embedding
        return self.head(self.ln(self.layers(y))[:, 0])


def vit() -> Any:
    return ViT()


class CausalAttention(Module):
    def __init__(self, dim: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn, self.c_proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.register_buffer(
            "mask", torch.tril(torch.ones(context, context)).view(1, 1, context, context), persistent=False
        )

    def forward(self, x: Any) -> Any:
        n, t, d = x.shape
        q, k, v = (y.view(n, t, self.heads, d // self.heads).transpose(1, 2) for y in self.c_attn(x).split(d, dim=2))
        weights = (q @ k.transpose(-2, -1)) / math.sqrt(k.shape[-1])
        weights = weights.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf")).softmax(-1)
        return self.c_proj((weights @ v).transpose(1, 2).reshape(n, t, d))


class GPTBlock(Module):
    def __init__(self, dim: int, heads: int, context: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = CausalAttention(dim, heads, context)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(approximate="tanh"), nn.Linear(2 * dim, dim))

    def forward(self, x: Any) -> Any:
        y = x + self.attn(self.ln_1(x))
        return y + self.mlp(self.ln_2(y))


class GPT(Module):
    """With its head tied to the embedding of tokens."""

    def __init__(self, vocabulary: int = 11, dim: int = 8, context: int = 6, tied: bool = True) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, dim), nn.Embedding(context, dim)
        self.h = nn.Sequential(GPTBlock(dim, 2, context), GPTBlock(dim, 2, context))
        self.ln_f = nn.LayerNorm(dim)
        self.lm_head = nn.Linear(dim, vocabulary, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Any) -> Any:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.lm_head(self.ln_f(self.h(self.wte(tokens) + self.wpe(places))))


def gpt() -> Any:
    return GPT()


def gpt_untied() -> Any:
    return GPT(tied=False)


class FlashGPT(Module):
    """A decoder's layer with scaled_dot_product_attention, RMSNorm and a gated feed-forward: as in Llama."""

    def __init__(self, vocabulary: int = 11, dim: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.norm1, self.norm2 = nn.RMSNorm(dim, eps=1e-5), nn.RMSNorm(dim, eps=1e-5)
        self.q, self.k, self.v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.gate, self.up, self.down = nn.Linear(dim, 12), nn.Linear(dim, 12), nn.Linear(12, dim)
        self.head = nn.Linear(dim, vocabulary)

    def forward(self, tokens: Any) -> Any:
        x = self.embed(tokens)
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        y = self.norm2(x)
        return self.head(x + self.down(F.silu(self.gate(y)) * self.up(y)))


def llama() -> Any:
    return FlashGPT()


class Bert(Module):
    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(13, dim), nn.Embedding(6, dim)
        self.norm = nn.LayerNorm(dim)
        layer = nn.TransformerEncoderLayer(dim, 2, 16, dropout=0.0, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pooler = nn.Linear(dim, dim)
        self.classifier = nn.Linear(dim, 3)
        self.register_buffer("position_ids", torch.arange(6))

    def forward(self, tokens: Any) -> Any:
        y = self.encoder(self.norm(self.embed(tokens) + self.position(self.position_ids)))
        return self.classifier(torch.tanh(self.pooler(y[:, 0])))


def bert() -> Any:
    return Bert()


class Swin(Module):
    """Attention in windows of an image that is rolled by half a window."""

    def __init__(self, dim: int = 8, size: int = 8, window: int = 4) -> None:
        super().__init__()
        self.size, self.window, self.dim = size, window, dim
        self.embed = nn.Conv2d(3, dim, 2, 2)
        self.norm = nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.zeros(window * window, window * window))
        self.head = nn.Linear(dim, 5)

    def attend(self, x: Any) -> Any:
        s, w, d = self.size, self.window, self.dim
        y = torch.roll(self.norm(x), (-w // 2, -w // 2), (1, 2))
        y = y.view(-1, s // w, w, s // w, w, d).permute(0, 1, 3, 2, 4, 5).reshape(-1, w * w, d)
        q, k, v = self.qkv(y).chunk(3, -1)
        y = self.proj(torch.softmax(q @ k.transpose(1, 2) / d**0.5 + self.bias, -1) @ v)
        y = y.view(-1, s // w, s // w, w, w, d).permute(0, 1, 3, 2, 4, 5).reshape(-1, s, s, d)
        return x + torch.roll(y, (w // 2, w // 2), (1, 2))

    def forward(self, x: Any) -> Any:
        return self.head(self.attend(self.embed(x).permute(0, 2, 3, 1)).mean((1, 2)))


def swin() -> Any:
    return Swin()


class Translator(Module):
    """An encoder and a decoder: two inputs."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(11, dim), nn.Embedding(9, dim)
        self.transformer = nn.Transformer(dim, 2, 1, 1, 16, dropout=0.0, batch_first=True)
        self.register_buffer("mask", torch.triu(torch.full((4, 4), float("-inf")), 1))
        self.out = nn.Linear(dim, 9)

    def forward(self, source: Any, target: Any) -> Any:
        return self.out(
            self.transformer(self.source(source), self.target(target), tgt_mask=self.mask, tgt_is_causal=False)
        )


def translator() -> Any:
    return Translator()


# ---- Recurrence ----


class Recurrent(Module):
    def __init__(self, kind: Any, hidden: int = 6, tags: bool = True, **settings: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.rnn = kind(8, hidden, batch_first=True, **settings)
        self.tags = tags
        self.out = nn.Linear(hidden * (2 if settings.get("bidirectional") else 1), 4)

    def forward(self, tokens: Any) -> Any:
        y, _ = self.rnn(self.embed(tokens))
        return self.out(y if self.tags else y[:, -1])


def lstm_tagger() -> Any:
    return Recurrent(nn.LSTM)


def gru_classifier() -> Any:
    return Recurrent(nn.GRU, tags=False)


def bidirectional_lstm() -> Any:
    return Recurrent(nn.LSTM, bidirectional=True)


def stacked_gru() -> Any:
    return Recurrent(nn.GRU, num_layers=2, bidirectional=True)


def elman() -> Any:
    return Recurrent(nn.RNN, nonlinearity="relu")


class LastState(Module):
    """Of an LSTM over plain numbers, time first, without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 6, num_layers=2, bias=False)
        self.out = nn.Linear(6, 1)

    def forward(self, x: Any) -> Any:
        _, (h, _) = self.lstm(x.transpose(0, 1))
        return self.out(h[-1])


def lstm_forecast() -> Any:
    return LastState()


# ---- Convolutions over time ----


class WaveNet(Module):
    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.start = nn.Conv1d(2, channels, 1)
        self.filters = nn.ModuleList(nn.Conv1d(channels, channels, 2, dilation=d) for d in (1, 2, 4))
        self.gates = nn.ModuleList(nn.Conv1d(channels, channels, 2, dilation=d) for d in (1, 2, 4))
        self.skips = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in range(3))
        self.out = nn.Conv1d(channels, 3, 1)

    def forward(self, x: Any) -> Any:
        y = self.start(x)
        total: Any = 0
        for f, g, s, d in zip(self.filters, self.gates, self.skips, (1, 2, 4), strict=True):
            padded = F.pad(y, (d, 0))
            z = torch.tanh(f(padded)) * torch.sigmoid(g(padded))
            total = total + s(z)
            y = y + z
        return self.out(F.relu(total))


def wavenet() -> Any:
    return WaveNet()


class TemporalBlock(Module):
    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.padding = 2 * dilation
        self.conv1 = nn.Conv1d(inputs, outputs, 3, padding=self.padding, dilation=dilation)
        self.bn1 = nn.BatchNorm1d(outputs)
        self.drop = nn.Dropout(0.0)
        self.downsample = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Any) -> Any:
        y = self.conv1(x)[:, :, : -self.padding]
        return F.relu(self.drop(F.relu(self.bn1(y))) + self.downsample(x))


class TCN(Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(TemporalBlock(2, 6, 1), TemporalBlock(6, 6, 2), nn.MaxPool1d(2))
        self.linear = nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        return self.linear(self.net(x)[:, :, -1])


def tcn() -> Any:
    return TCN()


class TextCNN(Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8, padding_idx=0)
        self.convs = nn.ModuleList(nn.Conv1d(8, 4, k) for k in (2, 3))
        self.dropout = nn.Dropout(0.0)
        self.fc = nn.Linear(8, 4)

    def forward(self, tokens: Any) -> Any:
        x = self.embed(tokens).transpose(1, 2)
        pooled = [F.relu(conv(x)).amax(-1) for conv in self.convs]
        return self.fc(self.dropout(torch.cat(pooled, 1)))


def text_cnn() -> Any:
    return TextCNN()


# ---- Tables, pairs ----


class WideAndDeep(Module):
    """Two inputs: categories and numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(n, 3) for n in (7, 5))
        self.bn = nn.BatchNorm1d(4)
        self.deep = nn.Sequential(nn.Linear(10, 12), nn.BatchNorm1d(12), nn.SELU(), nn.Dropout(0.0), nn.Linear(12, 2))
        self.wide = nn.Linear(4, 2)

    def forward(self, categories: Any, numbers: Any) -> Any:
        columns = [embed(categories[:, i] % embed.num_embeddings) for i, embed in enumerate(self.embeddings)]
        numbers = self.bn(numbers)
        return self.deep(torch.cat([*columns, numbers], 1)) + self.wide(numbers)


def wide_and_deep() -> Any:
    return WideAndDeep()


class Siamese(Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, left: Any, right: Any) -> Any:
        return F.cosine_similarity(self.tower(left), self.tower(right))


def siamese() -> Any:
    return Siamese()


class Highway(Module):
    def __init__(self, dim: int = 6) -> None:
        super().__init__()
        self.plain = nn.ModuleList(nn.Linear(dim, dim) for _ in range(3))
        self.gates = nn.ModuleList(nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, 2)

    def forward(self, x: Any) -> Any:
        for plain, gate in zip(self.plain, self.gates, strict=True):
            t = torch.sigmoid(gate(x))
            x = t * F.relu(plain(x)) + (1 - t) * x
        return F.log_softmax(self.out(x), dim=1)


def highway() -> Any:
    return Highway()


def mlp() -> Any:
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Mish(), nn.Linear(8, 3), nn.Softmax(-1)]
    return nn.Sequential(*layers)


class Variational(Module):
    """An autoencoder that draws its code: in a graph, an operator that nothing keys."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 4), nn.Linear(2, 6)

    def forward(self, x: Any) -> Any:
        mean, deviation = self.encode(x).chunk(2, 1)
        return self.decode(mean + torch.randn_like(mean) * deviation.exp())


def variational() -> Any:
    return Variational()
