"""A leaf's gradient is put where the leaf says, with the bits that it has elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import kernels, models, nn
from chainrule.engine.nn import functional as F


def leaf(*shape: int, seed: int = 0, dtype: Any = np.float32) -> cr.Tensor:
    return cr.Tensor(np.random.default_rng(seed).standard_normal(shape, np.float32).astype(dtype), requires_grad=True)


def placed(x: cr.Tensor) -> Any:
    """Memory for the gradient of x, which holds something else so far."""
    x.grad_memory = np.full(x.shape, 7, x.dtype)
    return x.grad_memory


def gradient(x: cr.Tensor) -> Any:
    assert x.grad is not None
    return x.grad.data


class Tied(nn.Module):
    """A weight that is looked up in, used twice in a row, and used beside a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(24, 24)
        self.bias = nn.Parameter(cr.ones(24))

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        h = F.linear(self.table(x), self.table.weight, self.bias)
        return F.linear(h, self.table.weight)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], cr.Tensor]]] = {
    "small": (lambda: models.mlp(6, (5,), 3), lambda: leaf(4, 6, seed=1)),
    "by oneDNN": (lambda: models.mlp(256, (256,), 10), lambda: leaf(32, 256, seed=1)),
    "of one example": (lambda: models.mlp(6, (5,), 3), lambda: leaf(1, 6, seed=1)),
    "of images": (lambda: models.small_cnn(dropout=0.5), lambda: leaf(4, 1, 8, 8, seed=1)),
    "of sequences": (lambda: nn.Linear(6, 5), lambda: leaf(2, 3, 6, seed=1)),
    "tied": (Tied, lambda: cr.tensor([[1, 2, 1], [0, 23, 5]])),
    "with nothing to look ahead of": (lambda: nn.Linear(6, 5, bias=False), lambda: leaf(4, 6, seed=1).detach()),
}


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_lie_in_the_memory_with_the_bits_they_have_elsewhere(kind: str) -> None:
    make, draw = MODELS[kind]
    found = []
    for given in (False, True):
        cr.manual_seed(0)
        model, x = make(), draw()
        memories = {name: placed(p) for name, p in model.named_parameters()} if given else {}
        model(x).square().sum().backward()
        parameters = dict(model.named_parameters())
        assert all(gradient(parameters[name]) is memory for name, memory in memories.items())
        found.append({name: gradient(p).tobytes() for name, p in parameters.items()})
    assert found[0] == found[1]


@pytest.mark.parametrize("dtype", [np.float64, np.float16, cr.bfloat16], ids=str)
def test_other_dtypes_lie_there_as_well(dtype: Any) -> None:
    x, w, twin = leaf(4, 6, dtype=dtype), leaf(5, 6, seed=1, dtype=dtype), leaf(5, 6, seed=1, dtype=dtype)
    memory = placed(w)
    F.linear(x, w).sum().backward()
    F.linear(x, twin).sum().backward()
    assert gradient(w) is memory
    assert memory.tobytes() == gradient(twin).tobytes()


