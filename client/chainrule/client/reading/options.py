"""How a source is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chainrule.client.reading.tokenizers import ByteTokenizer, Tokenizer


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How a source is read. What does not concern its kind is not looked at."""

    target: str | None = None
    """Column of a table that is the target; None: the one that is called target, targets, label or y."""
    columns: Sequence[str] | None = None
    """Columns of a table that are the inputs, in this order; None: all that are nothing else."""
    further: Mapping[str, Any] = field(default_factory=dict)
    """Columns of the dataset besides inputs and targets: of each an array or, of a table, the name of its column, or
    several that are put side by side."""
    tokens: bool = False
    """Whether inputs are tokens, whole numbers from 0; else they are sent as float32."""
    regression: bool = False
    """Whether targets are numbers to predict, sent as float32, instead of class labels."""
    pictures: bool = False
    """Whether columns of dtype uint8, but the targets, are sent as they are, and divided by 255 on the workers;
    else inputs become float32 with the same values. Pictures of folders always are."""
    size: int | tuple[int, int] | None = None
    """Height and width that pictures are scaled to; a number is both. None: all must have one size."""
    gray: bool = False
    """Whether pictures are read with one channel instead of three."""
    text: str = "text"
    """Field of a line of JSON that holds the text."""
    length: int = 128
    """Tokens of an example that is made from text."""
    tokenizer: Tokenizer = field(default_factory=ByteTokenizer)
    """What makes tokens of text."""
    limit_bytes: int | None = None
    """Most bytes that a compressed file may unfold to; None: 100 times its size, but at least 256 MiB."""
