"""A module's state travels by path, all of it or nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from tests.engine.nn.twins import both, ours, same_error, worded


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.scale = nn.Parameter(cr.ones(1))
        self.register_buffer("steps", cr.tensor(0))
        self.register_buffer("scratch", cr.zeros(1), persistent=False)
        self.last = self.first

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        y: cr.Tensor = self.first(x) * self.scale
        return y


def test_state_dict_shares_memory_and_leaves_scratch_out() -> None:
    net = Net()
    state = net.state_dict()
    assert type(state) is OrderedDict
    assert list(state) == ["scale", "steps", "first.weight", "first.bias", "last.weight", "last.bias"]
    state["scale"].fill_(5)
    assert net.scale.tolist() == [5.0]
    assert not state["scale"].requires_grad


def test_state_dict_adds_to_a_destination_and_keeps_variables_on_request() -> None:
    net = Net()
    kept: dict[str, Any] = {"other": 1}
    assert net.state_dict(kept, "net.", True) is kept
    assert kept["net.scale"] is net.scale
    assert next(iter(kept)) == "other"


def test_loading_copies_arrays_and_tensors() -> None:
    a, b = Net(), Net()
    result = a.load_state_dict({name: value.numpy().copy() for name, value in b.state_dict().items()})
    assert repr(result) == "<All keys matched successfully>"
    assert cr.equal(a(cr.ones(1, 2)), b(cr.ones(1, 2)))
    a.load_state_dict(b.state_dict())
    assert not np.shares_memory(a.scale.data, b.scale.data)


def test_loading_converts_to_the_dtype_of_the_module() -> None:
    layer = nn.Linear(1, 1, bias=False)
    layer.load_state_dict({"weight": np.array([[0.5]], np.float64)})
    assert layer.weight.dtype == cr.float32
    assert layer.weight.tolist() == [[0.5]]


def test_loading_is_seen_by_a_graph_that_saved_the_old_values() -> None:
    layer = nn.Linear(1, 1, bias=False)
    y = layer(cr.ones(1, 1, requires_grad=True)).sum()
    layer.load_state_dict({"weight": np.zeros((1, 1))})
    with pytest.raises(cr.AutogradError, match="modified by an inplace operation"):
        y.backward()


def test_what_does_not_fit_changes_nothing() -> None:
    layer: Any = nn.Linear(2, 1)
    before = layer.bias.tolist()
    with pytest.raises(RuntimeError) as caught:
        layer.load_state_dict({"weight": np.zeros((3, 2)), "bias": np.zeros(1), "extra": np.zeros(1)})
    assert str(caught.value) == (
        "Error(s) in loading state_dict for Linear:\n"
        '\tUnexpected key(s) in state_dict: "extra". \n'
        "\tsize mismatch for weight: copying a param with shape (3, 2) from checkpoint, "
        "the shape in current model is (1, 2)."
    )
    assert layer.bias.tolist() == before
    with pytest.raises(cr.StateDictError, match="Missing key"):
        layer.load_state_dict({"bias": np.zeros(1)})
    assert layer.bias.tolist() == before


def test_loading_loosely_says_what_did_not_match() -> None:
    result = nn.Linear(2, 1).load_state_dict({"weight": np.zeros((1, 2)), "extra": np.zeros(1)}, strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["bias"], ["extra"])
    assert repr(result) == "IncompatibleKeys(missing_keys=['bias'], unexpected_keys=['extra'])"


def _deep(m: Any) -> Any:
    net = m.nn.Sequential(m.nn.Linear(2, 2), m.nn.Sequential(m.nn.BatchNorm2d(3), m.nn.Linear(1, 1)), m.nn.ReLU())
    net.add_module("gone", None)
    return net


def _load(m: Any, change: Callable[[Any, dict[str, Any]], Any], strict: bool = True) -> Any:
    net = _deep(m)
    state = dict(_deep(m).state_dict())
    change(m, state)
    return net.load_state_dict(state, strict=strict)


def _rename(state: dict[str, Any], old: str, new: str) -> None:
    state[new] = state.pop(old)


CHANGES: list[Callable[[Any, dict[str, Any]], Any]] = [
    lambda m, state: [state.pop(key) for key in list(state) if "tracked" not in key],
    lambda m, state: [state.pop("1.0.running_mean"), state.pop("0.bias"), state.pop("1.1.weight")],
    lambda m, state: state.update({"x": m.ones(1), "1.x": m.ones(1), "1.x.y": m.ones(1), "2.z": m.ones(1)}),
    lambda m, state: state.update({"0": m.ones(1), "1.0.running_mean.deep": m.ones(1), "9.weight": m.ones(1)}),
    lambda m, state: state.update({"_extra_state": m.ones(1), "1._extra_state": m.ones(1), "y": m.ones(1)}),
    lambda m, state: _rename(state, "1.0.weight", "1.0.gamma"),
    lambda m, state: state.update({"0.weight": m.ones(3, 2), "1.1.bias": m.ones(2), "0.bias": m.ones(2, 1)}),
    lambda m, state: state.update({"0.weight": "text", "extra": m.ones(1), "0.bias": m.ones(3)}),
]


@pytest.mark.torch
@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_what_does_not_fit_is_told_in_pytorchs_words(torch: Any, number: int) -> None:
    with pytest.raises(RuntimeError) as theirs:
        _load(torch, CHANGES[number])
    with pytest.raises(cr.StateDictError) as mine:
        _load(ours, CHANGES[number])
    # what PyTorch takes only from tensors, we take from arrays too
    expected = worded(str(theirs.value)).replace("Tensor or Tensor-like object", "Tensor or array")
    assert worded(str(mine.value)) == expected


@pytest.mark.torch
@pytest.mark.parametrize("number", range(6))
def test_loosely_loaded_keys_are_pytorchs(torch: Any, number: int) -> None:
    mine, theirs = both(torch, lambda m: tuple(_load(m, CHANGES[number], strict=False)))
    assert mine == theirs


@pytest.mark.torch
def test_something_that_is_no_mapping_is_refused(torch: Any) -> None:
    same_error(torch, lambda m: m.nn.Identity().load_state_dict([("a", 1)]))


@pytest.mark.torch
def test_a_zero_dimensional_buffer_takes_one_of_a_single_element(torch: Any) -> None:
    def load(m: Any) -> Any:
        layer = m.nn.BatchNorm2d(1)
        layer.load_state_dict({**layer.state_dict(), "num_batches_tracked": m.tensor([7])})
        return layer.num_batches_tracked.item()

    assert both(torch, load) == (7, 7)


def _assigned(m: Any) -> Any:
    layer = m.nn.BatchNorm2d(2)
    layer.weight.requires_grad_(False)
    old = layer.bias
    state = {**m.nn.BatchNorm2d(2).double().state_dict(), "bias": m.nn.Parameter(m.ones(2))}
    result = layer.load_state_dict(state, assign=True)
    return [
        layer.weight.requires_grad,
        type(layer.weight).__name__,
        str(layer.weight.dtype).removeprefix("torch."),
        layer.bias is state["bias"],
        layer.bias is old,
        layer.running_mean is state["running_mean"],
        list(layer.state_dict()),
        repr(result),
    ]


@pytest.mark.torch
def test_assigning_puts_the_given_tensors_in_place(torch: Any) -> None:
    mine, theirs = both(torch, _assigned)
    assert mine == theirs


def _with_extra(m: Any) -> Any:
    class Counting(m.nn.Module):  # type: ignore[misc]
        count = 0

        def get_extra_state(self) -> dict[str, int]:
            return {"count": self.count}

        def set_extra_state(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    return m.nn.Sequential(Counting(), m.nn.Linear(1, 1))


@pytest.mark.torch
def test_extra_state_travels_with_the_rest(torch: Any) -> None:
    def travel(m: Any) -> Any:
        a, b = _with_extra(m), _with_extra(m)
        a[0].count = 3
        b.load_state_dict(a.state_dict())
        missing = b.load_state_dict(a[1:].state_dict(), strict=False).missing_keys
        return b[0].count, list(a.state_dict()), missing

    mine, theirs = both(torch, travel)
    assert mine == theirs
    with pytest.raises(cr.UnsupportedError, match="Linear has no extra state; define get_extra_state"):
        nn.Linear(1, 1).get_extra_state()


def _with_hooks(m: Any) -> Any:
    """What hooks of the state see, and what they make of it."""
    net = m.nn.Sequential(m.nn.Linear(1, 1), m.nn.Linear(1, 1))
    log: list[Any] = []

    def rename(module: Any, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        log.append(("load", type(module).__name__, prefix, sorted(state), [len(part) for part in rest[2:]]))
        if prefix + "old" in state:
            state[prefix + "weight"] = state.pop(prefix + "old")

    def forgive(module: Any, keys: Any) -> None:
        log.append(("loaded", type(module).__name__, list(keys.missing_keys), list(keys.unexpected_keys)))
        keys.missing_keys.clear()

    net[1].register_load_state_dict_pre_hook(rename)
    net[1].register_load_state_dict_post_hook(forgive)
    net.register_load_state_dict_post_hook(forgive)
    net.register_state_dict_pre_hook(lambda module, prefix, keep: log.append((type(module).__name__, prefix, keep)))
    handle = net[0].register_state_dict_post_hook(
        lambda module, state, prefix, metadata: state.update({prefix + "version": metadata["version"]})
    )
    state = net.state_dict()
    log.append(list(state))
    handle.remove()
    log.append(list(net.state_dict(prefix="p.")))
    net.load_state_dict({"0.weight": m.zeros(1, 1), "0.bias": m.ones(1), "1.old": m.zeros(1, 1)})
    log.append([value.tolist() for value in net.parameters()][:3])
    return log


@pytest.mark.torch
def test_hooks_of_the_state_see_and_change_what_pytorchs_do(torch: Any) -> None:
    mine, theirs = both(torch, _with_hooks)
    assert mine == theirs


def _renaming(m: Any) -> Any:
    class Renamed(m.nn.Linear):  # type: ignore[misc]
        _version = 2

        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[prefix + "kernel"] = destination.pop(prefix + "weight")

        def _load_from_state_dict(self, state_dict: Any, prefix: str, metadata: Any, *rest: Any) -> None:
            if metadata.get("version", 1) > 1:
                state_dict[prefix + "weight"] = state_dict.pop(prefix + "kernel")
            super()._load_from_state_dict(state_dict, prefix, metadata, *rest)

    a, b = m.nn.Sequential(Renamed(1, 1)), m.nn.Sequential(Renamed(1, 1))
    state = a.state_dict()
    return [list(state), repr(b.load_state_dict(state)), bool((a[0].weight == b[0].weight).all())]


@pytest.mark.torch
def test_a_module_may_store_its_state_in_another_form(torch: Any) -> None:
    mine, theirs = both(torch, _renaming)
    assert mine == theirs


def test_hooks_of_the_state_return_nothing() -> None:
    layer = nn.Linear(1, 1)
    with (
        layer.register_state_dict_post_hook(lambda *args: args),
        pytest.raises(cr.StateDictError, match="must return None"),
    ):
        layer.state_dict()
    with (
        layer.register_load_state_dict_post_hook(lambda *args: args),
        pytest.raises(cr.StateDictError, match="in place"),
    ):
        layer.load_state_dict(layer.state_dict())


def test_a_value_that_cannot_be_copied_is_named() -> None:
    layer = nn.Linear(1, 1)
    with pytest.raises(cr.StateDictError, match='While copying the parameter named "bias", an exception occurred'):
        layer.load_state_dict({"weight": np.zeros((1, 1)), "bias": np.array(["text"])})
