"""Examples become batches as PyTorch's do."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.data import default_collate, default_convert

Point = namedtuple("Point", ["x", "y"])

BATCHES: list[Callable[[Any], list[Any]]] = [
    lambda tensor: [tensor([1.0, 2.0]), tensor([3.0, 4.0])],
    lambda tensor: [tensor(1), tensor(2)],
    lambda tensor: [np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)],
    lambda tensor: [np.float64(1.5), np.float64(2.5)],
    lambda tensor: [np.uint8(3), np.uint8(255)],
    lambda tensor: [np.array(True), np.array(False)],
    lambda tensor: [1, 2, 3],
    lambda tensor: [True, False],
    lambda tensor: [1.0, 2],
    lambda tensor: ["a", "b"],
    lambda tensor: [b"a", b"b"],
    lambda tensor: [(1, "a"), (2, "b")],
    lambda tensor: [[1, 2.0], [3, 4.0]],
    lambda tensor: [{"x": 1, "y": [tensor([1.0])]}, {"x": 2, "y": [tensor([2.0])]}],
    lambda tensor: [OrderedDict(b=1, a=2), OrderedDict(b=3, a=4)],
    lambda tensor: [UserDict(a=1), UserDict(a=2)],
    lambda tensor: [Point(1, tensor([2.0])), Point(3, tensor([4.0]))],
    lambda tensor: [((1, (2.0, "a")), {"k": (3,)}), ((4, (5.0, "b")), {"k": (6,)})],
    lambda tensor: [range(2), range(2)],
    lambda tensor: [tensor([1.0])],
]


def _plain(value: Any) -> Any:
    """A batch with its tensors as dtype, shape and numbers."""
    if hasattr(value, "tolist"):
        return (str(value.dtype).removeprefix("torch."), tuple(value.shape), value.tolist())
    if isinstance(value, dict | UserDict):
        return type(value).__name__, [(key, _plain(entry)) for key, entry in value.items()]
    if isinstance(value, list | tuple):
        return type(value).__name__, [_plain(entry) for entry in value]
    return value


@pytest.mark.torch
@pytest.mark.parametrize("number", range(len(BATCHES)))
def test_batches_are_pytorchs(torch: Any, number: int) -> None:
    mine = default_collate(BATCHES[number](cr.tensor))
    theirs = torch.utils.data.default_collate(BATCHES[number](torch.tensor))
    assert _plain(mine) == _plain(theirs)


@pytest.mark.torch
@pytest.mark.parametrize("number", range(len(BATCHES)))
def test_converted_examples_are_pytorchs(torch: Any, number: int) -> None:
    for mine, theirs in zip(BATCHES[number](cr.tensor), BATCHES[number](torch.tensor), strict=True):
        converted = default_convert(mine)
        assert _plain(converted) == _plain(torch.utils.data.default_convert(theirs))


def test_gradients_flow_through_a_batch() -> None:
    x = cr.ones(2, requires_grad=True)
    default_collate([x, x * 2]).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 3.0]


def test_a_mapping_keeps_what_it_has_beside_its_entries() -> None:
    example: UserDict[str, int] = UserDict(a=1)
    example.note = "kept"  # type: ignore[attr-defined]
    collated = default_collate([example, UserDict(a=2)])
    assert collated.note == "kept"
    assert example["a"] == 1


REFUSED: list[Callable[[Any], list[Any]]] = [
    lambda tensor: [[1, 2], [3]],
    lambda tensor: [tensor([1.0]), tensor([1.0, 2.0])],
    lambda tensor: [np.ones(1, np.float32), np.ones(2, np.float32)],
    lambda tensor: [None, None],
    lambda tensor: [object(), object()],
]


@pytest.mark.torch
@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_makes_no_batch_is_refused_in_pytorchs_words(torch: Any, number: int) -> None:
    with pytest.raises(Exception) as theirs:
        torch.utils.data.default_collate(REFUSED[number](torch.tensor))
    with pytest.raises(theirs.type) as mine:
        default_collate(REFUSED[number](cr.tensor))
    assert isinstance(mine.value, cr.ChainruleError)
    assert str(mine.value) == str(theirs.value)


def test_texts_in_arrays_are_refused() -> None:
    with pytest.raises(cr.DTypeError, match="batch must contain tensors"):
        default_collate([np.array(["a"]), np.array(["b"])])
