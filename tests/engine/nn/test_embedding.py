"""Tables are PyTorch's: rows, gradients, padding, norms, bags, one-hot vectors, layers and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.nn import functional as F
from tests.engine.nn.compared import close, draws, same
from tests.engine.nn.twins import same_error

INDEX = np.array([[1, 3, 1], [0, 3, 3]])


# ---- Rows ----


@pytest.mark.torch
@pytest.mark.parametrize("index", [np.array(2), np.array([], np.int64), INDEX[0], INDEX, INDEX.T[..., None]], ids=str)
@pytest.mark.parametrize("settings", [{}, {"padding_idx": 3}, {"padding_idx": -2}, {"scale_grad_by_freq": True}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_embedding_is_pytorchs(index: Any, settings: dict[str, Any], dtype: str, torch: Any) -> None:
    call = lambda m, i, w: m.nn.functional.embedding(i, w, **settings)
    same(torch, call, [np.asarray(index), draws((5, 2), dtype=dtype)[0]])


@pytest.mark.torch
def test_int32_indices_are_taken(torch: Any) -> None:
    same(torch, lambda m, i, w: m.nn.functional.embedding(i, w), [INDEX.astype(np.int32), draws((5, 2))[0]])


@pytest.mark.torch
@pytest.mark.parametrize("norm_type", [1.0, 2.0])
def test_long_rows_that_are_used_are_shortened_in_the_table(norm_type: float, torch: Any) -> None:
    (table,) = draws((5, 4))
    w, t = cr.tensor(3 * table), torch.tensor(3 * table)
    y = F.embedding(cr.tensor(INDEX), w, max_norm=1.5, norm_type=norm_type)
    close(y, torch.nn.functional.embedding(torch.tensor(INDEX), t, max_norm=1.5, norm_type=norm_type))
    close(w, t)
    np.testing.assert_array_equal(w.numpy()[[2, 4]], 3 * table[[2, 4]])


def test_rows_used_twice_receive_their_gradients_in_one_order() -> None:
    rng = np.random.default_rng(0)
    index, g = rng.integers(0, 7, 1000), rng.standard_normal((1000, 3)).astype(np.float32)
    w = cr.zeros(7, 3, requires_grad=True)
    F.embedding(cr.tensor(index), w).backward(cr.tensor(g))
    expected = np.stack([np.add.reduceat(g[index == row], [0])[0] for row in range(7)])
    assert w.grad is not None
    np.testing.assert_array_equal(w.grad.numpy(), expected)


def test_padding_has_no_gradient_of_any_order() -> None:
    w = cr.tensor(draws((5, 2))[0], requires_grad=True)
    y = F.embedding(cr.tensor(INDEX), w, padding_idx=3) ** 3
    (g,) = cr.autograd.grad(y.sum(), w, create_graph=True)
    assert g is not None
    (gg,) = cr.autograd.grad(g.sum(), w)
    assert gg is not None
    for value in (g.detach().numpy(), gg.numpy()):
        assert (value[3] == 0).all()
        assert (value[[0, 1]] != 0).all()


# ---- Bags ----


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("settings", [{}, {"padding_idx": 3}, {"include_last_offset": True}])
def test_embedding_bag_is_pytorchs(mode: str, settings: dict[str, Any], torch: Any) -> None:
    def call(m: Any, i: Any, offsets: Any, w: Any) -> Any:
        return m.nn.functional.embedding_bag(i, w, offsets, mode=mode, **settings)

    same(torch, call, [INDEX.reshape(-1), np.array([0, 2, 2, 6]), draws((5, 2))[0]], node=False)
    rows = lambda m, i, w: m.nn.functional.embedding_bag(i, w, mode=mode, padding_idx=settings.get("padding_idx"))
    same(torch, rows, [INDEX, draws((5, 2))[0]], node=False)


@pytest.mark.torch
def test_weighted_bags_are_pytorchs(torch: Any) -> None:
    def call(m: Any, i: Any, w: Any, weights: Any) -> Any:
        return m.nn.functional.embedding_bag(i, w, mode="sum", per_sample_weights=weights)

    same(torch, call, [INDEX, *draws((5, 2), (2, 3))], node=False)


# ---- One-hot ----


@pytest.mark.torch
@pytest.mark.parametrize(("values", "classes"), [(2, -1), ([0, 3], -1), ([[1, 0]], 5), (INDEX, 4)], ids=str)
def test_one_hot_is_pytorchs(values: Any, classes: int, torch: Any) -> None:
    y = F.one_hot(cr.tensor(np.asarray(values)), classes)
    close(y, torch.nn.functional.one_hot(torch.tensor(np.asarray(values)), classes), "torch.int64")
    assert F.one_hot(cr.zeros(0, dtype=cr.int64), 3).shape == (0, 3)


# ---- Layers ----


@pytest.mark.torch
@pytest.mark.parametrize(
    "make",
    [
        lambda m: m.nn.Embedding(5, 2),
        lambda m: m.nn.Embedding(5, 2, padding_idx=-1),
        lambda m: m.nn.Embedding(5, 2, max_norm=1.0, norm_type=1.0, scale_grad_by_freq=True),
        lambda m: m.nn.Embedding.from_pretrained(m.ones(5, 2)),
        lambda m: m.nn.Embedding.from_pretrained(m.ones(5, 2), freeze=False, padding_idx=1),
        lambda m: m.nn.EmbeddingBag(5, 2),
        lambda m: m.nn.EmbeddingBag(5, 2, mode="sum", padding_idx=1, max_norm=2.0),
        lambda m: m.nn.EmbeddingBag.from_pretrained(m.ones(5, 2), mode="sum"),
    ],
    ids=lambda make: repr(make(cr)),
)
def test_layer_is_pytorchs(make: Callable[[Any], Any], torch: Any) -> None:
    mine, theirs = make(cr), make(torch)
    assert repr(mine) == repr(theirs)
    mine.load_state_dict({name: value.numpy().copy() for name, value in theirs.state_dict().items()})
    y, expected = mine(cr.tensor(INDEX)), theirs(torch.tensor(INDEX))
    close(y, expected)
    assert mine.weight.requires_grad == theirs.weight.requires_grad
    if theirs.weight.requires_grad:
        y.sum().backward()
        expected.sum().backward()
        close(mine.weight.grad, theirs.weight.grad)


def test_a_table_begins_normal_and_its_padding_zero() -> None:
    with cr.random.using(cr.Generator(0)):
        layer = nn.Embedding(2000, 10, padding_idx=7)
    values = layer.weight.detach().numpy()
    assert (values[7] == 0).all()
    assert abs(values.mean()) < 0.03
    assert abs(values.std() - 1) < 0.03


def test_a_pretrained_table_is_shared() -> None:
    table = cr.ones(3, 2)
    assert nn.Embedding.from_pretrained(table).weight.data is table.data


# ---- Wrong use ----


@pytest.mark.torch
@pytest.mark.parametrize(
    "scenario",
    [
        lambda m: m.nn.functional.embedding(m.tensor([1]), m.ones(3)),
        lambda m: m.nn.functional.embedding(m.tensor([1]), m.ones(3, 2), padding_idx=3),
        lambda m: m.nn.functional.one_hot(m.ones(2)),
        lambda m: m.nn.functional.one_hot(m.tensor([-1])),
        lambda m: m.nn.functional.one_hot(m.tensor([4]), 3),
        lambda m: m.nn.functional.one_hot(m.ones(0).long()),
        lambda m: m.nn.functional.embedding_bag(m.tensor([1]), m.ones(3, 2)),
        lambda m: m.nn.functional.embedding_bag(m.tensor(1), m.ones(3, 2)),
        lambda m: m.nn.functional.embedding_bag(m.tensor([1]), m.ones(3, 2), m.tensor([0]), mode="median"),
        lambda m: m.nn.Embedding(3, 2, padding_idx=3),
        lambda m: m.nn.Embedding(3, 2, _weight=m.ones(2, 2)),
        lambda m: m.nn.Embedding.from_pretrained(m.ones(3)),
    ],
)
def test_wrong_use_is_refused_as_by_pytorch(scenario: Callable[[Any], Any], torch: Any) -> None:
    same_error(torch, scenario)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.embedding(cr.tensor([1, 5]), cr.ones(3, 2)), IndexError, "index out of range in self: 5 is none of"),
        (lambda: F.embedding(cr.tensor([-1]), cr.ones(3, 2)), IndexError, "index out of range in self"),
        (lambda: F.embedding(cr.ones(1), cr.ones(3, 2)), cr.DTypeError, "scalar types: Long, Int; but got Float"),
        (lambda: F.embedding(cr.tensor([0]), cr.ones(3, 2), sparse=True), cr.UnsupportedError, "leave sparse=False"),
        (lambda: F.embedding_bag(cr.tensor([[0]]), cr.ones(3, 2), mode="max"), cr.UnsupportedError, "mode='max'"),
        (
            lambda: F.embedding_bag(cr.tensor([0]), cr.ones(3, 2), cr.tensor([1])),
            cr.ShapeError,
            "offsets has to begin with 0",
        ),
    ],
)
def test_wrong_use_is_explained(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
