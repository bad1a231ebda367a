"""What a tensor is, as PyTorch says it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import chainrule.engine as cr

QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "a tensor": lambda m: m.is_tensor(m.ones(1)),
    "a number": lambda m: m.is_tensor(1.0),
    "a parameter": lambda m: m.is_tensor(m.nn.Parameter(m.ones(1))),
    "floats": lambda m: m.is_floating_point(m.ones(1)),
    "bfloat16": lambda m: m.ones(1, dtype=m.bfloat16).is_floating_point(),
    "complex numbers": lambda m: (m.is_complex(m.ones(1)), m.ones(1).is_complex()),
    "integers": lambda m: m.is_floating_point(m.tensor([1])),
    "elements": lambda m: (m.numel(m.ones(2, 3)), m.ones(2, 3).numel(), m.ones(()).nelement(), m.numel(m.ones(0, 3))),
    "dimensions": lambda m: (m.ones(2, 3).ndimension(), m.ones(()).ndimension()),
    "a dtype": lambda m: (isinstance(m.float32, m.dtype), isinstance(1, m.dtype)),
    "a shape": lambda m: (isinstance(m.ones(2).shape, m.Size), m.Size([2, 3]) == (2, 3)),
    "constants": lambda m: (m.pi, m.e, m.inf, m.nan != m.nan, m.newaxis),
}


@pytest.mark.torch
@pytest.mark.parametrize("question", QUESTIONS)
def test_answers_are_pytorchs(torch: Any, question: str) -> None:
    assert QUESTIONS[question](cr) == QUESTIONS[question](torch)


def test_an_array_is_no_tensor_and_the_error_says_how_to_get_one() -> None:
    x = cr.ones(2)
    functions: list[Callable[[Any], Any]] = [cr.numel, cr.exp, cr.sum]
    for function in functions:
        with pytest.raises(cr.DTypeError, match=r"must be Tensor, not ndarray; use x.detach\(\) rather than x.data"):
            function(x.data)
