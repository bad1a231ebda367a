"""Inside autocast each function computes in PyTorch's dtype, and gives gradients in PyTorch's."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.functions import autocast
from tests.engine.functions.agreement import to_array, to_torch

Case = tuple[Callable[..., Any], tuple[str, ...]]

# An operand is written as its dtype's letter and its shape: f float32, b bfloat16, h float16, d float64, i int64;
# F and B are probabilities.
LETTERS = {"f": cr.float32, "b": cr.bfloat16, "h": cr.float16, "d": cr.float64, "i": cr.int64}

PRODUCTS: dict[str, Case] = {
    "mm": (lambda m, a, b: m.mm(a, b), ("f3x4", "f4x5")),
    "mm, mixed": (lambda m, a, b: m.mm(a, b), ("b3x4", "f4x5")),
    "mm, half": (lambda m, a, b: m.mm(a, b), ("h3x4", "f4x5")),
    "mm, double": (lambda m, a, b: m.mm(a, b), ("d3x4", "d4x5")),
    "bmm": (lambda m, a, b: m.bmm(a, b), ("f2x3x4", "f2x4x5")),
    "addmm": (lambda m, *xs: m.addmm(*xs), ("f3x5", "f3x4", "f4x5")),
    "addbmm": (lambda m, *xs: m.addbmm(*xs), ("f3x5", "f2x3x4", "f2x4x5")),
    "baddbmm": (lambda m, *xs: m.baddbmm(*xs), ("f2x3x5", "f2x3x4", "b2x4x5")),
    "addmv": (lambda m, *xs: m.addmv(*xs), ("f3", "f3x4", "f4")),
    "addr": (lambda m, *xs: m.addr(*xs), ("f3x4", "f3", "f4")),
    "mv": (lambda m, a, b: m.mv(a, b), ("f3x4", "f4")),
    "dot": (lambda m, a, b: m.dot(a, b), ("f4", "f4")),
    "vdot": (lambda m, a, b: m.vdot(a, b), ("f4", "f4")),
    "outer": (lambda m, a, b: m.outer(a, b), ("f3", "f4")),
    "inner": (lambda m, a, b: m.inner(a, b), ("f3x4", "f5x4")),
    "kron": (lambda m, a, b: m.kron(a, b), ("f2x2", "f2x2")),
    "tensordot": (lambda m, a, b: m.tensordot(a, b, 1), ("f3x4", "f4x5")),
    "matmul of vectors": (lambda m, a, b: m.matmul(a, b), ("f4", "f4")),
    "matmul of a matrix and a vector": (lambda m, a, b: m.matmul(a, b), ("f3x4", "f4")),
    "matmul of batches": (lambda m, a, b: a @ b, ("f2x3x4", "f4x5")),
    "einsum of matrices": (lambda m, a, b: m.einsum("ij,jk->ik", a, b), ("f3x4", "f4x5")),
    "einsum of batches": (lambda m, a, b: m.einsum("bij,bjk->bik", a, b), ("f2x3x4", "f2x4x5")),
    "einsum of vectors": (lambda m, a, b: m.einsum("i,i->", a, b), ("f3", "f3")),
    "einsum, outer": (lambda m, a, b: m.einsum("i,j->ij", a, b), ("f3", "f4")),
    "einsum, elementwise": (lambda m, a, b: m.einsum("ij,ij->ij", a, b), ("f3x3", "f3x3")),
    "einsum, diagonal": (lambda m, a: m.einsum("ii", a), ("f3x3",)),
    "linear": (lambda m, *xs: m.nn.functional.linear(*xs), ("f2x3", "f4x3", "f4")),
    "bilinear": (lambda m, *xs: m.nn.functional.bilinear(*xs), ("f2x3", "f2x4", "f5x3x4", "f5")),
    "conv1d": (lambda m, *xs: m.nn.functional.conv1d(*xs), ("f2x3x8", "f4x3x3", "f4")),
    "conv2d": (lambda m, *xs: m.nn.functional.conv2d(*xs), ("f2x3x8x8", "f4x3x3x3", "f4")),
    "conv2d of one image": (lambda m, *xs: m.nn.functional.conv2d(*xs, padding="same"), ("b3x8x8", "f4x3x3x3")),
    "conv_transpose1d": (lambda m, *xs: m.nn.functional.conv_transpose1d(*xs), ("f2x3x8", "f3x4x3", "f4")),
    "conv_transpose2d": (lambda m, *xs: m.nn.functional.conv_transpose2d(*xs), ("f2x3x8x8", "f3x4x3x3", "f4")),
    "prelu": (lambda m, *xs: m.nn.functional.prelu(*xs), ("f2x3", "f1")),
    "prelu, mixed": (lambda m, *xs: m.nn.functional.prelu(*xs), ("b2x3", "f3")),
    "attention": (lambda m, *xs: m.nn.functional.scaled_dot_product_attention(*xs), ("f2x3x4",) * 3),
    "attention with a mask": (
        lambda m, *xs: m.nn.functional.scaled_dot_product_attention(*xs),
        ("b2x3x4", "f2x3x4", "f2x3x4", "f3x3"),
    ),
}

LOSSES: dict[str, Case] = {
    "mse_loss": (lambda m, *xs: m.nn.functional.mse_loss(*xs), ("b3", "b3")),
    "mse_loss, weighted": (lambda m, x, t, w: m.nn.functional.mse_loss(x, t, weight=w), ("b3", "f3", "B3")),
    "l1_loss": (lambda m, *xs: m.nn.functional.l1_loss(*xs), ("b3", "f3")),
    "smooth_l1_loss": (lambda m, *xs: m.nn.functional.smooth_l1_loss(*xs), ("b3", "b3")),
    "huber_loss": (lambda m, *xs: m.nn.functional.huber_loss(*xs), ("b3", "f3")),
    "binary_cross_entropy": (lambda m, x, t: m.nn.functional.binary_cross_entropy(x, t.detach()), ("B3", "F3")),
    "binary_cross_entropy_with_logits": (
        lambda m, x, t: m.nn.functional.binary_cross_entropy_with_logits(x, t.detach()),
        ("b3", "B3"),
    ),
    "kl_div": (lambda m, x, t: m.nn.functional.kl_div(x, t, reduction="batchmean"), ("b3x4", "F3x4")),
    "poisson_nll_loss": (lambda m, *xs: m.nn.functional.poisson_nll_loss(*xs), ("b3", "f3")),
    "nll_loss": (lambda m, *xs: m.nn.functional.nll_loss(*xs), ("b3x4", "i3")),
    "nll_loss of images": (lambda m, *xs: m.nn.functional.nll_loss(*xs), ("b3x4x2x2", "i3x2x2")),
    "cross_entropy": (lambda m, *xs: m.nn.functional.cross_entropy(*xs), ("b3x4", "i3")),
    "cross_entropy, weighted": (
        lambda m, x, t, w: m.nn.functional.cross_entropy(x, t, w.detach(), label_smoothing=0.1),
        ("b3x4", "i3", "B4"),
    ),
    "cross_entropy of probabilities": (lambda m, *xs: m.nn.functional.cross_entropy(*xs), ("b3x4", "F3x4")),
    "cosine_embedding_loss": (lambda m, *xs: m.nn.functional.cosine_embedding_loss(*xs), ("b3x4", "b3x4", "i3")),
    "margin_ranking_loss": (lambda m, *xs: m.nn.functional.margin_ranking_loss(*xs), ("b3", "b3", "i3")),
    "hinge_embedding_loss": (lambda m, *xs: m.nn.functional.hinge_embedding_loss(*xs), ("b3", "i3")),
    "triplet_margin_loss": (lambda m, *xs: m.nn.functional.triplet_margin_loss(*xs), ("b3x4", "b3x4", "b3x4")),
    "prod": (lambda m, x: m.prod(x), ("b3",)),
    "prod along a dimension": (lambda m, x: x.prod(1), ("h3x4",)),
    "prod of integers": (lambda m, x: m.prod(x), ("i3",)),
    "trace": (lambda m, x: m.trace(x), ("b3x3",)),
    "pad, reflected": (lambda m, x: m.nn.functional.pad(x, (1, 1), mode="reflect"), ("b2x3x4",)),
    "pad, reflected twice": (lambda m, x: m.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"), ("b2x3x4x4",)),
    "pad, repeated": (lambda m, x: m.nn.functional.pad(x, (1, 1), mode="replicate"), ("b2x3x4",)),
    "pad, repeated in volumes": (lambda m, x: m.nn.functional.pad(x, (1,) * 6, mode="replicate"), ("b1x2x3x4x4",)),
    "max_unpool1d": (lambda m, x: m.nn.functional.max_unpool1d(x, m.tensor([[[0, 3]]]), 2), ("b1x1x2",)),
    "max_unpool2d": (lambda m, x: m.nn.functional.max_unpool2d(x, m.tensor([[[[0, 7]]]]), 2), ("b1x1x1x2",)),
}

PROMOTED: dict[str, Case] = {
    "cat": (lambda m, *xs: m.cat(xs), ("b3", "f3")),
    "cat of one dtype": (lambda m, *xs: m.cat(xs), ("b3", "b3")),
    "cat with doubles": (lambda m, *xs: m.cat(xs), ("b3", "d3")),
    "cat with integers": (lambda m, *xs: m.cat(xs), ("b3", "i3")),
    "cat of integers": (lambda m, *xs: m.cat(xs), ("i3", "i3")),
    "stack": (lambda m, *xs: m.stack(xs), ("b3", "f3")),
    "hstack": (lambda m, *xs: m.hstack(xs), ("b3", "f3")),
    "index_copy": (lambda m, a, b: m.index_copy(a, 0, m.tensor([0, 1]), b), ("f3x2", "b2x2")),
}

AS_GIVEN: dict[str, Case] = {
    "add": (lambda m, a, b: a + b, ("b3", "f3")),
    "add in place": (lambda m, a, b: (a + 0).add_(b), ("b3", "f3")),
    "addcmul": (lambda m, *xs: m.addcmul(*xs), ("f3", "b3", "b3")),
    "where": (lambda m, a, b: m.where(a > 0, a, b), ("b3", "f3")),
    "sum": (lambda m, x: x.sum(), ("b3",)),
    "cumsum": (lambda m, x: x.cumsum(0), ("b3",)),
    "norm": (lambda m, x: x.norm(), ("b3",)),
    "softmax": (lambda m, x: x.softmax(-1), ("b3x4",)),
    "log_softmax": (lambda m, x: x.log_softmax(-1), ("b3x4",)),
    "relu": (lambda m, x: x.relu(), ("b3",)),
    "gelu": (lambda m, x: m.nn.functional.gelu(x), ("b3",)),
    "dropout": (lambda m, x: m.nn.functional.dropout(x, 0.5, training=False), ("b3",)),
    "embedding": (lambda m, i, w: m.nn.functional.embedding(i, w), ("i3", "f3x4")),
    "cosine_similarity": (lambda m, a, b: m.nn.functional.cosine_similarity(a, b), ("b3x4", "f3x4")),
    "max_pool2d": (lambda m, x: m.nn.functional.max_pool2d(x, 2), ("b1x1x4x4",)),
    "avg_pool2d": (lambda m, x: m.nn.functional.avg_pool2d(x, 2), ("b1x1x4x4",)),
    "adaptive_avg_pool2d": (lambda m, x: m.nn.functional.adaptive_avg_pool2d(x, 1), ("b1x1x4x4",)),
    "interpolate": (lambda m, x: m.nn.functional.interpolate(x, scale_factor=2), ("b1x1x2x2",)),
    "gumbel_softmax": (lambda m, x: m.nn.functional.gumbel_softmax(x).sum(-1), ("b3x4",)),
    "local_response_norm": (lambda m, x: m.nn.functional.local_response_norm(x, 2), ("b2x3x4",)),
    "local_response_norm of half": (lambda m, x: m.nn.functional.local_response_norm(x, 2), ("h2x3x4",)),
    "diff of half": (lambda m, x: m.diff(x), ("h4",)),
    "pad by a constant": (lambda m, x: m.nn.functional.pad(x, (1, 1)), ("b2x3",)),
    "pad, circular": (lambda m, x: m.nn.functional.pad(x, (1, 1), mode="circular"), ("b2x3x4",)),
    "batch_norm": (
        lambda m, x, w, b: m.nn.functional.batch_norm(x, m.zeros(3), m.ones(3), w, b, True),
        ("b4x3x2x2", "f3", "f3"),
    ),
    "batch_norm of float32": (
        lambda m, x, w, b: m.nn.functional.batch_norm(x, m.zeros(3), m.ones(3), w, b, True),
        ("f4x3x2x2", "f3", "f3"),
    ),
    "batch_norm by running statistics": (
        lambda m, x, w, b: m.nn.functional.batch_norm(x, m.zeros(3), m.ones(3), w, b),
        ("b4x3x2x2", "f3", "f3"),
    ),
    "batch_norm without parameters": (
        lambda m, x: m.nn.functional.batch_norm(x, m.zeros(3), m.ones(3), training=True),
        ("b4x3x2x2",),
    ),
    "instance_norm": (
        lambda m, x, w, b: m.nn.functional.instance_norm(x, None, None, w, b),
        ("b4x3x2x2", "f3", "f3"),
    ),
    "layer_norm": (lambda m, x, w, b: m.nn.functional.layer_norm(x, (3,), w, b), ("b4x3", "f3", "f3")),
    "layer_norm without bias": (lambda m, x, w: m.nn.functional.layer_norm(x, (3,), w), ("h4x3", "f3")),
    "group_norm": (lambda m, x, w, b: m.nn.functional.group_norm(x, 3, w, b), ("b4x3x2", "f3", "f3")),
    "rms_norm": (lambda m, x, w: m.nn.functional.rms_norm(x, (3,), w), ("b4x3", "f3")),
}

CASES = {**PRODUCTS, **LOSSES, **PROMOTED, **AS_GIVEN}


def operands(written: tuple[str, ...]) -> list[cr.Tensor]:
    random = np.random.default_rng(0)
    made = []
    for each in written:
        shape, letter = tuple(map(int, each[1:].split("x"))), each[0]
        if letter == "i":
            made.append(
                cr.tensor(random.integers(0, 2, shape) * 2 - 1 if shape == (3,) else random.integers(0, 2, shape))
            )
            continue
        numbers = random.uniform(0.1, 0.9, shape) if letter.isupper() else random.normal(size=shape)
        made.append(cr.tensor(numbers.astype(np.float32)).to(LETTERS[letter.lower()]))
    return made


def name_of(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def computed(module: Any, call: Callable[..., Any], values: list[Any], dtype: Any) -> tuple[Any, list[Any]]:
    """The result inside autocast, and the gradients of its sum."""
    leaves = [x.detach().requires_grad_(True) if x.is_floating_point() else x for x in values]
    with module.autocast("cpu", dtype=dtype):
        y = call(module, *leaves)
    if y.requires_grad:
        y.sum().backward()
    return y, [x.grad for x in leaves if x.grad is not None]


@pytest.mark.torch
@pytest.mark.parametrize("half", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients_are_pytorchs(case: str, half: str, torch: Any) -> None:
    call, written = CASES[case]
    values = operands(written)
    if "nll" in case or "cross_entropy" in case:
        values = [x.abs() if x.dtype == cr.int64 else x for x in values]
    theirs, their_gradients = _or_error(torch, call, [to_torch(torch, x) for x in values], getattr(torch, half))
    ours, our_gradients = _or_error(cr, call, values, getattr(cr, half))
    if isinstance(theirs, str):
        assert ours == theirs
        return
    assert name_of(ours.dtype) == name_of(theirs.dtype)
    assert [name_of(g.dtype) for g in our_gradients] == [name_of(g.dtype) for g in their_gradients]
    for x, t in zip([ours, *our_gradients], [theirs, *their_gradients], strict=True):
        np.testing.assert_allclose(to_array(x), to_array(t), rtol=0.05, atol=0.05)


def _or_error(module: Any, call: Callable[..., Any], values: list[Any], dtype: Any) -> tuple[Any, list[Any]]:
    try:
        return computed(module, call, values, dtype)
    except RuntimeError as error:
        return str(error), []


@pytest.mark.torch
@pytest.mark.parametrize("written", [("h3", "f3"), ("h3", "h3")])
def test_another_half_precision_is_not_promoted(written: tuple[str, ...], torch: Any) -> None:
    values = operands(written)
    for module, given in ((cr, values), (torch, [to_torch(torch, x) for x in values])):
        with (
            module.autocast("cpu"),
            pytest.raises(RuntimeError, match="Unexpected floating ScalarType in at::autocast::prioritize"),
        ):
            module.cat(given)


# ---- Layers that are made of several ----

RECURRENT: dict[str, Callable[[Any], Any]] = {
    "LSTM": lambda m: m.nn.LSTM(3, 4),
    "LSTM of two layers, both ways": lambda m: m.nn.LSTM(3, 4, 2, bidirectional=True),
    "GRU": lambda m: m.nn.GRU(3, 4),
    "GRU of two layers": lambda m: m.nn.GRU(3, 4, 2),
    "RNN": lambda m: m.nn.RNN(3, 4),
    "RNN with relu": lambda m: m.nn.RNN(3, 4, nonlinearity="relu"),
}
CELLS: dict[str, Callable[[Any], Any]] = {
    "LSTMCell": lambda m: m.nn.LSTMCell(3, 4),
    "GRUCell": lambda m: m.nn.GRUCell(3, 4),
    "RNNCell": lambda m: m.nn.RNNCell(3, 4),
}


def flat(results: Any) -> list[Any]:
    return [x for each in results for x in flat(each)] if isinstance(results, tuple) else [results]


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layer", [*RECURRENT, *CELLS])
def test_recurrent_layers_are_pytorchs(layer: str, dtype: str, torch: Any) -> None:
    shape = (5, 2, 3) if layer in RECURRENT else (2, 3)
    x = cr.tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32)).to(getattr(cr, dtype))
    make: Callable[[Any], Any] = {**RECURRENT, **CELLS}[layer]
    ours, theirs = make(cr), make(torch)
    theirs.load_state_dict({name: to_torch(torch, value) for name, value in ours.state_dict().items()})
    _same_results_and_gradients(torch, ours, theirs, [x])


@pytest.mark.torch
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention_is_pytorchs(masked: bool, need_weights: bool, torch: Any) -> None:
    x = cr.tensor(np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32))
    ours, theirs = (m.nn.MultiheadAttention(4, 2) for m in (cr, torch))
    theirs.load_state_dict({name: to_torch(torch, value) for name, value in ours.state_dict().items()})
    mask = cr.tensor(np.triu(np.full((3, 3), -1.0, np.float32)))

    def attend(layer: Any, x: Any, mask: Any) -> Any:
        y, weights = layer(x, x, x, attn_mask=mask if masked else None, need_weights=need_weights)
        return (y, weights) if need_weights else y

    _same_results_and_gradients(torch, ours, theirs, [x, mask], attend)


def _same_results_and_gradients(
    torch: Any, ours: Any, theirs: Any, values: list[cr.Tensor], call: Callable[..., Any] | None = None
) -> None:
    results, gradients = [], []
    for module, layer, given in ((cr, ours, values), (torch, theirs, [to_torch(torch, x) for x in values])):
        with module.autocast("cpu"):
            y = layer(*given) if call is None else call(layer, *given)
        results.append(flat(y))
        sum(each.float().sum() for each in flat(y)).backward()
        gradients.append([parameter.grad for parameter in layer.parameters()])
    for mine, other in zip(results[0] + gradients[0], results[1] + gradients[1], strict=True):
        assert name_of(mine.dtype) == name_of(other.dtype)
        np.testing.assert_allclose(to_array(mine), to_array(other), rtol=0.1, atol=0.1)


# ---- Conversions of parameters are kept ----


def the_cast(y: cr.Tensor) -> Any:
    assert y.grad_fn is not None
    return y.grad_fn.next_functions[1][0]


def test_a_parameter_is_converted_once_in_a_region() -> None:
    x, w = cr.ones(2, 2), cr.ones(2, 2, requires_grad=True)
    with cr.autocast("cpu"):
        first, second = x @ w, x @ w
        with cr.autocast("cpu"):
            third = x @ w
    assert the_cast(first) is the_cast(second) is the_cast(third)
    with cr.autocast("cpu"):
        assert the_cast(x @ w) is not the_cast(first)
    assert the_cast(first).name() == "ToCopyBackward0"


def test_a_parameter_that_was_written_to_is_converted_again() -> None:
    x, w = cr.ones(2, 2), cr.ones(2, 2, requires_grad=True)
    with cr.autocast("cpu"):
        assert (x @ w).tolist() == [[2, 2], [2, 2]]
        with cr.no_grad():
            w.add_(1)
        assert (x @ w).tolist() == [[4, 4], [4, 4]]
        w.data = np.zeros((2, 2), np.float32)
        assert (x @ w).tolist() == [[0, 0], [0, 0]]


def test_an_optimizers_step_inside_a_region_is_seen() -> None:
    layer = cr.nn.Linear(2, 1, bias=False)
    optimizer = cr.optim.SGD(layer.parameters(), lr=1.0)
    with cr.autocast("cpu"):
        before = layer(cr.ones(1, 2))
        before.sum().backward()
        optimizer.step()
        assert layer(cr.ones(1, 2)).item() == pytest.approx(before.item() - 2, abs=0.02)


def test_gradients_add_up_over_several_backwards_of_one_region() -> None:
    w = cr.ones(2, 2, requires_grad=True)
    with cr.autocast("cpu"):
        for _ in range(3):
            (cr.ones(2, 2) @ w).sum().backward()
    assert w.grad is not None
    assert w.grad.dtype == cr.float32
    assert w.grad.tolist() == [[6, 6], [6, 6]]


def test_what_was_converted_without_recording_is_converted_again_with_it() -> None:
    x, w = cr.ones(2, 2), cr.ones(2, 2, requires_grad=True)
    with cr.autocast("cpu"):
        with cr.no_grad():
            assert not (x @ w).requires_grad
        y = x @ w
        with cr.inference_mode():
            assert (x @ w).tolist() == y.tolist()
    y.sum().backward()
    assert w.grad is not None


def test_parameters_of_inference_mode_are_converted_too() -> None:
    with cr.inference_mode(), cr.autocast("cpu"):
        layer = cr.nn.Linear(2, 2)
        assert layer(cr.ones(1, 2)).dtype == cr.bfloat16
        assert not autocast.state.casts


def test_without_the_cache_each_use_converts() -> None:
    x, w = cr.ones(2, 2), cr.ones(2, 2, requires_grad=True)
    with cr.autocast("cpu", cache_enabled=False):
        assert the_cast(x @ w) is not the_cast(x @ w)
        assert not autocast.state.casts
    with cr.autocast("cpu"):
        first = x @ w
        cr.clear_autocast_cache()
        assert the_cast(x @ w) is not the_cast(first)


def test_nothing_is_kept_of_inputs_results_or_behind_the_region() -> None:
    w = cr.ones(2, 2, requires_grad=True)
    kept = weakref.ref(w)
    with cr.autocast("cpu"):
        y = (cr.ones(2, 2) @ w) @ (w * 1)
        assert [each.parameter() for each in autocast.state.casts.values()] == [w]
    assert not autocast.state.casts
    cr.set_autocast_enabled("cpu", True)
    y = y @ w  # not inside a region that would forget it
    cr.set_autocast_enabled("cpu", False)
    assert not autocast.state.casts
    del w, y
    gc.collect()
    assert kept() is None


# ---- One thread's ----


def test_other_threads_compute_as_before() -> None:
    x = cr.ones(2, 2)
    found: list[Any] = []

    def work() -> None:
        found.append((x @ x).dtype)
        found.append(cr.is_autocast_enabled("cpu"))
        found.append(cr.cat([x, x.half()]).dtype)
        with cr.autocast("cpu", dtype=cr.float16):
            found.append((x @ x).dtype)

    with cr.autocast("cpu"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert (x @ x).dtype == cr.bfloat16
    assert found == [cr.float32, False, cr.float32, cr.float16]
    assert not autocast.active


# ---- What is set ----


@pytest.mark.torch
@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "hpu", "ipu", "maia", "mps", "mtia", "xla", "xpu"])
def test_devices_begin_as_pytorchs(device: str, torch: Any) -> None:
    assert name_of(cr.get_autocast_dtype(device)) == name_of(torch.get_autocast_dtype(device))
    assert cr.is_autocast_enabled(device) is torch.is_autocast_enabled(device) is False
    assert cr.amp.is_autocast_available(device) is torch.amp.is_autocast_available(device) is True


@pytest.mark.torch
def test_settings_hold_until_they_are_set_again(torch: Any) -> None:
    for module in (cr, torch):
        module.set_autocast_enabled("cpu", True)
        module.set_autocast_dtype("cpu", module.float16)
        module.set_autocast_cache_enabled(False)
        assert module.is_autocast_enabled("cpu")
        assert not module.is_autocast_enabled()
        assert not module.is_autocast_cache_enabled()
        assert module.mm(module.ones(2, 2), module.ones(2, 2)).dtype == module.float16
        module.set_autocast_enabled("cpu", False)
        module.set_autocast_dtype("cpu", module.bfloat16)
        module.set_autocast_cache_enabled(True)
        module.set_autocast_enabled(True)
        assert module.is_autocast_enabled()
        assert module.mm(module.ones(2, 2), module.ones(2, 2)).dtype == module.float32
        module.set_autocast_enabled(False)
        assert module.autocast_increment_nesting() == 1
        assert module.autocast_decrement_nesting() == 0


@pytest.mark.torch
@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.is_autocast_enabled(3),
        lambda m: m.get_autocast_dtype(3),
        lambda m: m.set_autocast_enabled("cpu", 1),
        lambda m: m.set_autocast_dtype("cpu", 3),
        lambda m: m.set_autocast_cache_enabled(3),
    ],
)
def test_settings_of_wrong_types_are_refused_in_pytorchs_words(call: Callable[[Any], Any], torch: Any) -> None:
    with pytest.raises(TypeError) as theirs:
        call(torch)
    with pytest.raises(TypeError) as ours:
        call(cr)
    assert str(ours.value) == str(theirs.value)


def test_a_device_that_is_not_there_is_refused() -> None:
    for call in (cr.is_autocast_enabled, cr.get_autocast_dtype, cr.autocast):
        with pytest.raises(cr.ArgumentError, match=r"Expected one of cpu, cuda, .*device type at start of.*: tpu"):
            call("tpu")
