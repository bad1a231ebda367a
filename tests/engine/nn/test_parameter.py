"""Parameters and buffers share memory with what they are made of, and are kept by modules."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from tests.engine.nn.twins import both, ours


def test_a_parameter_is_a_leaf_in_the_memory_of_its_data() -> None:
    x = cr.ones(2, requires_grad=True)
    y = x * 2
    parameter = nn.Parameter(y)
    assert parameter.is_leaf
    assert parameter.requires_grad
    assert np.shares_memory(parameter.data, y.data)
    assert not nn.Parameter(y, requires_grad=False).requires_grad


@pytest.mark.torch
def test_parameters_print_as_pytorchs(torch: Any) -> None:
    for make in (lambda m: m.nn.Parameter(m.ones(2, 1)), lambda m: m.nn.Parameter()):
        mine, theirs = both(torch, make)
        assert repr(mine) == repr(theirs)


def test_the_data_of_a_parameter_can_be_a_tensors_from_then_on() -> None:
    parameter = nn.Parameter(cr.ones(2))
    x = cr.zeros(3)
    parameter.data = x  # type: ignore[assignment]
    assert parameter.data is x.data
    (parameter + 1).sum().backward()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [1, 1, 1]
    parameter.data = parameter.data - 1
    assert parameter.tolist() == [-1, -1, -1]
    with pytest.raises(cr.DTypeError, match=r"assigned a Tensor or an array, not list; convert it with tensor\(\)"):
        parameter.data = [1.0]  # type: ignore[assignment]


def test_what_cannot_be_learnt_is_refused() -> None:
    with pytest.raises(cr.AutogradError, match=r"(?i)only Tensors of floating point"):
        nn.Parameter(cr.tensor([1]))
    with pytest.raises(cr.DTypeError, match=r"Parameter\(\) takes a Tensor, not list; convert it with tensor\(\)"):
        nn.Parameter([1.0])  # type: ignore[arg-type]


def _with_buffers(m: Any) -> list[Any]:
    module = m.nn.Module()
    module.kept = m.nn.Buffer(m.ones(2))
    module.scratch = m.nn.Buffer(m.zeros(1), persistent=False)
    module.bare = m.nn.Buffer()
    seen: list[Any] = [list(module.state_dict()), [name for name, _ in module.named_buffers()], repr(module.kept)]
    module.scratch = m.ones(3)
    seen.append(list(module.state_dict()))
    module.scratch = m.nn.Buffer(m.ones(3))
    seen += [list(module.state_dict()), module.kept.requires_grad, isinstance(module.kept, m.nn.Buffer)]
    return seen


@pytest.mark.torch
def test_buffers_are_kept_as_by_pytorch(torch: Any) -> None:
    mine, theirs = both(torch, _with_buffers)
    assert mine == theirs


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copied_modules_keep_their_buffers(duplicate: Any) -> None:
    module = ours.nn.Module()
    module.scratch = ours.nn.Buffer(cr.ones(2), persistent=False)
    copied = duplicate(module)
    assert copied.scratch.tolist() == [1.0, 1.0]
    assert list(copied.state_dict()) == []
    assert not np.shares_memory(copied.scratch.data, module.scratch.data)
