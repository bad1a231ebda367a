"""Networks of torchvision compute what PyTorch's do: logits, gradients, steps of SGD, running statistics; and names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import models, nn, optim
from chainrule.engine.dtypes import Array
from chainrule.engine.nn import functional as F
from tests.engine.models.torch_twins import twin

PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "vgg11": 132_863_336,
    "mobilenet_v2": 3_504_872,
}
# Of the logits, and of gradients to their norm.
BOUNDS = {"float32": (1e-4, 1e-3), "float64": (1e-9, 1e-9)}


def examples(n: int, size: int, num_classes: int, dtype: str) -> tuple[Array, Array]:
    draws = np.random.default_rng(0)
    return draws.standard_normal((n, 3, size, size)).astype(dtype), draws.integers(0, num_classes, n)


def load(torch: Any, theirs: Any, ours: nn.Module) -> None:
    """Our state into PyTorch's network, whose keys and shapes are the same, in the same order."""
    state = {name: torch.tensor(value.numpy()) for name, value in ours.state_dict().items()}
    expected = theirs.state_dict()
    assert list(state) == list(expected)
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        name: tuple(value.shape) for name, value in expected.items()
    }
    theirs.load_state_dict(state)


def near(x: Array, expected: Array, bound: float, floor: float = 0.0) -> None:
    """‖x − expected‖ ≤ bound · max(‖expected‖, floor)"""
    difference, norm = np.linalg.norm((x - expected).ravel()), np.linalg.norm(expected.ravel())
    assert difference <= bound * max(float(norm), floor), f"{difference:.2e} of {norm:.2e}"


def compare_step(torch: Any, ours: Any, theirs: Any, x: Array, y: Array) -> None:
    """Logits and gradients of one forward and backward.

    A bias before a batch normalisation has no gradient but rounding: those are held to a millionth of the whole.
    """
    logits, expected = ours(cr.tensor(x)), theirs(torch.tensor(x))
    logit_bound, gradient_bound = BOUNDS[str(x.dtype)]
    near(logits.detach().numpy(), expected.detach().numpy(), logit_bound)
    ours.zero_grad()
    theirs.zero_grad()
    F.cross_entropy(logits, cr.tensor(y)).backward()
    torch.nn.functional.cross_entropy(expected, torch.tensor(y)).backward()
    whole = np.sqrt(sum(float((q.grad**2).sum()) for q in theirs.parameters()))
    for (name, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert p.grad is not None, name
        near(p.grad.numpy(), q.grad.numpy(), gradient_bound, 1e-6 * whole)


def compare_state(ours: Any, theirs: Any, bound: float) -> None:
    for (name, value), expected in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        if name.endswith("num_batches_tracked"):
            assert value.item() == expected.item()
        else:
            near(value.numpy(), expected.numpy(), bound, 1e-6)


def compare_steps(torch: Any, dtype: str, seed: int) -> None:
    """Five steps of a ResNet-18, and its prediction after them; in float32 both begin each step at our weights.

    Rounding decides at a ReLU whether a number near 0 passes its gradient, which moves gradients by a percent. In
    float32 PyTorch's own steps soon part from those it makes in float64 for that reason.
    """
    ours: Any = models.resnet18(num_classes=10, generator=cr.Generator(seed)).to(getattr(cr, dtype))
    theirs = twin("resnet18", num_classes=10).to(getattr(torch, dtype))
    load(torch, theirs, ours)
    x, y = examples(3, 48, 10, dtype)
    steps = optim.SGD(ours.parameters(), lr=0.01, momentum=0.9)
    expected = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9)
    for _ in range(5):
        compare_step(torch, ours, theirs, x, y)
        steps.step()
        expected.step()
        compare_state(ours, theirs, BOUNDS[dtype][1])
        if dtype == "float32":
            load(torch, theirs, ours)
    ours.eval()
    theirs.eval()
    with cr.no_grad(), torch.no_grad():
        near(ours(cr.tensor(x)).numpy(), theirs(torch.tensor(x)).numpy(), BOUNDS[dtype][1])


