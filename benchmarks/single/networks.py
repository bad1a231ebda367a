"""The networks that are measured, built of the `nn` that is passed in: the same lines for both engines."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any


def mlp(nn: Any, widths: tuple[int, ...]) -> Any:
    """Linear layers with ReLU between them."""
    layers: list[Any] = []
    for narrow, wide in itertools.pairwise(widths):
        layers += [nn.Linear(narrow, wide), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


# ---- ResNet-18 ----


def resnet18(nn: Any, classes: int) -> Any:
    """torchvision's ResNet-18, with its names: `chainrule.engine.models.resnet18` is written alike.

    Source: He et al., Deep residual learning for image recognition, https://arxiv.org/abs/1512.03385
    """
    parts = OrderedDict(
        conv1=nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        bn1=nn.BatchNorm2d(64),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, 2, 1),
    )
    inplanes = 64
    for number, planes in enumerate((64, 128, 256, 512), start=1):
        first = _basic_block(nn, inplanes, planes, 1 if number == 1 else 2)
        parts[f"layer{number}"] = nn.Sequential(first, _basic_block(nn, planes, planes, 1))
        inplanes = planes
    parts["avgpool"], parts["flatten"] = nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()
    parts["fc"] = nn.Linear(inplanes, classes)
    return nn.Sequential(parts)


def _basic_block(nn: Any, inplanes: int, planes: int, stride: int) -> Any:
    class BasicBlock(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(planes)
            self.relu = nn.ReLU(inplace=True)
            self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            self.downsample = None
            if stride != 1 or inplanes != planes:
                shortcut = nn.Conv2d(inplanes, planes, 1, stride, bias=False)
                self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(planes))

        def forward(self, x: Any) -> Any:
            identity = x if self.downsample is None else self.downsample(x)
            out = self.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(out))
            out += identity
            return self.relu(out)

    return BasicBlock()


# ---- GPT ----


def gpt(nn: Any, shape: tuple[int, ...]) -> Any:
    """A decoder of pre-normalised blocks: tokens (N, T) to logits (N·T, vocabulary). `shape` is as `Work.shape` says.

    Source: Radford et al., Language models are unsupervised multitask learners (GPT-2).
    """
    vocabulary, context, dim, heads, layers = shape

    class GPT(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(vocabulary, dim)
            self.positions = nn.Embedding(context, dim)
            self.blocks = nn.Sequential(*(_gpt_block(nn, dim, heads) for _ in range(layers)))
            self.norm = nn.LayerNorm(dim)
            self.head = nn.Linear(dim, vocabulary, bias=False)

        def forward(self, tokens: Any) -> Any:
            x = self.tokens(tokens) + self.positions.weight  # all positions are taken, in order
            return self.head(self.norm(self.blocks(x))).flatten(0, 1)

    return GPT()


def _gpt_block(nn: Any, dim: int, heads: int) -> Any:
    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm1 = nn.LayerNorm(dim)
            self.qkv = nn.Linear(dim, 3 * dim)
            self.proj = nn.Linear(dim, dim)
            self.norm2 = nn.LayerNorm(dim)
            self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

        def forward(self, x: Any) -> Any:
            x = x + self.attend(self.norm1(x))
            return x + self.mlp(self.norm2(x))

        def attend(self, x: Any) -> Any:
            n, t, _ = x.shape
            q, k, v = self.qkv(x).reshape(n, t, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)  # (N, heads, T, d)
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.proj(y.transpose(1, 2).reshape(n, t, dim))

    return Block()
