"""The Module: what it finds in its attributes, and how its state travels."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import dtypes, nn
from tests.engine.nn.twins import both, ours, same_error


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


@pytest.mark.torch
def test_state_dict_keys_of_shared_modules_are_pytorchs(torch: Any) -> None:
    shared, expected = nn.Linear(1, 1), torch.nn.Linear(1, 1)
    ours, theirs = nn.Sequential(shared, shared), torch.nn.Sequential(expected, expected)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert len(list(ours.parameters())) == len(list(theirs.parameters()))
    assert repr(ours) == repr(theirs)


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


# ---- As PyTorch does it ----


def _layered(m: Any) -> Any:
    net = m.nn.Sequential(m.nn.Linear(2, 3), m.nn.Sequential(m.nn.Linear(3, 3), m.nn.BatchNorm2d(3)), m.nn.ReLU())
    net.register_buffer("seen", m.zeros(2), persistent=False)
    net.register_buffer("absent", None)
    net.register_parameter("unused", None)
    net.add_module("again", net[0])
    net.add_module("nothing", None)
    return net


def _assign(target: Any, name: str, value: Any) -> None:
    setattr(target, name, value)


def _before_init(m: Any, make: Callable[[Any], Any]) -> None:
    class Early(m.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.part = make(m)

    Early()


REFUSED: list[Callable[[Any], Any]] = [
    lambda m: m.nn.Module().register_parameter(3, None),
    lambda m: m.nn.Module().register_parameter("a.b", None),
    lambda m: m.nn.Module().register_parameter("", None),
    lambda m: m.nn.Module().register_parameter("training", None),
    lambda m: m.nn.Module().register_parameter("a", m.ones(1)),
    lambda m: m.nn.Module().register_parameter("a", "b"),
    lambda m: m.nn.Module().register_buffer(3, None),
    lambda m: m.nn.Module().register_buffer("a.b", None),
    lambda m: m.nn.Module().register_buffer("", None),
    lambda m: m.nn.Module().register_buffer("forward", None),
    lambda m: m.nn.Module().register_buffer("a", 3),
    lambda m: m.nn.Module().add_module(3, None),
    lambda m: m.nn.Module().add_module("a.b", None),
    lambda m: m.nn.Module().add_module("", None),
    lambda m: m.nn.Module().add_module("eval", m.nn.Identity()),
    lambda m: m.nn.Module().add_module("a", 3),
    lambda m: m.nn.Linear(1, 1).add_module("weight", m.nn.Identity()),
    lambda m: _before_init(m, lambda m: m.nn.Parameter(m.ones(1))),
    lambda m: _before_init(m, lambda m: m.nn.Identity()),
    lambda m: _assign(m.nn.Linear(1, 1), "weight", m.ones(1)),
    lambda m: _assign(m.nn.Linear(1, 1), "weight", "text"),
    lambda m: _assign(_layered(m), "again", 3),
    lambda m: _assign(_layered(m), "seen", 3),
    lambda m: m.nn.Identity().missing,
    lambda m: m.nn.Identity().get_submodule("missing.part"),
    lambda m: m.nn.Linear(1, 1).get_submodule("weight"),
    lambda m: m.nn.Linear(1, 1).get_parameter("missing"),
    lambda m: m.nn.Linear(1, 1).get_parameter("in_features"),
    lambda m: _layered(m).get_parameter("seen"),
    lambda m: _layered(m).get_buffer("0.weight"),
    lambda m: _layered(m).get_buffer("9.weight"),
    lambda m: _layered(m).set_submodule("", m.nn.Identity()),
    lambda m: _layered(m).set_submodule("1.0", 3),
    lambda m: _layered(m).set_submodule("9.0", m.nn.Identity()),
    lambda m: _layered(m).set_submodule("1.9", m.nn.Identity(), strict=True),
    lambda m: _layered(m).set_submodule("0.weight", m.nn.Identity()),
    lambda m: m.nn.Identity().train("yes"),
    lambda m: m.nn.Linear(1, 1).to(m.int64),
    lambda m: m.nn.Module()(1),
]


@pytest.mark.torch
@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_wrong_use_is_refused_in_pytorchs_words(torch: Any, number: int) -> None:
    same_error(torch, REFUSED[number])


SEEN: list[Callable[[Any], Any]] = [
    lambda net: [name for name, _ in net.named_parameters()],
    lambda net: [name for name, _ in net.named_parameters("net", remove_duplicate=False)],
    lambda net: [name for name, _ in net.named_parameters(recurse=False)],
    lambda net: [name for name, _ in net.named_buffers()],
    lambda net: [name for name, _ in net.named_buffers(prefix="p", recurse=False)],
    lambda net: [name for name, _ in net.named_modules()],
    lambda net: [name for name, _ in net.named_modules(memo={net[1]}, prefix="x")],
    lambda net: [name for name, _ in net.named_modules(remove_duplicate=False)],
    lambda net: len(list(net.modules(remove_duplicate=False))),
    lambda net: [name for name, _ in net.named_children()],
    lambda net: (list(net.state_dict()), list(net.state_dict(prefix="p."))),
    lambda net: {path: dict(entry) for path, entry in net.state_dict()._metadata.items() if path != "1.1"},
    lambda net: repr(net),
    lambda net: [name for name in dir(net) if name in ("seen", "again", "unused", "0", "1", "training", "forward")],
    lambda net: [hasattr(net, name) for name in ("seen", "absent", "unused", "nothing", "missing")],
    lambda net: [parameter.requires_grad for parameter in net.requires_grad_(False).parameters()],
    lambda net: [module.training for module in net.eval().modules()],
    lambda net: [type(module).__name__ for module in _applied(net)],
]


def _applied(net: Any) -> list[Any]:
    modules: list[Any] = []
    net.apply(modules.append)
    return modules


@pytest.mark.torch
@pytest.mark.parametrize("number", range(len(SEEN)))
def test_what_is_in_a_module_is_listed_in_pytorchs_order(torch: Any, number: int) -> None:
    mine, theirs = both(torch, lambda m: SEEN[number](_layered(m)))
    assert mine == theirs


def _reassigned(m: Any) -> list[Any]:
    """What assignments over other kinds of attributes leave."""
    net = _layered(m)
    net.seen = m.nn.Parameter(m.ones(1))  # a buffer becomes a parameter
    net.note = 3
    net.note = m.nn.Identity()  # an attribute becomes a module
    net.note = None
    net.again = m.nn.Tanh()  # keeps its place
    net[1][0].bias = None
    net.set_submodule("1.0", m.nn.Identity())
    net.set_submodule("1.new", m.nn.Linear(1, 1, bias=False))
    del net.absent
    return [repr(net), list(net.state_dict()), [name for name, _ in net.named_parameters()], "note" in vars(net)]


@pytest.mark.torch
def test_assignments_leave_what_they_leave_in_pytorch(torch: Any) -> None:
    mine, theirs = both(torch, _reassigned)
    assert mine == theirs


def test_modules_are_found_at_their_paths() -> None:
    net = _layered(ours)
    assert net.get_submodule("") is net
    assert net.get_submodule("1.0") is net[1][0]
    assert net.get_parameter("1.0.weight") is net[1][0].weight
    assert net.get_buffer("1.1.running_mean") is net[1][1].running_mean


class Described(nn.Module):
    def extra_repr(self) -> str:
        return "one\ntwo"


@pytest.mark.torch
def test_settings_on_several_lines_print_as_pytorchs(torch: Any) -> None:
    twin = type("Described", (torch.nn.Module,), {"extra_repr": lambda self: "one\ntwo"})
    assert repr(Described()) == repr(twin())
    assert repr(nn.Sequential(Described())) == repr(torch.nn.Sequential(twin()))


# ---- Conversion ----


@pytest.mark.parametrize("dtype", [dtypes.float64, dtypes.float16, dtypes.bfloat16])
def test_floating_tensors_are_converted_and_parameters_stay_themselves(dtype: Any) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm2d(2))
    weight = net[0].weight
    net[0](cr.ones(1, 2)).sum().backward()
    assert net.to(dtype) is net
    assert net[0].weight is weight
    assert weight.dtype == dtype
    assert weight.requires_grad
    assert weight.is_leaf
    assert weight.grad.dtype == dtype
    assert net[1].running_mean.dtype == dtype
    assert net[1].num_batches_tracked.dtype == cr.int64


def test_conversions_by_name_do_what_to_does() -> None:
    layer: Any = nn.Linear(2, 2)
    for name, dtype in {
        "double": cr.float64,
        "half": dtypes.float16,
        "bfloat16": dtypes.bfloat16,
        "float": cr.float32,
    }.items():
        assert getattr(layer, name)().weight.dtype == dtype
    assert layer.to("cpu", cr.float64).weight.dtype == cr.float64
    assert layer.to(cr.ones(1)).weight.dtype == cr.float32
    assert layer.to(dtype=cr.float64, device="cpu", non_blocking=True).bias.dtype == cr.float64
    assert layer.to() is layer.cpu()
    assert layer.type(cr.float32).weight.dtype == cr.float32


def test_a_converted_model_trains_on() -> None:
    layer = nn.Linear(2, 1).double()
    optimizer = cr.optim.SGD(layer.parameters(), lr=0.1)
    x = cr.ones(4, 2, dtype=cr.float64)
    first = layer(x).square().mean()
    first.backward()
    optimizer.step()
    assert layer(x).square().mean().item() < first.item()


def test_channels_last_changes_the_memory_and_not_the_values() -> None:
    layer = nn.Conv2d(3, 4, 2)
    before = layer.weight.detach().numpy().copy()
    layer.to(memory_format="channels_last")
    assert layer.weight.data.transpose(0, 2, 3, 1).flags.c_contiguous
    assert np.array_equal(layer.weight.data, before)
    layer.to(memory_format="contiguous_format")
    assert layer.weight.data.flags.c_contiguous


def test_what_this_version_cannot_do_is_said() -> None:
    layer = nn.Linear(1, 1)
    for call in (layer.cuda, lambda: layer.to("cuda:0"), lambda: layer.to(device="meta"), layer.xpu):
        with pytest.raises(cr.UnsupportedError, match="computes on the CPU"):
            call()
    with pytest.raises(cr.UnsupportedError, match="there is no compiler; call the module as it is"):
        layer.compile()
    with pytest.raises(cr.UnsupportedError, match="pickle the module"):
        layer.share_memory()
    with pytest.raises(cr.UnsupportedError, match="channels_last_3d is not supported; choose one of"):
        layer.to(memory_format="channels_last_3d")
    with pytest.raises(cr.UnsupportedError, match="use register_full_backward_hook"):
        layer.register_backward_hook(print)
    with pytest.raises(cr.ConfigError, match=r"to\(\) takes a device"):
        layer.to("cpu", cr.float32, "now")
    with pytest.raises(cr.DTypeError, match="requires a gradient cannot become int64"):
        layer.type(cr.int64)
    assert layer.weight.dtype == cr.float32


# ---- Elsewhere ----


def test_a_pickled_model_has_the_same_bits_in_another_process(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ModuleList([nn.BatchNorm2d(2)]))
    net[0].weight.requires_grad_(False)
    (tmp_path / "net").write_bytes(pickle.dumps(net))
    code = (
        "import pickle, sys, numpy as np, chainrule.engine as cr\n"
        "net = pickle.load(open(sys.argv[1], 'rb'))\n"
        "np.savez(sys.argv[2], **{name: value.numpy() for name, value in net.state_dict().items()})\n"
        "print([p.requires_grad for p in net.parameters()], net.training)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "net"), str(tmp_path / "state.npz")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == "[False, True, True, True] True\n"
    loaded = np.load(tmp_path / "state.npz")
    assert list(loaded) == list(net.state_dict())
    assert all(loaded[name].tobytes() == value.numpy().tobytes() for name, value in net.state_dict().items())
