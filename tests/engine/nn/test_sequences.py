"""Sequences of different lengths are padded to PyTorch's tensors, and come back."""

from __future__ import annotations

from typing import Any

import pytest

import chainrule.engine as cr
from chainrule.engine.nn.utils.rnn import pad_sequence, unpad_sequence


def _sequences(m: Any) -> list[Any]:
    return [m.ones(2, 3), m.ones(4, 3) * 2, m.ones(1, 3) * 3]


@pytest.mark.torch
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_pytorchs(torch: Any, batch_first: bool, side: str) -> None:
    mine = pad_sequence(_sequences(cr), batch_first, -1.5, side)
    theirs = torch.nn.utils.rnn.pad_sequence(_sequences(torch), batch_first, -1.5, side)
    assert tuple(mine.shape) == tuple(theirs.shape)
    assert mine.tolist() == theirs.tolist()


def test_padding_can_be_taken_off_and_integers_stay_integers() -> None:
    sequences = [cr.arange(3), cr.arange(1), cr.arange(2)]
    for batch_first in (False, True):
        padded = pad_sequence(sequences, batch_first)
        assert padded.dtype == cr.int64
        back = unpad_sequence(padded, cr.tensor([3, 1, 2]), batch_first)
        assert [sequence.tolist() for sequence in back] == [[0, 1, 2], [0], [0, 1]]


def test_gradients_reach_what_was_padded() -> None:
    short, long = cr.ones(1, requires_grad=True), cr.ones(3, requires_grad=True)
    (pad_sequence([short, long]) * 2).sum().backward()
    assert short.grad is not None
    assert long.grad is not None
    assert (short.grad.tolist(), long.grad.tolist()) == ([2.0], [2.0, 2.0, 2.0])


def test_what_cannot_be_padded_is_refused() -> None:
    with pytest.raises(cr.ShapeError, match=r"may differ in length only; got \[\(2, 3\), \(2, 4\)\]"):
        pad_sequence([cr.ones(2, 3), cr.ones(2, 4)])
    with pytest.raises(cr.ShapeError, match="received an empty list of sequences"):
        pad_sequence([])
    with pytest.raises(cr.ConfigError, match="padding_side='top': choose left or right"):
        pad_sequence([cr.ones(1)], padding_side="top")
    with pytest.raises(cr.DTypeError, match="of Tensors"):
        pad_sequence([[1.0], [2.0]])  # type: ignore[list-item]
