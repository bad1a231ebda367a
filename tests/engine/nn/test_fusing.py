"""Layers that are computed at once give what they give one by one: results, gradients, statistics, errors and hooks."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import kernels, nn
from chainrule.engine.dtypes import Array
from chainrule.engine.nn import functional as F
from chainrule.engine.nn.functional.convolution import conv2d_affine
from chainrule.engine.nn.module import Module

TOLERANCE = 1e-5
"""Of float32, where roundings are in another order: scale and shift are multiplied out, the gradient masked inside."""


def block(**settings: Any) -> nn.Sequential:
    """Convolution, normalisation with weights that are not 1 and 0, and relu."""
    cr.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16, **settings), nn.ReLU())
    norm = model[1]
    for parameter, centre in ((norm.weight, 1.0), (norm.bias, 0.0)):
        if parameter is not None:
            nn.init.uniform_(parameter, centre - 0.5, centre + 0.5)
    return model


def images(seed: int = 1, *, requires_grad: bool = False) -> cr.Tensor:
    return cr.randn(4, 3, 6, 5, generator=cr.Generator(seed)).requires_grad_(requires_grad)


def one_by_one(model: nn.Sequential, x: Any) -> Any:
    """Each layer called on its own."""
    for layer in model:
        x = layer(x)
    return x


def trained(steps: int = 3) -> nn.Sequential:
    """A block whose running statistics have moved, in evaluation."""
    model = block()
    for seed in range(steps):
        model(images(seed) * 2 + 1)
    return model.eval()


def parameters_and_buffers(model: Module) -> dict[str, Array]:
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


def gradients(model: nn.Sequential, call: Callable[[nn.Sequential, Any], Any], x: cr.Tensor) -> list[Array]:
    """Of x and the parameters, for a gradient of all kinds of numbers."""
    y = call(model, x)
    y.backward(cr.randn(*y.shape, generator=cr.Generator(9)).to(y.dtype))
    found = [v.grad for v in (x, *model.parameters()) if v.requires_grad]
    assert all(g is not None for g in found)
    return [g.float().numpy() for g in found if g is not None]


def near(x: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(x, expected, rtol=0, atol=tolerance * scale)


class Counted:
    """A function, and how often it was called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.function(*args, **kwargs)


@pytest.fixture
def rectified(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Counts how often normalisation and relu are computed at once."""
    counted = Counted(kernels.batch_norm_relu)
    monkeypatch.setattr(kernels, "batch_norm_relu", counted)
    return counted


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Counts how often convolution and normalisation are computed at once."""
    counted = Counted(conv2d_affine)
    monkeypatch.setattr("chainrule.engine.nn.layers.convolution.conv2d_affine", counted)
    return counted


# ---- Normalisation and relu, in training ----

SETTINGS: list[dict[str, Any]] = [
    {},
    {"affine": False},
    {"bias": False},
    {"momentum": None},
    {"track_running_stats": False},
    {"eps": 1e-2, "momentum": 0.3},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_results_gradients_and_statistics_are_those_of_layers_one_by_one(
    settings: dict[str, Any], rectified: Counted
) -> None:
    together, apart = block(**settings), block(**settings)
    for step in range(3):
        x, same = images(step), images(step)
        np.testing.assert_array_equal(together(x).detach().numpy(), one_by_one(apart, same).detach().numpy())
    assert rectified.calls == 3
    states = parameters_and_buffers(together), parameters_and_buffers(apart)
    for name in states[1]:
        np.testing.assert_array_equal(states[0][name], states[1][name], name)
    found = gradients(together, lambda model, x: model(x), images(requires_grad=True))
    for g, expected in zip(found, gradients(apart, one_by_one, images(requires_grad=True)), strict=True):
        near(g, expected)


def test_statistics_move_once() -> None:
    model = block(momentum=0.1)
    x = images()
    h = model[0](x).detach().numpy().astype(np.float64)
    model(x)
    norm = model[1]
    assert norm.num_batches_tracked.item() == 1
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.1 * h.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), 0.9 + 0.1 * h.var((0, 2, 3), ddof=1), rtol=1e-4)


