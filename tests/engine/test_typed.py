"""Constructors by the name of a dtype, as PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest

import chainrule.engine as cr
from chainrule.engine import typed


@pytest.mark.torch
@pytest.mark.parametrize("name", typed.__all__)
def test_a_sequence_gets_the_dtype_and_integers_are_a_shape(torch: Any, name: str) -> None:
    ours, theirs = getattr(cr, name), getattr(torch, name)
    assert ours([0, 1]).tolist() == theirs([0, 1]).tolist()
    for arguments in ([[0, 1], [2, 3]],), (2, 3), (4,), ():
        x, y = ours(*arguments), theirs(*arguments)
        assert (x.type(), x.shape) == (y.type(), tuple(y.shape))


def test_lengths_and_sequences_do_not_mix() -> None:
    with pytest.raises(cr.DTypeError, match=r"LongTensor\(\) takes one sequence of numbers, or integers"):
        cr.LongTensor(2, [3])