@pytest.mark.torch
def test_resnet18_learns_as_pytorchs_does(torch: Any) -> None:
    compare_steps(torch, "float64", seed=0)


@pytest.mark.torch
def test_resnet18_learns_as_pytorchs_does_in_float32(torch: Any) -> None:
    """From one of three beginnings: a ReLU may turn within a step, too."""
    misses = []
    for seed in range(3):
        try:
            compare_steps(torch, "float32", seed)
        except AssertionError as miss:
            misses.append(str(miss))
        else:
            return
    pytest.fail("\n".join(misses))


@pytest.mark.torch
@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2"])
def test_one_step_is_pytorchs(name: str, torch: Any) -> None:
    settings = {"dropout": 0.0} if name == "mobilenet_v2" else {}
    ours: Any = models.build(name, {"num_classes": 10, **settings}, generator=cr.Generator(0)).double()
    theirs = twin(name, num_classes=10, **settings).double()
    load(torch, theirs, ours)
    compare_step(torch, ours, theirs, *examples(3, 48, 10, "float64"))
    compare_state(ours, theirs, 1e-9)


@pytest.mark.torch
def test_vgg11_is_pytorchs_but_for_a_smaller_classifier(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.vgg, "_widths", (512 * 7 * 7, 16, 16))  # the real one takes a gigabyte
    ours: Any = models.vgg11(num_classes=10, dropout=0.0, generator=cr.Generator(0)).double()
    theirs = twin("vgg11", dropout=0.0)
    for number, (narrow, wide) in {0: (512 * 7 * 7, 16), 3: (16, 16), 6: (16, 10)}.items():
        theirs.classifier[number] = torch.nn.Linear(narrow, wide)
    theirs.double()
    load(torch, theirs, ours)
    compare_step(torch, ours, theirs, *examples(2, 32, 10, "float64"))


@pytest.mark.torch
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "mobilenet_v2"])
def test_keys_and_shapes_are_pytorchs(name: str, torch: Any) -> None:
    ours = models.build(name)
    with torch.device("meta"):
        expected = twin(name).state_dict()
    assert [(key, tuple(value.shape)) for key, value in ours.state_dict().items()] == [
        (key, tuple(value.shape)) for key, value in expected.items()
    ]


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameters_are_as_many_as_torchvisions(name: str, count: int) -> None:
    assert models.family(name).num_parameters() == count


# ---- What they are made of ----


def test_resnet18_prints_as_in_the_tutorial() -> None:
    lines = repr(models.resnet18()).splitlines()
    assert lines[:2] == [
        "ResNet(",
        "  (conv1): Conv2d(3, 64, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3), bias=False)",
    ]
    assert lines[2].startswith("  (bn1): BatchNorm2d(64, eps=1e-05, momentum=0.1, affine=True, ")
    assert lines[3:6] == [
        "  (relu): ReLU(inplace=True)",
        "  (maxpool): MaxPool2d(kernel_size=3, stride=2, padding=1, dilation=1, ceil_mode=False)",
        "  (layer1): Sequential(",
    ]
    assert lines[6] == "    (0): BasicBlock("
    assert lines[-3:] == [
        "  (avgpool): AdaptiveAvgPool2d(output_size=(1, 1))",
        "  (fc): Linear(in_features=512, out_features=1000, bias=True)",
        ")",
    ]
    assert "      (downsample): Sequential(" in lines


def test_convolutions_begin_with_the_variance_that_relu_keeps() -> None:
    model = models.resnet18(generator=cr.Generator(1))
    weight = model.get_parameter("layer3.0.conv1.weight").detach().numpy()  # (256, 128, 3, 3)
    assert weight.std() == pytest.approx(np.sqrt(2 / (256 * 9)), rel=0.01)
    assert np.abs(model.fc.weight.detach().numpy()).max() <= 1 / np.sqrt(512)


