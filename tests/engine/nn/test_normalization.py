"""Normalisation is PyTorch's: every number of dimensions, running statistics, layers and errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.nn import functional as F
from tests.engine.nn.compared import close, draws, layouts, same
from tests.engine.nn.twins import same_error

Call = Callable[..., Any]

by_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
SHAPES = [(6, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2)]


# ---- Functions ----


@pytest.mark.torch
@by_dtype
@pytest.mark.parametrize("shape", [*SHAPES, (1, 3, 4)], ids=str)
@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm_of_a_batch_is_pytorchs(shape: tuple[int, ...], affine: bool, dtype: str, torch: Any) -> None:
    def call(m: Any, x: Any, *parameters: Any) -> Any:
        return m.nn.functional.batch_norm(x, None, None, *parameters, training=True, eps=1e-3)

    x, *parameters = draws(shape, (3,), (3,), dtype=dtype)
    for array in layouts(x).values():
        same(torch, call, [array, *parameters[: 2 * affine]])


@pytest.mark.torch
@by_dtype
@pytest.mark.parametrize("shape", [*SHAPES, (1, 3), (0, 3, 2)], ids=str)
@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm_by_running_statistics_is_pytorchs(
    shape: tuple[int, ...], affine: bool, dtype: str, torch: Any
) -> None:
    def call(m: Any, x: Any, *parameters: Any) -> Any:
        mean, variance = m.tensor([0.5, 0.0, -0.5], dtype=x.dtype), m.tensor([1.0, 0.5, 2.0], dtype=x.dtype)
        return m.nn.functional.batch_norm(x, mean, variance, *parameters)

    x, *parameters = draws(shape, (3,), (3,), dtype=dtype)
    for array in layouts(x).values():
        same(torch, call, [array, *parameters[: 2 * affine]], node=shape[0] > 0)


@pytest.mark.torch
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_running_statistics_are_pytorchs(shape: tuple[int, ...], torch: Any) -> None:
    (x,) = draws(shape)
    results = []
    for m in (cr, torch):
        mean, variance = m.zeros(3), m.ones(3)
        m.nn.functional.batch_norm(m.tensor(x), mean, variance, training=True, momentum=0.3)
        results.append((mean, variance))
    for mine, theirs in zip(*results, strict=True):
        close(mine, theirs)


@pytest.mark.torch
@by_dtype
@pytest.mark.parametrize(("shape", "normalized"), [((5,), (5,)), ((3, 4), (4,)), ((2, 3, 4), (3, 4)), ((0, 4), (4,))])
@pytest.mark.parametrize("parameters", [0, 1, 2])
def test_layer_norm_is_pytorchs(
    shape: tuple[int, ...], normalized: tuple[int, ...], parameters: int, dtype: str, torch: Any
) -> None:
    call = lambda m, x, *p: m.nn.functional.layer_norm(x, normalized, *p)
    x, *rest = draws(shape, normalized, normalized, dtype=dtype)
    for array in layouts(x).values():
        same(torch, call, [array, *rest[:parameters]])


@pytest.mark.torch
@by_dtype
@pytest.mark.parametrize(("shape", "normalized"), [((5,), (5,)), ((3, 4), (4,)), ((2, 3, 4), (3, 4)), ((0, 4), (4,))])
@pytest.mark.parametrize("parameters", [0, 1])
@pytest.mark.parametrize("eps", [None, 0.1])
def test_rms_norm_is_pytorchs(
    shape: tuple[int, ...],
    normalized: tuple[int, ...],
    parameters: int,
    eps: float | None,
    dtype: str,
    torch: Any,
) -> None:
    def call(m: Any, x: Any, weight: Any = None) -> Any:
        return m.nn.functional.rms_norm(x, normalized, weight, eps)

    same(torch, call, draws(shape, normalized, dtype=dtype)[: 1 + parameters], node=False)


@pytest.mark.torch
@by_dtype
@pytest.mark.parametrize("shape", [(3, 6), (2, 6, 4), (2, 6, 3, 2), (0, 6, 2)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("parameters", [0, 1, 2])
def test_group_norm_is_pytorchs(shape: tuple[int, ...], groups: int, parameters: int, dtype: str, torch: Any) -> None:
    def call(m: Any, x: Any, *p: Any) -> Any:
        return m.nn.functional.group_norm(x, groups, *p, eps=1e-3)

    if groups == 6 and len(shape) == 2:
        pytest.skip("a group of one has no variance")
    x, *rest = draws(shape, (6,), (6,), dtype=dtype)
    for array in layouts(x).values():
        same(torch, call, [array, *rest[:parameters]])


@pytest.mark.torch
@by_dtype
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize("affine", [False, True])
def test_instance_norm_is_pytorchs(shape: tuple[int, ...], affine: bool, dtype: str, torch: Any) -> None:
    def call(m: Any, x: Any, *p: Any) -> Any:
        return m.nn.functional.instance_norm(x, None, None, *p)

    same(torch, call, draws(shape, (3,), (3,), dtype=dtype)[: 1 + 2 * affine])


@pytest.mark.torch
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 5, 3, 2)], ids=str)
def test_local_response_norm_is_pytorchs(size: int, shape: tuple[int, ...], torch: Any) -> None:
    call = lambda m, x: m.nn.functional.local_response_norm(x, size, alpha=0.5, beta=0.6, k=2.0)
    same(torch, call, draws(shape))


def test_batch_norm_has_the_same_bits_in_every_shape_of_one_batch() -> None:
    (x,) = draws((4, 3, 6))
    flat = F.batch_norm(cr.tensor(x), None, None, training=True)
    for rest in ((6, 1), (6, 1, 1)):
        y = F.batch_norm(cr.tensor(x.reshape(4, 3, *rest)), None, None, training=True)
        np.testing.assert_array_equal(y.numpy().reshape(4, 3, 6), flat.numpy())


# ---- Layers ----

LAYERS: list[tuple[Call, tuple[int, ...]]] = [
    (lambda m: m.BatchNorm1d(3), (6, 3)),
    (lambda m: m.BatchNorm1d(3, momentum=None), (6, 3, 4)),
    (lambda m: m.BatchNorm1d(3, affine=False), (6, 3)),
    (lambda m: m.BatchNorm1d(3, track_running_stats=False), (6, 3, 4)),
    (lambda m: m.BatchNorm2d(3, 1e-3, 0.3), (4, 3, 2, 5)),
    (lambda m: m.BatchNorm2d(3, bias=False, momentum=None), (4, 3, 2, 5)),
    (lambda m: m.BatchNorm3d(3), (4, 3, 2, 1, 2)),
    (lambda m: m.BatchNorm3d(3, affine=False, track_running_stats=False), (4, 3, 2, 1, 2)),
    (lambda m: m.InstanceNorm1d(3), (4, 3, 5)),
    (lambda m: m.InstanceNorm1d(3, affine=True), (3, 5)),
    (lambda m: m.InstanceNorm2d(3, track_running_stats=True), (4, 3, 5, 2)),
    (lambda m: m.InstanceNorm2d(3, affine=True, track_running_stats=True, momentum=0.3), (3, 5, 2)),
    (lambda m: m.InstanceNorm3d(3, affine=True), (2, 3, 5, 2, 2)),
    (lambda m: m.LayerNorm(4), (3, 4)),
    (lambda m: m.LayerNorm((3, 4), eps=1e-3, bias=False), (2, 3, 4)),
    (lambda m: m.LayerNorm([4], elementwise_affine=False), (3, 4)),
    (lambda m: m.RMSNorm(4), (3, 4)),
    (lambda m: m.RMSNorm((3, 4), eps=0.1, elementwise_affine=False), (3, 4)),
    (lambda m: m.GroupNorm(2, 6), (3, 6, 4)),
    (lambda m: m.GroupNorm(3, 6, affine=False), (3, 6)),
    (lambda m: m.GroupNorm(3, 6, bias=False, eps=0.1), (3, 6, 2)),
    (lambda m: m.LocalResponseNorm(3), (2, 5, 4)),
    (lambda m: m.LocalResponseNorm(2, 0.1, 0.5, 2.0), (2, 5, 4, 2)),
]


@pytest.mark.torch
@pytest.mark.parametrize(("make", "shape"), LAYERS, ids=lambda value: repr(value(nn)) if callable(value) else "")
def test_layer_is_pytorchs(make: Call, shape: tuple[int, ...], torch: Any) -> None:
    mine, theirs = make(nn), make(torch.nn)
    assert repr(mine) == repr(theirs)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    for training in (True, True, False):
        mine.train(training)
        theirs.train(training)
        x, t = cr.tensor(draws(shape)[0], requires_grad=True), torch.tensor(draws(shape)[0], requires_grad=True)
        y, expected = mine(x), theirs(t)
        close(y, expected)
        weight = draws(shape, seed=1)[0]
        (y * cr.tensor(weight)).sum().backward()
        (expected * torch.tensor(weight)).sum().backward()
        close(x.grad, t.grad)
        for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
            close(p.grad, q.grad)
        for name, buffer in theirs.state_dict().items():
            close(mine.state_dict()[name], buffer)


@pytest.mark.parametrize("make", [lambda: nn.BatchNorm1d(3), lambda: nn.InstanceNorm1d(3, track_running_stats=True)])
def test_running_statistics_can_be_forgotten(make: Callable[[], Any]) -> None:
    layer = make()
    fresh = {name: value.clone() for name, value in layer.state_dict().items()}
    layer(cr.tensor(draws((4, 3, 5))[0]))
    assert not cr.equal(layer.running_mean, fresh["running_mean"])
    layer.reset_running_stats()
    for name, value in layer.state_dict().items():
        assert cr.equal(value, fresh[name])


@pytest.mark.parametrize("make", [lambda: nn.LayerNorm(3), lambda: nn.GroupNorm(1, 3), lambda: nn.BatchNorm2d(3)])
def test_parameters_can_be_reset(make: Callable[[], Any]) -> None:
    layer = make()
    with cr.no_grad():
        layer.weight.fill_(5)
        layer.bias.fill_(5)
    layer.reset_parameters()
    assert (layer.weight.tolist(), layer.bias.tolist()) == ([1, 1, 1], [0, 0, 0])


def test_parameters_are_made_in_the_dtype_asked_for() -> None:
    for layer in (nn.LayerNorm(3, dtype=cr.float64), nn.GroupNorm(1, 3, dtype=cr.float64), nn.RMSNorm(3, dtype="f8")):
        assert {p.dtype for p in layer.parameters()} == {cr.float64}
    assert nn.BatchNorm1d(3, dtype=cr.float64).state_dict()["running_mean"].dtype == cr.float64
    with pytest.raises(cr.UnsupportedError, match="computes on the CPU"):
        nn.LayerNorm(3, device="cuda")


@pytest.mark.torch
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32_and_rounded_once(name: str, torch: Any) -> None:
    (x,) = draws((3, 8))
    y = F.layer_norm(cr.tensor(x).to(getattr(cr, name)), (8,))
    expected = torch.nn.functional.layer_norm(torch.tensor(x).to(getattr(torch, name)), (8,))
    assert str(y.dtype) == name
    np.testing.assert_allclose(y.float().numpy(), expected.float().numpy(), rtol=1e-2)


# ---- Wrong use ----


@pytest.mark.torch
@pytest.mark.parametrize(
    "scenario",
    [
        lambda m: m.nn.functional.batch_norm(m.ones(2, 3), None, None),
        lambda m: m.nn.functional.batch_norm(m.ones(2, 3), m.ones(2), m.ones(2)),
        lambda m: m.nn.functional.batch_norm(m.ones(2, 3), None, None, m.ones(4), training=True),
        lambda m: m.nn.functional.batch_norm(m.ones(2, 3), None, None, training=True, eps=0.0),
        lambda m: m.nn.functional.batch_norm(m.ones(2, 3), m.ones(3), m.ones(3), eps=-1.0),
        lambda m: m.nn.functional.instance_norm(m.ones(2, 3, 1)),
        lambda m: m.nn.functional.layer_norm(m.ones(2, 3), (4,)),
        lambda m: m.nn.functional.layer_norm(m.ones(2, 3), ()),
        lambda m: m.nn.functional.layer_norm(m.ones(2, 3), (3,), m.ones(4)),
        lambda m: m.nn.functional.layer_norm(m.ones(2, 3), (3,), None, m.ones(4)),
        lambda m: m.nn.functional.group_norm(m.ones(2, 4), 3),
        lambda m: m.nn.functional.group_norm(m.ones(4), 2),
        lambda m: m.nn.functional.group_norm(m.ones(1, 2), 2),
        lambda m: m.nn.functional.group_norm(m.ones(2, 4), 2, m.ones(3)),
        lambda m: m.nn.BatchNorm1d(3)(m.ones(2, 3, 4, 5)),
        lambda m: m.nn.BatchNorm2d(3)(m.ones(2, 3)),
        lambda m: m.nn.BatchNorm3d(3)(m.ones(2, 3)),
        lambda m: m.nn.BatchNorm1d(3)(m.ones(2, 4)),
        lambda m: m.nn.InstanceNorm1d(3)(m.ones(2)),
        lambda m: m.nn.InstanceNorm2d(3, affine=True)(m.ones(2, 4, 3, 3)),
        lambda m: m.nn.GroupNorm(4, 6),
    ],
)
def test_wrong_use_is_refused_as_by_pytorch(scenario: Call, torch: Any) -> None:
    same_error(torch, scenario)


NAMES_OF_TYPES = ("float32", "float64", "bfloat16", "int64")


def normalized_by(m: Any, name: str, kinds: tuple[str, ...]) -> Any:
    """The function of x and two or four parameters of these dtypes."""
    x = m.ones(2, 3, 4, dtype=getattr(m, kinds[0]))
    parameters = [m.ones(3, dtype=getattr(m, kind)) for kind in kinds[1:]]
    F = m.nn.functional
    if name == "layer_norm":
        return F.layer_norm(x.transpose(1, 2), (3,), *parameters)
    if name == "group_norm":
        return F.group_norm(x, 3, *parameters)
    if name == "instance_norm":
        return F.instance_norm(x, None, None, *parameters)
    w, b, *statistics = parameters
    return F.batch_norm(x, *(statistics or (None, None)), w, b, training=True)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["layer_norm", "group_norm", "instance_norm", "batch_norm"])
def test_parameters_of_another_dtype_are_refused_where_pytorch_does(name: str, torch: Any) -> None:
    grid: list[tuple[str, ...]] = list(product(NAMES_OF_TYPES[:3], NAMES_OF_TYPES, NAMES_OF_TYPES))
    if name == "batch_norm":
        grid += [(x, w, w, mean, variance) for x, w, mean, variance in product(NAMES_OF_TYPES[:3], repeat=4)]
    refused = 0
    for kinds in grid:
        try:
            expected = normalized_by(torch, name, kinds)
        except RuntimeError:
            refused += 1
            same_error(torch, partial(normalized_by, name=name, kinds=kinds))
        else:
            assert str(expected.dtype) == f"torch.{normalized_by(cr, name, kinds).dtype}"
    assert 0 < refused < len(grid)


def test_parameters_of_another_dtype_are_refused() -> None:
    for dtype in (cr.float64, cr.int64):
        w = cr.ones(3, dtype=dtype)
        with pytest.raises(RuntimeError, match="expect parameter to have scalar type of Float"):
            F.layer_norm(cr.ones(2, 3), (3,), w, w)
        with pytest.raises(RuntimeError, match="expect parameter to have scalar type of Float"):
            F.batch_norm(cr.ones(2, 3), None, None, w, w, training=True)
    w = cr.ones(3)
    assert F.layer_norm(cr.ones(2, 3).bfloat16(), (3,), w, w).dtype == cr.bfloat16


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.BatchNorm1d(3)(cr.ones(1, 3)), ValueError, "more than 1 value per channel"),
        (lambda: F.batch_norm(cr.ones(3), None, None, training=True), IndexError, "at least 2 dimensions"),
        (lambda: F.rms_norm(cr.ones(2, 3), (4,)), cr.ShapeError, r"expected input with shape \[\*, 4\]"),
        (lambda: F.local_response_norm(cr.ones(2, 3), 2), ValueError, "Expected 3D or higher dimensionality"),
        (lambda: F.layer_norm(cr.arange(3), (3,)), NotImplementedError, "not implemented for 'Long'"),
        (lambda: nn.BatchNorm2d(0), cr.ConfigError, "at least 1"),
    ],
)
def test_wrong_use_is_explained(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_number_of_features_without_meaning_warns() -> None:
    with pytest.warns(UserWarning, match="does not match num_features"):
        nn.InstanceNorm1d(7)(cr.tensor(draws((2, 3, 4))[0]))
