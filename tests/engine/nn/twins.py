"""The same thing done with our library and with PyTorch, to compare what comes of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.nn import containers, parameter, parameter_containers

# Whatever nn exports, and what it is made of.
ours_nn = SimpleNamespace(**{**vars(parameter), **vars(containers), **vars(parameter_containers), **vars(nn)})
ours = SimpleNamespace(**{**vars(cr), "nn": ours_nn})


def worded(text: str) -> str:
    """A message of either library, without what may differ: where a class lives, and how a shape prints."""
    text = re.sub(r"torch\.Size\(\[([^\]]*)\]\)", lambda m: f"({m[1]},)" if m[1].isdigit() else f"({m[1]})", text)
    text = re.sub(r"<class '[\w.]*?(\w+)'>", r"<class '\1'>", text)
    text = re.sub(r"\b(torch\.nn\.|nn\.|torch\.)", "", text)
    return text.replace("FloatTensor", "Tensor").replace("torch ", "")


def both(torch: Any, scenario: Callable[[Any], Any]) -> tuple[Any, Any]:
    """What the scenario gives with each library, ours first."""
    return scenario(ours), scenario(torch)


def same_error(torch: Any, scenario: Callable[[Any], Any]) -> None:
    """The scenario is refused by both, by the same builtin error with the same words."""
    with pytest.raises(Exception) as theirs:
        scenario(torch)
    with pytest.raises(theirs.type) as caught:
        scenario(ours)
    assert isinstance(caught.value, cr.ChainruleError | IndexError | NotImplementedError)
    said = caught.value.message if isinstance(caught.value, cr.ConfigError) else str(caught.value)
    assert worded(said) == worded(str(theirs.value))