def test_statistics_for_someone_else_are_collected(rectified: Counted) -> None:
    model = block()
    before = parameters_and_buffers(copy.deepcopy(model))
    with nn.collect_batch_statistics(model) as statistics:
        model(images())
    assert rectified.calls == 1
    assert set(statistics) == {"1.running_mean", "1.running_var"}
    for name, value in parameters_and_buffers(model).items():
        np.testing.assert_array_equal(value, before[name], name)


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward"])
def test_hooks_see_each_layer(position: int, kind: str) -> None:
    model, plain = block(), block()
    seen: list[str] = []
    getattr(model[position], f"register_{kind}_hook")(lambda *_: seen.append(kind))
    x = images(requires_grad=True)
    y = model(x)
    y.sum().backward()
    assert seen == [kind]
    np.testing.assert_array_equal(y.detach().numpy(), plain(images()).detach().numpy())


def test_a_hook_sees_what_is_not_yet_rectified() -> None:
    model = block()
    between: list[cr.Tensor] = []
    model[1].register_forward_hook(lambda _module, _args, y: between.append(y))
    y = model(images())
    assert between[0].min().item() < 0
    np.testing.assert_array_equal(y.detach().numpy(), between[0].clamp(0).detach().numpy())


def test_a_hook_that_is_removed_leaves_layers_together_again(rectified: Counted) -> None:
    model = block()
    handle = model[1].register_forward_hook(lambda *_: None)
    model(images())
    assert rectified.calls == 0
    handle.remove()
    model(images())
    assert rectified.calls == 1


class OwnNorm(nn.BatchNorm2d):
    """Twice the normalised."""

    def forward(self, input: cr.Tensor) -> cr.Tensor:
        return super().forward(input) * 2


class OwnReLU(nn.ReLU):
    """One more than relu."""

    def forward(self, input: cr.Tensor) -> cr.Tensor:
        return super().forward(input) + 1


@pytest.mark.parametrize("train", [True, False])
def test_forwards_of_ones_own_are_called(train: bool, rectified: Counted, folded: Counted) -> None:
    x = images()
    for norm, activation in ((OwnNorm(16), nn.ReLU()), (nn.BatchNorm2d(16), OwnReLU()), (OwnNorm(16), OwnReLU())):
        model = block()
        layers = nn.Sequential(model[0], norm, activation).train(train)
        with cr.no_grad():
            h = model[0](x)
            y = layers(x)
            mean, variance = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), unbiased=False, keepdim=True)
            expected = (h - mean) / (variance + 1e-5).sqrt() if train else h / (1 + 1e-5) ** 0.5
            expected = F.relu(expected * (2 if isinstance(norm, OwnNorm) else 1))
            near(y.numpy(), (expected + (1 if isinstance(activation, OwnReLU) else 0)).numpy())
    assert rectified.calls == 0
    assert folded.calls == (0 if train else 1)  # of a plain convolution and normalisation


def sevens(x: cr.Tensor) -> cr.Tensor:
    return x * 0 + 7


def test_a_forward_put_in_place_of_an_instances_own_is_called(rectified: Counted) -> None:
    for position in (1, 2):
        model = block()
        vars(model[position])["forward"] = sevens
        y = model(images())
        assert y.min().item() == y.max().item() == 7
    assert rectified.calls == 0


def test_other_dimensions_are_refused_as_by_the_layer() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    for shape in ((3, 4), (2, 3, 4)):
        with pytest.raises(ValueError, match=rf"expected 4D input \(got {len(shape)}D input\)"):
            model(cr.ones(*shape))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        model(cr.ones(1, 3, 1, 1))


def test_without_parameters_that_learn_the_input_still_gets_its_gradient() -> None:
    found = []
    for call in (lambda model, x: model(x), one_by_one):
        model = block().requires_grad_(False)
        x = images(requires_grad=True)
        found.append(gradients(model, call, x)[0])
    near(found[0], found[1])


