"""Losses are PyTorch's: values, gradients, nodes, reductions, weights, warnings, layers and errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.autograd import gradcheck, gradgradcheck
from chainrule.engine.dtypes import Array
from chainrule.engine.nn import functional as F
from tests.engine.nn.compared import close, draws, layouts, same
from tests.engine.nn.twins import same_error

Call = Callable[..., Any]

by_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
by_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def unit(*shapes: tuple[int, ...], dtype: str = "float32") -> list[Array]:
    rng = np.random.default_rng(1)
    return [np.asarray(rng.uniform(0.1, 0.9, shape)).astype(dtype) for shape in shapes]


def signs(*shape: int) -> Array:
    return np.random.default_rng(2).choice([-1, 1], shape)


# ---- Of classes ----

CLASSES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((4,), ()),
    ((3, 4), (3,)),
    ((0, 4), (0,)),
    ((2, 4, 3), (2, 3)),
    ((2, 4, 3, 2), (2, 3, 2)),
    ((2, 4, 3, 1, 2), (2, 3, 1, 2)),
]


@pytest.mark.torch
@by_reduction
@by_dtype
@pytest.mark.parametrize(("shape", "targets"), CLASSES, ids=str)
@pytest.mark.parametrize("settings", [{}, {"ignore_index": 1}, {"label_smoothing": 0.1}, {"weight": [1, 0.5, 2, 3]}])
def test_cross_entropy_is_pytorchs(
    shape: tuple[int, ...],
    targets: tuple[int, ...],
    settings: dict[str, Any],
    reduction: str,
    dtype: str,
    torch: Any,
) -> None:
    (x,) = draws(shape, dtype=dtype)
    target = np.asarray(np.random.default_rng(3).integers(0, 4, targets))

    def call(m: Any, x: Any, target: Any) -> Any:
        chosen = {k: m.tensor(v, dtype=x.dtype) if k == "weight" else v for k, v in settings.items()}
        return m.nn.functional.cross_entropy(x, target, reduction=reduction, **chosen)

    for array in layouts(x).values():
        same(torch, call, [array, target], node=not settings and len(shape) == 2)


@pytest.mark.torch
@by_reduction
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 4, 3)], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_of_probabilities_is_pytorchs(
    shape: tuple[int, ...], smoothing: float, weighted: bool, reduction: str, torch: Any
) -> None:
    def call(m: Any, x: Any, target: Any, *weight: Any) -> Any:
        return m.nn.functional.cross_entropy(x, target, *weight, reduction=reduction, label_smoothing=smoothing)

    same(torch, call, [*draws(shape), *unit(shape, (4,))[: 1 + weighted]], node=False)


@pytest.mark.torch
@by_reduction
def test_smoothing_with_weights_and_ignored_targets_is_pytorchs(reduction: str, torch: Any) -> None:
    def call(m: Any, x: Any, target: Any) -> Any:
        weight = m.tensor([1.0, 0.5, 2.0, 3.0])
        return m.nn.functional.cross_entropy(
            x, target, weight, ignore_index=-1, reduction=reduction, label_smoothing=0.3
        )

    same(torch, call, [*draws((3, 4, 2)), np.array([[0, -1], [3, 2], [-1, -1]])], node=False)


@pytest.mark.torch
@by_reduction
def test_where_every_target_is_ignored_pytorch_agrees(reduction: str, torch: Any) -> None:
    call = lambda m, x, t: m.nn.functional.cross_entropy(x, t, ignore_index=2, reduction=reduction)
    same(torch, call, [*draws((3, 4)), np.full(3, 2)])


@pytest.mark.torch
@by_reduction
def test_nll_loss_is_pytorchs(reduction: str, torch: Any) -> None:
    call = lambda m, x, t: m.nn.functional.nll_loss(x, t, m.tensor([1.0, 2.0, 0.0]), reduction=reduction)
    same(torch, call, [*draws((4, 3)), np.array([0, 1, 2, 2])])
    same(torch, call, [*draws((2, 3, 2)), np.array([[0, 1], [2, 2]])], node=False)


def test_a_single_example_has_a_loss() -> None:
    x = cr.tensor([0.0, 0.0])
    assert F.cross_entropy(x, cr.tensor(1)).item() == pytest.approx(np.log(2))


def test_int32_targets_are_taken() -> None:
    x = cr.tensor(draws((3, 4))[0])
    target = np.array([0, 3, 1])
    assert cr.equal(F.cross_entropy(x, cr.tensor(target.astype(np.int32))), F.cross_entropy(x, cr.tensor(target)))


# ---- Of differences ----

DIFFERENCES: dict[str, Call] = {
    "mse_loss": lambda f, x, t, **k: f.mse_loss(x, t, **k),
    "l1_loss": lambda f, x, t, **k: f.l1_loss(x, t, **k),
    "smooth_l1_loss": lambda f, x, t, **k: f.smooth_l1_loss(x, t, **k),
    "smooth_l1_loss-beta": lambda f, x, t, **k: f.smooth_l1_loss(x, t, beta=0.5, **k),
    "smooth_l1_loss-0": lambda f, x, t, **k: f.smooth_l1_loss(x, t, beta=0.0, **k),
    "huber_loss": lambda f, x, t, **k: f.huber_loss(x, t, **k),
    "huber_loss-delta": lambda f, x, t, **k: f.huber_loss(x, t, delta=0.5, **k),
}


@pytest.mark.torch
@by_reduction
@by_dtype
@pytest.mark.parametrize("name", DIFFERENCES)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 4)], ids=str)
def test_differences_are_pytorchs(name: str, shape: tuple[int, ...], reduction: str, dtype: str, torch: Any) -> None:
    call = lambda m, x, t: DIFFERENCES[name](m.nn.functional, x, t, reduction=reduction)
    x, t = draws(shape, shape, dtype=dtype)
    for array in layouts(np.asarray(2 * x)).values():
        same(torch, call, [array, t])


@pytest.mark.torch
@by_reduction
@pytest.mark.parametrize("name", DIFFERENCES)
def test_differences_of_different_shapes_warn_and_broadcast(name: str, reduction: str, torch: Any) -> None:
    call = lambda m, x, t: DIFFERENCES[name](m.nn.functional, x, t, reduction=reduction)
    with pytest.warns(UserWarning, match="Using a target size"):
        same(torch, call, draws((3, 1), (4,)))
    with pytest.warns(UserWarning, match=r"Using a target size \(\(4,\)\) that is different to the input size") as seen:
        getattr(F, name.partition("-")[0])(cr.ones(3, 4), cr.ones(4))
    assert seen[0].filename == __file__


@pytest.mark.torch
@by_reduction
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss"])
def test_weighted_differences_are_pytorchs(name: str, reduction: str, torch: Any) -> None:
    call = lambda m, x, t, w: getattr(m.nn.functional, name)(x, t, weight=w, reduction=reduction)
    same(torch, call, [*draws((3, 4), (3, 4)), *unit((3, 4))], node=False)


@pytest.mark.torch
@pytest.mark.parametrize("name", [name for name in DIFFERENCES if "huber" not in name])
def test_differences_promote_as_pytorch_does(name: str, torch: Any) -> None:
    call = lambda m, x, t: DIFFERENCES[name](m.nn.functional, x, t)
    same(torch, call, [draws((3, 2))[0], np.arange(6).reshape(3, 2)])
    same(torch, call, [draws((3, 2))[0], draws((3, 2), dtype="float64")[0]])


@pytest.mark.torch
def test_huber_loss_has_the_dtype_of_its_input_as_pytorchs(torch: Any) -> None:
    for x, t in [("float32", "float64"), ("float64", "float32")]:
        a, b = draws((3,), dtype=x)[0], draws((3,), dtype=t)[0]
        y = F.huber_loss(cr.tensor(a), cr.tensor(b))
        close(y, torch.nn.functional.huber_loss(torch.tensor(a), torch.tensor(b)))


# ---- Of probabilities ----


@pytest.mark.torch
@by_reduction
@by_dtype
@pytest.mark.parametrize("shape", [(), (0,), (3, 4)], ids=str)
def test_binary_cross_entropy_is_pytorchs(shape: tuple[int, ...], reduction: str, dtype: str, torch: Any) -> None:
    call = lambda m, x, t: m.nn.functional.binary_cross_entropy(x, t, reduction=reduction)
    x, t = unit(shape, shape, dtype=dtype)
    for array in layouts(x).values():
        same(torch, call, [array, t])


@pytest.mark.torch
def test_binary_cross_entropy_at_0_and_1_is_pytorchs(torch: Any) -> None:
    def call(m: Any, x: Any, t: Any) -> Any:
        return m.nn.functional.binary_cross_entropy(x, t.detach(), reduction="none")

    same(torch, call, [np.array([0, 0, 1, 1, 0.5], np.float32), np.array([0, 1, 0, 1, 1], np.float32)])


@pytest.mark.torch
@by_reduction
@by_dtype
@pytest.mark.parametrize("weights", [(), ("weight",), ("pos_weight",), ("weight", "pos_weight")], ids=str)
def test_binary_cross_entropy_with_logits_is_pytorchs(
    weights: tuple[str, ...], reduction: str, dtype: str, torch: Any
) -> None:
    def call(m: Any, x: Any, t: Any) -> Any:
        chosen = {name: m.tensor([0.5, 1.0, 3.0, 2.0], dtype=x.dtype) for name in weights}
        return m.nn.functional.binary_cross_entropy_with_logits(x, t, reduction=reduction, **chosen)

    same(torch, call, [5 * draws((3, 4), dtype=dtype)[0], *unit((3, 4), dtype=dtype)])
    same(torch, call, [*draws((0, 4), dtype=dtype), *unit((0, 4), dtype=dtype)])


@pytest.mark.torch
@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.filterwarnings("ignore:reduction")
def test_kl_div_is_pytorchs(reduction: str, log_target: bool, torch: Any) -> None:
    call = lambda m, x, t: m.nn.functional.kl_div(x, t, reduction=reduction, log_target=log_target)
    same(torch, call, [*draws((3, 4)), *unit((3, 4))])
    same(torch, call, [*draws((2, 3)), *unit((3,))])


@pytest.mark.torch
def test_kl_div_of_no_probability_is_pytorchs(torch: Any) -> None:
    call = lambda m, x, t: m.nn.functional.kl_div(x, t.detach(), reduction="none")
    same(torch, call, [*draws((3,)), np.array([0, 0.5, 0], np.float32)])


@pytest.mark.torch
def test_the_mean_of_kl_div_warns_as_pytorchs_does(torch: Any) -> None:
    with pytest.warns(UserWarning, match="'batchmean' divides only by the batch size") as ours:
        F.kl_div(cr.zeros(2), cr.ones(2))
    with warnings.catch_warnings(record=True) as theirs:
        warnings.simplefilter("always")
        torch.nn.functional.kl_div(torch.zeros(2), torch.ones(2))
    assert str(ours[0].message) == str(theirs[0].message)


@pytest.mark.torch
@by_reduction
@pytest.mark.parametrize("log_input", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_poisson_nll_loss_is_pytorchs(log_input: bool, full: bool, reduction: str, torch: Any) -> None:
    def call(m: Any, x: Any, t: Any) -> Any:
        return m.nn.functional.poisson_nll_loss(x, t.detach(), log_input, full, reduction=reduction)

    same(torch, call, [*unit((3, 4)), np.arange(12, dtype=np.float32).reshape(3, 4)], node=False)


@pytest.mark.torch
@by_reduction
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (3, 1), (3,)], ids=str)
def test_gaussian_nll_loss_is_pytorchs(shape: tuple[int, ...], full: bool, reduction: str, torch: Any) -> None:
    def call(m: Any, x: Any, t: Any, v: Any) -> Any:
        return m.nn.functional.gaussian_nll_loss(x, t, v, full=full, eps=0.3, reduction=reduction)

    same(torch, call, [*draws((3, 4), (3, 4)), *unit(shape)], node=False)


@pytest.mark.torch
def test_gaussian_nll_loss_of_one_variance_is_pytorchs(torch: Any) -> None:
    same(torch, lambda m, x, t: m.nn.functional.gaussian_nll_loss(x, t, 0.5), draws((3, 4), (3, 4)))


# ---- Of pairs and triples ----


@pytest.mark.torch
@by_reduction
@by_dtype
@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
def test_cosine_embedding_loss_is_pytorchs(shape: tuple[int, ...], reduction: str, dtype: str, torch: Any) -> None:
    call = lambda m, a, b, t: m.nn.functional.cosine_embedding_loss(a, b, t, -0.2, reduction=reduction)
    same(torch, call, [*draws((*shape, 4), (*shape, 4), dtype=dtype), signs(*shape)])


@pytest.mark.torch
@by_reduction
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4)], ids=str)
def test_margin_losses_are_pytorchs(shape: tuple[int, ...], reduction: str, torch: Any) -> None:
    a, b = draws(shape, shape)
    t = signs(*shape)
    ranking = lambda m, a, b, t: m.nn.functional.margin_ranking_loss(a, b, t, 0.3, reduction=reduction)
    hinge = lambda m, a, t: m.nn.functional.hinge_embedding_loss(a, t, 0.7, reduction=reduction)
    node = reduction != "none"  # clamp has another name in PyTorch where it has one limit
    same(torch, ranking, [a, b, t], node=node)
    same(torch, hinge, [a, t])


@pytest.mark.torch
@by_reduction
@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("swap", [False, True])
def test_triplet_margin_loss_is_pytorchs(p: float, swap: bool, reduction: str, torch: Any) -> None:
    def call(m: Any, a: Any, b: Any, c: Any) -> Any:
        return m.nn.functional.triplet_margin_loss(a, b, c, p=p, swap=swap, reduction=reduction)

    same(torch, call, draws((5, 4), (5, 4), (5, 4)), node=reduction != "none")
    same(torch, call, draws((4,), (4,), (4,)), node=reduction != "none")


@pytest.mark.parametrize(
    ("call", "shapes"),
    [
        (lambda x, t: F.l1_loss(x, t), [(3, 2), (3, 2)]),
        (lambda x, t: F.kl_div(x, t.softmax(1), reduction="batchmean"), [(3, 2), (3, 2)]),
        (lambda x, t: F.cross_entropy(x, t.softmax(1), label_smoothing=0.1), [(3, 4), (3, 4)]),
        (lambda a, b: F.cosine_embedding_loss(a, b, cr.tensor([1, -1, 1]), -0.9), [(3, 4), (3, 4)]),
        (lambda a, b, c: F.triplet_margin_loss(a, b, c, margin=5.0), [(3, 4)] * 3),
        (lambda x, t, v: F.gaussian_nll_loss(x, t, v.exp()), [(3, 2)] * 3),
        (lambda x: F.poisson_nll_loss(x, cr.tensor([[0.0, 2.0]]), full=True), [(3, 2)]),
        (lambda a, b: F.cosine_similarity(a, b), [(3, 4), (3, 4)]),
        (lambda a: F.normalize(a, p=3.0), [(3, 4)]),
        (lambda a, b: F.pairwise_distance(a, b), [(3, 4), (3, 4)]),
    ],
)
def test_composed_losses_have_both_gradients(call: Call, shapes: list[tuple[int, ...]]) -> None:
    xs = [cr.tensor(x, requires_grad=True) for x in draws(*shapes, dtype="float64")]
    assert gradcheck(call, xs)
    assert gradgradcheck(call, xs)


# ---- Layers ----

LAYERS: dict[str, tuple[Call, Call]] = {
    "CrossEntropyLoss": (
        lambda m: m.nn.CrossEntropyLoss(m.tensor([1.0, 2.0, 0.5]), ignore_index=1, label_smoothing=0.1),
        lambda rng: [rng.standard_normal((4, 3)), np.array([0, 1, 2, 2])],
    ),
    "NLLLoss": (
        lambda m: m.nn.NLLLoss(m.tensor([1.0, 2.0, 0.5]), reduction="sum"),
        lambda rng: [rng.standard_normal((4, 3)), np.array([0, 1, 2, 2])],
    ),
    "MSELoss": (lambda m: m.nn.MSELoss(), lambda rng: rng.standard_normal((2, 3, 4))),
    "L1Loss": (lambda m: m.nn.L1Loss(reduction="none"), lambda rng: rng.standard_normal((2, 3, 4))),
    "SmoothL1Loss": (lambda m: m.nn.SmoothL1Loss(beta=0.3), lambda rng: rng.standard_normal((2, 3, 4))),
    "HuberLoss": (lambda m: m.nn.HuberLoss(delta=0.3), lambda rng: rng.standard_normal((2, 3, 4))),
    "BCELoss": (lambda m: m.nn.BCELoss(m.tensor([1.0, 2.0, 3.0])), lambda rng: rng.uniform(0.1, 0.9, (2, 4, 3))),
    "BCEWithLogitsLoss": (
        lambda m: m.nn.BCEWithLogitsLoss(m.tensor([2.0]), pos_weight=m.tensor([1.0, 2.0, 3.0])),
        lambda rng: rng.uniform(0.1, 0.9, (2, 4, 3)),
    ),
    "KLDivLoss": (
        lambda m: m.nn.KLDivLoss(reduction="batchmean", log_target=True),
        lambda rng: rng.standard_normal((2, 3, 4)),
    ),
    "PoissonNLLLoss": (lambda m: m.nn.PoissonNLLLoss(False, eps=0.1), lambda rng: rng.uniform(0.1, 0.9, (2, 3, 4))),
    "GaussianNLLLoss": (lambda m: m.nn.GaussianNLLLoss(full=True), lambda rng: rng.uniform(0.1, 0.9, (3, 3, 4))),
    "CosineEmbeddingLoss": (
        lambda m: m.nn.CosineEmbeddingLoss(0.1),
        lambda rng: [*rng.standard_normal((2, 4, 3)), np.array([1, -1, -1, 1])],
    ),
    "MarginRankingLoss": (
        lambda m: m.nn.MarginRankingLoss(0.1),
        lambda rng: [*rng.standard_normal((2, 4)), np.array([1, -1, -1, 1])],
    ),
    "HingeEmbeddingLoss": (
        lambda m: m.nn.HingeEmbeddingLoss(),
        lambda rng: [rng.standard_normal(4), np.array([1, -1, -1, 1])],
    ),
    "TripletMarginLoss": (
        lambda m: m.nn.TripletMarginLoss(0.5, p=1, swap=True, reduction="sum"),
        lambda rng: rng.standard_normal((3, 4, 3)),
    ),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_pytorchs(name: str, torch: Any) -> None:
    make, inputs = LAYERS[name]
    arrays = [np.asarray(x) for x in inputs(np.random.default_rng(0))]
    arrays = [x.astype(np.float32) if x.dtype.kind == "f" else x for x in arrays]
    same(torch, lambda m, *xs: make(m)(*xs), arrays, node=False)
    mine, theirs = make(cr), make(torch)
    assert repr(mine) == repr(theirs)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        close(mine.state_dict()[key], value)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("size_average", "reduce"), [(None, False), (True, None), (False, None), (True, True), (False, True), (True, False)]
)
def test_the_older_arguments_warn_and_mean_the_same(size_average: bool | None, reduce: bool | None, torch: Any) -> None:
    with pytest.warns(UserWarning, match="size_average and reduce args will be deprecated"):
        mine = nn.MSELoss(size_average, reduce)
    with pytest.warns(UserWarning, match="size_average and reduce args will be deprecated"):
        assert mine.reduction == torch.nn.MSELoss(size_average, reduce).reduction
    with pytest.warns(UserWarning, match="size_average and reduce args will be deprecated"):
        y = F.mse_loss(cr.ones(2, 3), cr.zeros(2, 3), size_average, reduce)
    assert y.shape == (() if mine.reduction != "none" else (2, 3))


# ---- Wrong use ----


@pytest.mark.torch
@pytest.mark.parametrize(
    "scenario",
    [
        lambda m: m.nn.functional.cross_entropy(m.ones(2, 3), m.tensor([0])),
        lambda m: m.nn.functional.cross_entropy(m.ones(2, 3), m.tensor([[0, 1], [1, 1]])),
        lambda m: m.nn.functional.cross_entropy(m.ones(2, 3, 4), m.zeros(2, 5).long()),
        lambda m: m.nn.functional.cross_entropy(m.ones(2, 3), m.zeros(2, 3).long()),
        lambda m: m.nn.functional.cross_entropy(m.ones(2, 3), m.ones(2, 3), ignore_index=1),
        lambda m: m.nn.functional.cross_entropy(m.ones(2, 3), m.tensor([0, 1]), label_smoothing=1.5),
        lambda m: m.nn.functional.cross_entropy(m.ones(2, 3), m.tensor([0, 1]), m.ones(2)),
        lambda m: m.nn.functional.cross_entropy(m.ones(2, 3), m.tensor([0, 1]), m.ones(3).double()),
        lambda m: m.nn.functional.cross_entropy(m.ones(2, 3), m.tensor([0, 1]), m.ones(3, requires_grad=True)),
        lambda m: m.nn.functional.cross_entropy(m.ones(()), m.tensor(0)),
        lambda m: m.nn.functional.mse_loss(m.ones(2), m.ones(2), weight=m.ones(3)),
        lambda m: m.nn.functional.l1_loss(m.ones(2), m.ones(2), weight=m.ones(3)),
        lambda m: m.nn.functional.smooth_l1_loss(m.ones(2), m.ones(2), beta=-1.0),
        lambda m: m.nn.functional.huber_loss(m.ones(2), m.ones(2), delta=0.0),
        lambda m: m.nn.functional.binary_cross_entropy(m.ones(2), m.ones(3)),
        lambda m: m.nn.functional.binary_cross_entropy(2 * m.ones(2), m.ones(2)),
        lambda m: m.nn.functional.binary_cross_entropy(m.ones(2), m.ones(2), m.ones(2, requires_grad=True)),
        lambda m: m.nn.functional.binary_cross_entropy_with_logits(m.ones(2), m.ones(3)),
        lambda m: m.nn.functional.binary_cross_entropy_with_logits(
            m.ones(2), m.ones(2), pos_weight=m.ones(2, requires_grad=True)
        ),
        lambda m: m.nn.functional.gaussian_nll_loss(m.ones(2), m.ones(2), -m.ones(2)),
        lambda m: m.nn.functional.gaussian_nll_loss(m.ones(2, 3), m.ones(2, 3), m.ones(3, 2)),
        lambda m: m.nn.functional.cosine_embedding_loss(m.ones(2, 3), m.ones(2, 3), m.ones(2, 2)),
        lambda m: m.nn.functional.cosine_embedding_loss(m.ones(3), m.ones(2, 3), m.ones(2)),
        lambda m: m.nn.functional.margin_ranking_loss(m.ones(2, 3), m.ones(2, 3), m.ones(3)),
        lambda m: m.nn.functional.triplet_margin_loss(m.ones(2, 3), m.ones(2, 3), m.ones(3)),
        lambda m: m.nn.functional.triplet_margin_loss(m.ones(2, 3), m.ones(2, 3), m.ones(2, 3), margin=0),
        lambda m: m.nn.TripletMarginLoss(margin=-1),
    ],
)
def test_wrong_use_is_refused_as_by_pytorch(scenario: Call, torch: Any) -> None:
    same_error(torch, scenario)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.cross_entropy(cr.ones(2, 3), cr.tensor([0, 3])), cr.TargetError, "Target 3 is out of bounds: ex"),
        (lambda: F.cross_entropy(cr.ones(2, 3), cr.tensor([-1, 0])), IndexError, "Target -1 is out of bounds"),
        (lambda: F.cross_entropy(cr.ones(2, 3), cr.ones(2)), cr.DTypeError, "class indices"),
        (lambda: F.cross_entropy(cr.ones(2, 3), cr.tensor([0, 1]), reduction="max"), cr.ConfigError, "mean or sum"),
        (lambda: F.mse_loss(cr.ones(2), cr.ones(3)), cr.ShapeError, "do not broadcast"),
        (lambda: F.mse_loss(cr.arange(2), cr.arange(2)), NotImplementedError, "\"mse_cpu\" not implemented for 'Long'"),
        (lambda: F.binary_cross_entropy(cr.ones(2), cr.ones(2).double()), cr.DTypeError, "Found dtype float64 but exp"),
        (lambda: F.binary_cross_entropy_with_logits(cr.ones(2), cr.arange(2)), cr.DTypeError, "floating dtype"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_wrong_use_is_explained(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
