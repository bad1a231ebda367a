"""Gradients are clipped to PyTorch's values; parameters become a vector and come back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import dtypes, nn
from chainrule.engine.nn import utils

SHAPES = [(3, 4), (5,), (), (2, 1, 3)]


def _with_gradients(dtype: Any = np.float32, scale: float = 3.0) -> list[nn.Parameter]:
    random = np.random.default_rng(0)
    parameters = [nn.Parameter(cr.zeros(*shape)).data for shape in SHAPES]
    made = []
    for array in parameters:
        parameter = nn.Parameter(cr.Tensor(array.astype(dtype)))
        parameter.grad = cr.Tensor((random.standard_normal(array.shape) * scale).astype(dtype))
        made.append(parameter)
    return [*made, nn.Parameter(cr.ones(2))]  # one without a gradient


def _theirs(torch: Any, parameters: list[nn.Parameter]) -> list[Any]:
    made = []
    for parameter in parameters:
        twin = torch.nn.Parameter(torch.tensor(parameter.data))
        twin.grad = None if parameter.grad is None else torch.tensor(parameter.grad.data)
        made.append(twin)
    return made


def _gradients(parameters: list[Any]) -> list[Any]:
    return [np.asarray(parameter.grad) for parameter in parameters if parameter.grad is not None]


@pytest.mark.torch
@pytest.mark.parametrize("norm_type", [2, 1.0, 3.5, 0, math.inf, -math.inf, -1.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_norm", [0.5, 1e4])
def test_clipping_by_norm_gives_pytorchs_gradients(torch: Any, norm_type: float, dtype: Any, max_norm: float) -> None:
    mine = _with_gradients(dtype)
    theirs = _theirs(torch, mine)
    norm = utils.clip_grad_norm_(mine, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    assert norm.dtype == dtype
    assert norm.shape == ()
    assert norm.item() == pytest.approx(expected.item(), rel=tolerance)
    for ours, wanted in zip(_gradients(mine), _gradients(theirs), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=2 * tolerance)
    assert mine[-1].grad is None


@pytest.mark.torch
def test_the_norm_of_small_floats_is_added_up_in_float32(torch: Any) -> None:
    x = np.full(1000, 20.0, np.float16)
    norm = utils.get_total_norm([cr.Tensor(x)])
    assert norm.dtype == dtypes.float16
    assert norm.item() == torch.nn.utils.get_total_norm([torch.tensor(x)]).item()


def test_gradients_that_are_short_enough_keep_their_bits() -> None:
    parameters = _with_gradients()
    before = [gradient.copy() for gradient in _gradients(parameters)]
    utils.clip_grad_norm_(parameters, 1e6)
    assert all(np.array_equal(a, b) for a, b in zip(before, _gradients(parameters), strict=True))


@pytest.mark.torch
def test_clipping_with_a_given_norm_is_pytorchs(torch: Any) -> None:
    mine = _with_gradients()
    theirs = _theirs(torch, mine)
    utils.clip_grads_with_norm_(mine, 1.0, cr.tensor(8.0))
    torch.nn.utils.clip_grads_with_norm_(theirs, 1.0, torch.tensor(8.0))
    for ours, wanted in zip(_gradients(mine), _gradients(theirs), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-6)


@pytest.mark.torch
def test_clipping_by_value_gives_pytorchs_bits(torch: Any) -> None:
    mine = _with_gradients()
    theirs = _theirs(torch, mine)
    utils.clip_grad_value_(mine, 1.25)
    torch.nn.utils.clip_grad_value_(theirs, 1.25)
    for ours, wanted in zip(_gradients(mine), _gradients(theirs), strict=True):
        assert np.array_equal(ours, wanted)
        assert np.abs(ours).max() <= 1.25


@pytest.mark.torch
def test_a_norm_that_is_not_finite_is_refused_on_request_in_pytorchs_words(torch: Any) -> None:
    parameter = nn.Parameter(cr.ones(2))
    parameter.grad = cr.tensor([math.nan, 1.0])
    with pytest.raises(cr.AutogradError) as mine:
        utils.clip_grad_norm_(parameter, 1.0, error_if_nonfinite=True)
    with pytest.raises(RuntimeError) as theirs:
        torch.nn.utils.clip_grad_norm_(_theirs(torch, [parameter]), 1.0, error_if_nonfinite=True)
    assert str(mine.value) == str(theirs.value)
    assert parameter.grad.tolist()[1] == 1.0
    assert math.isnan(utils.clip_grad_norm_(parameter, 1.0).item())


@pytest.mark.torch
def test_no_gradients_have_norm_0(torch: Any) -> None:
    assert utils.clip_grad_norm_([nn.Parameter(cr.ones(1))], 1.0).item() == 0.0
    assert utils.get_total_norm([]).item() == torch.nn.utils.get_total_norm([]).item() == 0.0


def test_one_parameter_and_a_generator_of_them_are_taken() -> None:
    layer: Any = nn.Linear(2, 2)
    layer(cr.ones(1, 2)).sum().backward()
    assert utils.clip_grad_norm_(layer.parameters(), 1.0).item() == pytest.approx(math.sqrt(6))
    assert utils.get_total_norm(layer.weight.grad).item() < 1.0
    total = utils.get_total_norm([p.grad for p in layer.parameters()])
    assert total.item() == pytest.approx(1.0, rel=1e-5)


def test_parameters_become_a_vector_and_come_back() -> None:
    layer: Any = nn.Linear(2, 3)
    vector = utils.parameters_to_vector(layer.parameters())
    assert vector.shape == (9,)
    assert vector.tolist() == [*layer.weight.reshape(-1).tolist(), *layer.bias.tolist()]
    (vector * vector).sum().backward()
    assert np.array_equal(layer.bias.grad.numpy(), 2 * layer.bias.detach().numpy())
    weight = layer.weight
    utils.vector_to_parameters(cr.arange(9, dtype=cr.float32), layer.parameters())
    assert layer.weight is weight
    assert weight.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert layer.bias.tolist() == [6.0, 7.0, 8.0]
    assert weight.is_leaf


def test_a_vector_that_does_not_fit_writes_nothing() -> None:
    layer = nn.Linear(2, 3)
    before = layer.weight.tolist()
    with pytest.raises(cr.ShapeError, match="the vector has 10 elements, the parameters 9"):
        utils.vector_to_parameters(cr.zeros(10), layer.parameters())
    assert layer.weight.tolist() == before
    with pytest.raises(cr.DTypeError, match="expected Tensor, but got: list"):
        utils.vector_to_parameters([0.0] * 9, layer.parameters())  # type: ignore[arg-type]
