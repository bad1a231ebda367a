"""Sequences of different lengths as one tensor, and back."""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.engine.creation import full
from chainrule.engine.errors import ConfigError, DTypeError, ShapeError
from chainrule.engine.functions.joining import cat, stack
from chainrule.engine.tensor import Tensor


def pad_sequence(
    sequences: Tensor | Sequence[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Sequences (Lᵢ, ...), made as long as the longest and stacked: (T, B, ...), or (B, T, ...) with `batch_first`.

    Args:
        padding_value: what fills the places that a sequence does not reach.
        padding_side: `right`: after it; `left`: before it.

    Raises:
        ShapeError: the sequences differ in more than their length, or there are none.
        ConfigError: another side.
    """
    if padding_side not in ("left", "right"):
        raise ConfigError("padding_side", padding_side, "choose left or right")
    listed = list(sequences)
    if not listed:
        raise ShapeError("pad_sequence(): received an empty list of sequences")
    if not all(isinstance(sequence, Tensor) for sequence in listed):
        raise DTypeError("pad_sequence: Expected iterable for input sequences, of Tensors")
    if len({tuple(sequence.shape[1:]) for sequence in listed}) > 1:
        raise ShapeError(f"pad_sequence: sequences may differ in length only; got {[tuple(s.shape) for s in listed]}")
    longest = max(len(sequence) for sequence in listed)
    padded = [_padded(sequence, longest, padding_value, padding_side) for sequence in listed]
    return stack(padded, 0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False
) -> list[Tensor]:
    """The sequences that `pad_sequence` made into `padded_sequences`, given their lengths; padding on the right."""
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    counts: list[int] = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    return [row[:count] for row, count in zip(rows, counts, strict=True)]


def _padded(sequence: Tensor, length: int, value: float, side: str) -> Tensor:
    missing = length - len(sequence)
    if not missing:
        return sequence
    filler = full((missing, *sequence.shape[1:]), value, dtype=sequence.dtype)
    return cat([sequence, filler] if side == "right" else [filler, sequence])