@pytest.mark.parametrize(("name", "last"), [("resnet18", "bn2"), ("resnet50", "bn3")])
def test_blocks_can_begin_as_the_identity(name: str, last: str) -> None:
    model = models.build(name, {"zero_init_residual": True})
    for path, parameter in model.named_parameters():
        if path.startswith("layer") and "downsample" not in path and ".bn" in path and path.endswith("weight"):
            assert set(parameter.tolist()) == {0.0 if f".{last}." in path else 1.0}


def test_dilation_takes_the_place_of_stride() -> None:
    for dilate, size in ((None, 2), ((False, True, True), 8)):
        model = models.ResNet(models.Bottleneck, [1, 1, 1, 2], 2, replace_stride_with_dilation=dilate)
        shapes: list[tuple[int, ...]] = []
        model.layer4.register_forward_hook(lambda module, args, output, shapes=shapes: shapes.append(output.shape))
        with cr.no_grad():
            model(cr.zeros(1, 3, 64, 64))
        assert shapes == [(1, 2048, size, size)]
    assert model.layer4[1].conv2.dilation == (4, 4)


def test_classes_are_torchvisions() -> None:
    network = models.ResNet(models.BasicBlock, [1, 1, 1, 1], num_classes=3, norm_layer=lambda n: nn.BatchNorm2d(n, 0.1))
    assert network(cr.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert network.layer4[0].bn2.eps == 0.1
    with pytest.raises(cr.ConfigError, match="BasicBlock only supports groups=1 and base_width=64"):
        models.BasicBlock(64, 64, groups=2)
    with pytest.raises(cr.UnsupportedError, match="Dilation > 1 not supported in BasicBlock"):
        models.BasicBlock(64, 64, dilation=2)
    with pytest.raises(cr.ConfigError, match="None or a 3-element tuple"):
        models.ResNet(models.Bottleneck, [1, 1, 1, 1], replace_stride_with_dilation=(True,))
    with pytest.raises(cr.ConfigError, match="non-empty or a 4-element list"):
        models.MobileNetV2(inverted_residual_setting=[[1, 16, 1]])


# ---- Frozen ----


def nodes_of(loss: cr.Tensor) -> list[str]:
    """The names of the nodes that a backward of the loss visits."""
    pending, seen, names = [loss.grad_fn], set(), []
    while pending:
        node = pending.pop()
        if node is not None and id(node) not in seen:
            seen.add(id(node))
            names.append(node.name())
            pending.extend(following for following, _ in node.next_functions)
    return sorted(names)


def test_a_frozen_backbone_records_nothing_below_its_new_head() -> None:
    model: Any = models.resnet18(generator=cr.Generator(0))
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.fc = nn.Linear(512, 10)
    frozen = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    optimizer = optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)

    model.eval()
    loss = F.cross_entropy(model(cr.rand(2, 3, 64, 64)), cr.tensor([3, 7]))
    assert nodes_of(loss) == [
        "AccumulateGrad",
        "AccumulateGrad",
        "AddmmBackward0",
        "LogSoftmaxBackward0",
        "NllLossBackward0",
    ]
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["fc.weight", "fc.bias"]
    optimizer.step()
    changed = [name for name, value in model.state_dict().items() if not np.array_equal(value.numpy(), frozen[name])]
    assert changed == ["fc.weight", "fc.bias"]


def test_what_lies_above_the_first_unfrozen_parameter_is_recorded() -> None:
    model: Any = models.resnet18(num_classes=10).requires_grad_(False)
    model.layer4[1].bn2.weight.requires_grad = True
    loss = model(cr.rand(2, 3, 64, 64)).sum()
    names = nodes_of(loss)
    assert names.count("AccumulateGrad") == 1
    assert not [name for name in names if "Convolution" in name or "MaxPool" in name]
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["layer4.1.bn2.weight"]
