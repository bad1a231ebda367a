"""Mistakes raise what they raise in PyTorch: an error of the same builtin type, saying the same things."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.errors import ChainruleError


def second_backward(m: Any) -> Any:
    x = m.ones(2, requires_grad=True)
    y = (x * x).sum()
    y.backward()
    y.backward()


def in_place_on_a_needed_tensor(m: Any) -> Any:
    x = m.ones(2, requires_grad=True)
    y = m.exp(x)
    y.add_(1)
    y.sum().backward()


def in_place_on_a_view_of_a_needed_tensor(m: Any) -> Any:
    x = m.ones(3, requires_grad=True) * 1
    y = x * x
    x[0] = 2.0
    y.sum().backward()


def frozen_result(m: Any) -> Any:
    (m.ones(2, requires_grad=True) * 2).requires_grad = False


def state_dict(m: Any) -> Any:
    model = m.nn.Sequential(m.nn.Linear(2, 3), m.nn.BatchNorm1d(3))
    state = dict(model.state_dict())
    state["0.wait"] = state.pop("0.weight")
    state["0.bias"] = m.zeros(4)
    model.load_state_dict(state)


def module_attribute(m: Any) -> Any:
    m.nn.Linear(2, 2).weight = m.ones(2, 2)


def conv(m: Any, *shape: int, weight: tuple[int, ...] = (4, 3, 3, 3)) -> Any:
    return m.nn.functional.conv2d(m.ones(*shape), m.ones(*weight))


MISTAKES: dict[str, tuple[Callable[[Any], Any], str]] = {
    # the graph
    "second-backward": (second_backward, "backward through the graph a second time"),
    "backward-of-several": (lambda m: (m.ones(2, requires_grad=True) * 2).backward(), "only for scalar outputs"),
    "backward-of-nothing": (lambda m: m.ones(1).backward(), "does not require grad and does not have a grad_fn"),
    "gradient-of-another-shape": (
        lambda m: m.ones(2, requires_grad=True).sum().backward(m.ones(3)),
        "Mismatch in shape: grad_output",
    ),
    "gradient-by-a-constant": (
        lambda m: m.autograd.grad(m.ones(1, requires_grad=True) * 2, m.ones(1)),
        "One of the differentiated Tensors does not require grad",
    ),
    "gradient-by-a-stranger": (
        lambda m: m.autograd.grad(m.ones(1, requires_grad=True) * 2, m.ones(1, requires_grad=True)),
        "appears to not have been used in the graph",
    ),
    "in-place-on-a-needed-tensor": (in_place_on_a_needed_tensor, "modified by an inplace operation"),
    "in-place-on-a-view-of-it": (in_place_on_a_view_of_a_needed_tensor, "modified by an inplace operation"),
    "in-place-on-a-leaf": (lambda m: m.ones(1, requires_grad=True).add_(1), "leaf Variable that requires grad"),
    "in-place-on-a-view-of-a-leaf": (
        lambda m: m.ones(2, requires_grad=True)[0].mul_(2),
        "a view of a leaf Variable that requires grad is being used in an in-place operation",
    ),
    "in-place-on-one-of-many": (
        lambda m: m.ones(2, requires_grad=True).clone().unbind()[0].mul_(2),
        "a function that returns multiple views",
    ),
    "in-place-on-expanded": (
        lambda m: m.ones(1).expand(3).add_(1),
        "more than one element of the written-to tensor refers to a single memory location",
    ),
    "in-place-to-another-shape": (lambda m: m.ones(1).add_(m.ones(3)), "doesn't match the broadcast shape"),
    "in-place-to-another-kind": (lambda m: m.ones(1, dtype=m.int64).add_(1.5), "can't be cast to the desired output"),
    "integers-that-require-a-gradient": (
        lambda m: m.tensor([1, 2], requires_grad=True),
        "nly Tensors of floating point",
    ),
    "unfreezing-a-result": (frozen_result, "you can only change requires_grad flags of leaf variables"),
    "numpy-of-what-is-recorded": (lambda m: m.ones(1, requires_grad=True).numpy(), "Can't call numpy"),
    "deepcopy-of-what-is-recorded": (
        lambda m: __import__("copy").deepcopy(m.ones(1, requires_grad=True) * 2),
        "created explicitly by the user",
    ),
    # shapes
    "matmul": (lambda m: m.ones(2, 3) @ m.ones(2, 3), "mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)"),
    "matmul-0d": (lambda m: m.ones(2) @ m.ones(()), "both arguments to matmul need to be at least 1D"),
    "matmul-dtype": (lambda m: m.ones(2, 2) @ m.ones(2, 2, dtype=m.float64), "same dtype"),
    "broadcast": (
        lambda m: m.ones(2, 3) + m.ones(2, 2),
        "The size of tensor a (3) must match the size of tensor b (2) at non-singleton dimension 1",
    ),
    "reshape": (lambda m: m.ones(6).reshape(4), "shape '[4]' is invalid for input of size 6"),
    "reshape-two-unknown": (lambda m: m.ones(6).reshape(-1, -1), "only one dimension can be inferred"),
    "view": (lambda m: m.ones(2, 3).t().view(6), "view size is not compatible with input tensor's size and stride"),
    "expand": (lambda m: m.ones(3).expand(2, 2), "must match the existing size (3) at non-singleton dimension 1"),
    "cat": (lambda m: m.cat([m.ones(2, 3), m.ones(2, 2)]), "Sizes of tensors must match except in dimension 0"),
    "stack": (lambda m: m.stack([m.ones(2), m.ones(3)]), "stack expects each tensor to be equal size"),
    "dimension": (lambda m: m.ones(2).sum(3), "Dimension out of range (expected to be in range of [-1, 0], but got 3)"),
    "conv-channels": (lambda m: conv(m, 1, 2, 5, 5), "to have 3 channels, but got 2 channels instead"),
    "conv-dimensions": (lambda m: conv(m, 5, 5), "Expected 3D (unbatched) or 4D (batched) input to conv2d"),
    "conv-window": (lambda m: conv(m, 1, 3, 2, 2), "can't be greater than"),
    "linear": (lambda m: m.nn.Linear(3, 2)(m.ones(2, 4)), ""),
    "batch-norm-one-value": (lambda m: m.nn.BatchNorm1d(2)(m.ones(1, 2)), "Expected more than 1 value per channel"),
    # indices
    "index": (lambda m: m.ones(3)[5], "index 5 is out of bounds for dimension 0 with size 3"),
    "indices": (lambda m: m.ones(3)[m.tensor([0, 7])], "index 7 is out of bounds for dimension 0 with size 3"),
    "too-many-indices": (lambda m: m.ones(3)[0, 0], "too many indices for tensor of dimension 1"),
    "target": (lambda m: m.nn.functional.cross_entropy(m.ones(1, 3), m.tensor([3])), "Target 3 is out of bounds"),
    "embedding": (lambda m: m.nn.Embedding(3, 2)(m.tensor([3])), "out of range"),
    "item": (lambda m: m.ones(2).item(), "a Tensor with 2 elements cannot be converted to Scalar"),
    "truth": (lambda m: bool(m.ones(2)), "Boolean value of Tensor with more than one value is ambiguous"),
    # dtypes and things that are no tensors
    "mean-of-integers": (lambda m: m.arange(3).mean(), "could not infer output dtype"),
    "not-a-tensor": (lambda m: m.exp(3), "exp(): argument 'input' (position 1) must be Tensor, not int"),
    "words": (lambda m: m.tensor("a"), "new(): invalid data type 'str'"),
    "ragged": (lambda m: m.tensor([[1], [1, 2]]), "expected sequence of length 1 at dim 1 (got 2)"),
    "plus-a-word": (lambda m: m.ones(1) + "a", "unsupported operand type(s) for +"),
    "unsupported-array": (lambda m: m.tensor(np.array(["a"])), "can't convert np.ndarray of type"),
    "unsupported-array-shared": (lambda m: m.from_numpy(np.array(["a"])), ""),
    # modules
    "state-dict": (state_dict, "Error(s) in loading state_dict for Sequential"),
    "state-dict-missing": (state_dict, 'Missing key(s) in state_dict: "0.weight"'),
    "state-dict-unexpected": (state_dict, 'Unexpected key(s) in state_dict: "0.wait"'),
    "state-dict-size": (state_dict, "size mismatch for 0.bias: copying a param with shape"),
    "module-attribute": (module_attribute, "as parameter 'weight'"),
    "forward": (lambda m: m.nn.Module()(1), 'is missing the required "forward" function'),
    "empty-optimizer": (lambda m: m.optim.SGD([], lr=0.1), "optimizer got an empty parameter list"),
    "negative-rate": (lambda m: m.optim.SGD([m.ones(1, requires_grad=True)], lr=-1.0), "earning rate"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_explained_as_in_pytorch(mistake: str) -> None:
    make, text = MISTAKES[mistake]
    with pytest.raises(Exception) as caught:
        make(cr)
    assert isinstance(caught.value, ChainruleError | TypeError | AttributeError | NotImplementedError)
    assert text in str(caught.value)


@pytest.mark.torch
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_type_is_pytorchs(mistake: str, torch: Any) -> None:
    make, text = MISTAKES[mistake]
    with pytest.raises(Exception) as theirs:
        make(torch)
    assert text in str(theirs.value)
    with pytest.raises(type(theirs.value)):
        make(cr)
