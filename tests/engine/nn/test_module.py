"""The Module: what it finds in its attributes, and how its state travels."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.blocks = nn.ModuleList([nn.Linear(3, 3, bias=False) for _ in range(2)])
        self.scale = nn.Parameter(cr.ones(1))
        self.register_buffer("steps", cr.tensor(0))
        self.register_buffer("scratch", cr.zeros(1), persistent=False)
        self.last = self.first

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x * self.scale


def test_attributes_become_parameters_buffers_and_modules() -> None:
    net = Net()
    names = [name for name, _ in net.named_parameters()]
    assert names == ["scale", "first.weight", "first.bias", "blocks.0.weight", "blocks.1.weight"]
    assert [name for name, _ in net.named_buffers()] == ["steps", "scratch"]
    assert [name for name, _ in net.named_children()] == ["first", "blocks"]
    assert [name for name, _ in net.named_modules()] == ["", "first", "blocks", "blocks.0", "blocks.1"]
    assert len(list(net.parameters())) == 5
    assert net.get_submodule("blocks.1") is net.blocks[1]
    assert "first" in dir(net)


def test_state_dict_shares_memory_and_leaves_scratch_out() -> None:
    net = Net()
    state = net.state_dict()
    assert "scratch" not in state
    assert "last.weight" in state
    state["scale"].fill_(5)
    assert net.scale.tolist() == [5.0]
    assert not state["scale"].requires_grad


@pytest.mark.torch
def test_state_dict_keys_of_shared_modules_are_pytorchs(torch: Any) -> None:
    shared, expected = nn.Linear(1, 1), torch.nn.Linear(1, 1)
    ours, theirs = nn.Sequential(shared, shared), torch.nn.Sequential(expected, expected)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert len(list(ours.parameters())) == len(list(theirs.parameters()))
    assert repr(ours) == repr(theirs)


def test_loading_copies_arrays_and_tensors() -> None:
    a, b = Net(), Net()
    result = a.load_state_dict({name: value.numpy().copy() for name, value in b.state_dict().items()})
    assert repr(result) == "<All keys matched successfully>"
    assert cr.equal(a(cr.ones(1, 2)), b(cr.ones(1, 2)))
    a.load_state_dict(b.state_dict())
    assert not np.shares_memory(a.scale.data, b.scale.data)


def test_loading_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    layer = nn.Linear(2, 1)
    before = layer.bias.tolist() if layer.bias is not None else []
    with pytest.raises(RuntimeError) as caught:
        layer.load_state_dict({"weight": np.zeros((3, 2)), "extra": np.zeros(1)})
    assert str(caught.value) == (
        "Error(s) in loading state_dict for Linear:\n"
        '\tMissing key(s) in state_dict: "bias". \n'
        '\tUnexpected key(s) in state_dict: "extra". \n'
        "\tsize mismatch for weight: copying a param with shape (3, 2) from checkpoint, "
        "the shape in current model is (1, 2)."
    )
    assert layer.bias is not None
    assert layer.bias.tolist() == before


def test_loading_loosely_says_what_did_not_match() -> None:
    result = nn.Linear(2, 1).load_state_dict({"weight": np.zeros((1, 2)), "extra": np.zeros(1)}, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["bias"], ["extra"])


def test_modes_gradients_and_flags_reach_every_module() -> None:
    net = Net()
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    net.train()
    assert all(module.training for module in net.modules())
    net(cr.ones(1, 2)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert net.scale.grad is not None
    assert net.scale.grad.tolist() == [0.0]
    net.zero_grad()
    assert net.scale.grad is None
    net.requires_grad_(False)
    assert not net(cr.ones(1, 2)).requires_grad
    seen: list[str] = []
    net.apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Linear", "Linear", "Linear", "ModuleList", "Net"]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_are_independent(duplicate: Any) -> None:
    net = Net()
    other = duplicate(net)
    assert other.last is other.first
    assert cr.equal(other(cr.ones(1, 2)), net(cr.ones(1, 2)))
    with cr.no_grad():
        other.scale += 1
    assert net.scale.tolist() == [1.0]
    assert next(other.parameters()).requires_grad


def test_assignments_are_checked() -> None:
    net: Any = Net()
    with pytest.raises(TypeError, match="cannot assign 'Tensor' as parameter 'scale'"):
        net.scale = cr.ones(1)
    with pytest.raises(TypeError, match="cannot assign 'str' as child module 'last'"):
        net.last = "layer"
    net.scale = None
    assert "scale" not in dict(net.named_parameters())
    net.steps = cr.tensor(3)
    assert net.state_dict()["steps"].item() == 3
    del net.first
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'first'"):
        _ = net.first

    class Early(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Identity()

    with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
        Early()


def test_a_module_without_forward_says_so() -> None:
    with pytest.raises(NotImplementedError, match=r'Module \[ModuleList\] is missing the required "forward"'):
        nn.ModuleList()(1)


def test_containers_have_the_manners_of_lists() -> None:
    layers = [nn.Linear(1, 1) for _ in range(4)]
    stack = nn.Sequential(*layers[:2]).append(layers[2])
    assert len(stack) == 3
    assert list(stack) == layers[:3]
    assert stack[-1] is layers[2]
    assert list(stack[1:]) == layers[1:3]
    stack[0] = layers[3]
    assert stack[0] is layers[3]
    listed = nn.ModuleList(layers[:2])
    listed.insert(0, layers[3])
    assert list(listed) == [layers[3], *layers[:2]]
    named = nn.Sequential(OrderedDict(a=layers[0], b=layers[1]))
    assert named.b is layers[1]
    with pytest.raises(TypeError, match="str is not a Module subclass"):
        nn.Sequential("a")  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="index 9 is out of range"):
        stack[9] = layers[0]