def test_the_gradient_of_a_linear_layer_is_computed_there(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []

    def watched(a: Any, b: Any, out: Any = None) -> Any:
        computed.append(out)
        return a @ b if out is None else np.matmul(a, b, out=out)

    monkeypatch.setattr(kernels, "mm", watched)
    layer = nn.Linear(6, 5)
    layer(leaf(4, 6)).sum().backward()
    layer.zero_grad()
    memory = placed(layer.weight)
    layer(leaf(4, 6)).sum().backward()
    assert [out is memory for out in computed] == [False, True]


def test_a_second_gradient_is_added_there() -> None:
    w, x = leaf(5, 6), leaf(4, 6, seed=1)
    memory = placed(w)
    F.linear(x, w).sum().backward()
    first = memory.copy()
    F.linear(x * 2, w).sum().backward()
    assert gradient(w) is memory
    np.testing.assert_allclose(memory, 3 * first, rtol=1e-6)


def test_a_weight_that_is_its_own_input_gets_both_gradients() -> None:
    w, twin = leaf(6, 6), leaf(6, 6)
    memory = placed(w)
    F.linear(w, w).square().sum().backward()
    F.linear(twin, twin).square().sum().backward()
    assert gradient(w) is memory
    assert memory.tobytes() == gradient(twin).tobytes()


def test_only_what_is_added_to_leaves_is_put_there() -> None:
    w, x = leaf(5, 6), leaf(4, 6, seed=1)
    memory = placed(w)
    (g,) = cr.autograd.grad(F.linear(x, w).sum(), w)
    assert g is not None
    assert g.data is not memory
    cr.autograd.grad(F.linear(x, w).sum(), x)
    F.linear(x, w).sum().backward(inputs=[x])
    F.linear(x, w).sum().backward(create_graph=True)
    assert (memory == 7).all()
    assert np.array_equal(gradient(w), g.data)


def test_what_hooks_make_of_it_is_put_there() -> None:
    w, x = leaf(5, 6), leaf(4, 6, seed=1)
    memory, seen = placed(w), []
    w.register_hook(lambda g: g * 2)
    w.register_post_accumulate_grad_hook(lambda leaf: seen.append(gradient(leaf) is memory))
    F.linear(x, w).sum().backward()
    assert seen == [True]
    np.testing.assert_allclose(memory, np.broadcast_to(2 * x.data.sum(0), (5, 6)), rtol=1e-5)


def test_a_gradient_that_is_watched_is_put_there() -> None:
    w, x = leaf(5, 6), leaf(4, 6, seed=1)
    memory = placed(w)
    with cr.autograd.detect_anomaly(check_nan=True):
        F.linear(x, w).sum().backward()
    assert gradient(w) is memory
    np.testing.assert_allclose(memory, np.broadcast_to(x.data.sum(0), (5, 6)), rtol=1e-5)


def test_without_memory_a_gradient_has_its_own_again() -> None:
    w, x = leaf(5, 6), leaf(4, 6, seed=1)
    memory = placed(w)
    w.grad_memory = None
    F.linear(x, w).sum().backward()
    assert w.grad_memory is None
    assert (memory == 7).all()
    plain = leaf(2)
    plain.grad_memory = None
    assert plain.grad_memory is None


def test_a_copy_of_a_leaf_has_memory_of_its_own() -> None:
    layer = nn.Linear(6, 5)
    memory = placed(layer.weight)
    other = copy.deepcopy(layer)
    other(leaf(4, 6)).sum().backward()
    assert other.weight.grad_memory is None
    assert (memory == 7).all()


def test_two_backward_passes_at_once_are_refused() -> None:
    w, b, x = leaf(5, 6), leaf(5, seed=1), leaf(4, 6, seed=2)
    placed(w)
    outer = F.linear(x, w, b).sum()

    def meanwhile(_: cr.Tensor) -> None:
        with cr.enable_grad():
            F.linear(x, w).sum().backward()

    b.register_post_accumulate_grad_hook(meanwhile)
    with pytest.raises(cr.AutogradError, match="two backward passes at once have computed a gradient in one grad_mem"):
        outer.backward()


@pytest.mark.parametrize(
    ("memory", "error", "message"),
    [
        ([[0.0] * 6] * 5, cr.DTypeError, "an array of that, not list"),
        (np.zeros((5, 6)), cr.DTypeError, "of a tensor of float32 is an array of that, not float64"),
        (np.zeros((6, 5), np.float32), cr.ShapeError, r"has shape \[6, 5\], the tensor has \[5, 6\]"),
        (np.zeros((6, 5), np.float32).T, cr.ShapeError, "has to be contiguous and writeable"),
        (np.frombuffer(bytes(120), np.float32).reshape(5, 6), cr.ShapeError, "has to be contiguous and writeable"),
    ],
)
def test_memory_that_will_not_do_is_refused(memory: Any, error: type[Exception], message: str) -> None:
    w = leaf(5, 6)
    with pytest.raises(error, match=message):
        w.grad_memory = memory
    assert w.grad_memory is None


def test_memory_is_for_leaves_that_require_a_gradient() -> None:
    for x in (cr.ones(2), leaf(2) * 1):
        with pytest.raises(cr.AutogradError, match="for leaves that require a gradient"):
            x.grad_memory = np.zeros(2, np.float32)


@pytest.mark.parametrize("data", [np.ones((3, 6), np.float32), np.ones((5, 6))], ids=["shape", "dtype"])
def test_memory_that_fits_the_data_no_more_is_refused(data: Any) -> None:
    layer = nn.Linear(6, 5, bias=False)
    memory = placed(layer.weight)
    layer.weight.data = data
    with pytest.raises(cr.ShapeError, match="the tensor was given other data since; set grad_memory again"):
        layer(cr.ones(4, 6, dtype=data.dtype)).sum().backward()
    assert (memory == 7).all()