def test_a_gradient_goes_back_twice_through_a_retained_graph() -> None:
    x, once = images(requires_grad=True), images(requires_grad=True)
    block()(once).sum().backward()
    y = block()(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad is not None
    assert once.grad is not None
    near(x.grad.numpy(), 2 * once.grad.numpy())


@pytest.mark.parametrize(("dtype", "tolerance"), [(cr.float32, 1e-4), (cr.float64, 1e-12)])
def test_gradients_of_gradients_are_those_of_layers_one_by_one(dtype: Any, tolerance: float) -> None:
    results = []
    for call in (lambda model, x: model(x), one_by_one):
        model = block().to(dtype)
        x = images().to(dtype).requires_grad_()
        y = call(model, x)
        (g,) = cr.autograd.grad((y * y * y).sum(), x, create_graph=True)
        assert g is not None
        assert g.requires_grad
        second = cr.autograd.grad((g * g).sum(), [x, *model.parameters()])
        results.append([g.detach().numpy(), *(v.numpy() for v in second if v is not None)])
    assert len(results[0]) == 6
    for together, apart in zip(*results, strict=True):
        near(together, apart, tolerance)


def test_a_result_that_was_written_to_is_an_error_in_backward() -> None:
    for call in (lambda model, x: model(x), one_by_one):
        y = call(block(), images(requires_grad=True))
        total = y.sum()
        with cr.no_grad():
            y.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            total.backward()


def test_a_result_may_be_written_to_by_what_follows() -> None:
    results = []
    for call in (lambda model, x: model(x), one_by_one):
        x = images(requires_grad=True)
        y = call(block(), x)
        (y * 1).mul_(3).sum().backward()
        assert x.grad is not None
        results.append(x.grad.numpy())
    near(results[0], results[1])


def test_what_it_is_called_is_relu() -> None:
    y = block()(images())
    assert "ReluBackward0" in repr(y.grad_fn)


def test_a_model_is_copied_and_pickled_as_ever() -> None:
    model = block()
    model(images())
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(again, nn.Sequential)
        np.testing.assert_array_equal(
            again(images(2)).detach().numpy(), copy.deepcopy(model)(images(2)).detach().numpy()
        )


@pytest.mark.parametrize("train", [True, False])
def test_autocast_computes_together_what_it_computes_one_by_one(train: bool) -> None:
    results, types = [], []
    for call in (lambda model, x: model(x), one_by_one):
        model, x = trained().train(train), images(requires_grad=True)
        with cr.autocast("cpu"):
            y = call(model, x)
        types.append(y.dtype)
        results.append([y.detach().float().numpy(), *gradients(model, lambda _model, _x, y=y: y, x)])  # type: ignore[misc]
    assert types == [cr.bfloat16, cr.bfloat16]
    for together, apart in zip(*results, strict=True):
        near(together, apart, 2.0**-6)  # each of the layers rounds to 2⁻⁹


# ---- Convolution and normalisation, in evaluation ----


def test_a_folded_convolution_gives_what_both_give(folded: Counted) -> None:
    model = trained()
    assert np.abs(model[1].running_mean.numpy()).max() > 0.1
    with cr.no_grad():
        y, expected = model(images()), one_by_one(model, images())
    assert folded.calls == 1
    near(y.numpy(), expected.numpy())
    assert not y.requires_grad


@pytest.mark.parametrize("settings", [{"groups": 4}, {"stride": 2, "padding": "valid"}, {"padding_mode": "reflect"}])
@pytest.mark.parametrize("bias", [True, False])
def test_any_convolution_is_folded(settings: dict[str, Any], bias: bool, folded: Counted) -> None:
    norm = trained()[1]
    given = {"padding": 1, **settings}
    model = nn.Sequential(nn.Conv2d(8, 16, 3, bias=bias, **given), norm, nn.ReLU()).eval()
    x = cr.randn(2, 8, 6, 5)
    with cr.no_grad():
        near(model(x).numpy(), one_by_one(model, x).numpy())
    assert folded.calls == 1


@pytest.mark.parametrize("settings", [{"affine": False}, {"bias": False}])
def test_without_weights_it_is_folded_too(settings: dict[str, Any], folded: Counted) -> None:
    model = block(**settings)
    model(images() * 2 + 1)
    model.eval()
    with cr.no_grad():
        near(model(images()).numpy(), one_by_one(model, images()).numpy())
    assert folded.calls == 1


def test_where_a_gradient_is_wanted_nothing_is_folded(folded: Counted) -> None:
    for wants in ("parameters", "input"):
        results = []
        for call in (lambda model, x: model(x), one_by_one):
            model = trained()
            x = images(requires_grad=wants == "input")
            model.requires_grad_(wants == "parameters")
            results.append(gradients(model, call, x))
        for together, apart in zip(*results, strict=True):
            near(together, apart)
    assert folded.calls == 0


def test_a_frozen_network_is_folded_where_gradients_are_recorded(folded: Counted) -> None:
    model = trained().requires_grad_(False)
    near(model(images()).numpy(), one_by_one(model, images()).numpy())
    assert folded.calls == 1


def test_what_is_learnt_after_is_in_what_is_folded() -> None:
    model = trained()
    with cr.no_grad():
        first = model(images()).numpy().copy()
        model[1].weight.mul_(2)
        model[1].running_mean.add_(1)
        near(model(images()).numpy(), one_by_one(model, images()).numpy())
        assert np.abs(model(images()).numpy() - first).max() > 0.1


@pytest.mark.parametrize("change", ["training", "no statistics", "double", "hook", "subclass"])
def test_what_is_not_plain_is_not_folded(change: str, folded: Counted) -> None:
    model, x = trained(), images()
    if change == "training":
        model.train()
    elif change == "no statistics":
        model = block(track_running_stats=False).eval()
    elif change == "double":
        model, x = model.double(), x.double()
    elif change == "hook":
        model[0].register_forward_hook(lambda *_: None)
    else:
        norm = OwnNorm(16)
        norm.load_state_dict(model[1].state_dict())
        model = nn.Sequential(model[0], norm, model[2]).eval()
    same = copy.deepcopy(model)
    with cr.no_grad():
        near(model(x).numpy(), one_by_one(same, x).numpy())
    assert folded.calls == 0


def test_an_image_without_a_batch_and_wrong_channels_are_refused_as_by_the_layers() -> None:
    model = trained()
    with cr.no_grad():
        with pytest.raises(ValueError, match=r"expected 4D input \(got 3D input\)"):
            model(images()[0])
        with pytest.raises(RuntimeError, match=r"expected input.* to have 3 channels"):
            model(cr.ones(2, 4, 6, 5))
        with pytest.raises(RuntimeError, match="running_mean should contain 16 elements not 8"):
            nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(8)).eval()(images())


def test_what_is_no_number_comes_out() -> None:
    x = images()
    x[0, 0, 0, 0] = float("nan")
    with cr.no_grad():
        y = trained()(x).numpy()
    assert np.isnan(y[0, :, :2, :2]).all()
    assert np.isfinite(y[1:]).all()


def test_statistics_of_another_dtype_are_refused_as_one_by_one() -> None:
    model, x = trained(), images()
    model[1].running_var = model[1].running_var.double()
    for call in (nn.Sequential.forward, one_by_one):
        with cr.no_grad(), pytest.raises(cr.DTypeError, match=r"mixed dtype|expected scalar type"):
            call(model, x)


@pytest.mark.parametrize("layers", [1, 2], ids=["normalisation", "and-relu"])
def test_a_node_keeps_neither_output_nor_mask_once_it_ran(layers: int) -> None:
    norm, x = block()[1], cr.randn(2, 16, 4, 4, requires_grad=True)
    y = norm(x) if layers == 1 else nn.Sequential(norm, nn.ReLU())(x)
    node, output = y.grad_fn, weakref.ref(y.data)
    loss = y.sum()
    loss.backward()
    del y
    assert node is not None
    assert output() is None
    assert not node.intermediates
