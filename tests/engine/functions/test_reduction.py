"""Reductions over every dimension and dtype, their extremes, ties, empty inputs and errors, as PyTorch's."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from tests.engine.functions.agreement import DTYPES, FLOATING, difference, samples

DIMS: tuple[Any, ...] = (None, 0, 1, -1, (0, 1), (0, 2), (-1, 0, 1), ())
inf, nan = float("inf"), float("nan")

OVER_DIMS: dict[str, Callable[..., Any]] = {
    "sum": lambda m, x, dim, keepdim: m.sum(x, dim, keepdim),
    "nansum": lambda m, x, dim, keepdim: m.nansum(x, dim, keepdim),
    "mean": lambda m, x, dim, keepdim: m.mean(x, dim, keepdim),
    "nanmean": lambda m, x, dim, keepdim: m.nanmean(x, dim, keepdim),
    "amax": lambda m, x, dim, keepdim: m.amax(x, () if dim is None else dim, keepdim),
    "amin": lambda m, x, dim, keepdim: m.amin(x, () if dim is None else dim, keepdim),
    "var": lambda m, x, dim, keepdim: m.var(x, dim, keepdim=keepdim),
    "std": lambda m, x, dim, keepdim: m.std(x, dim, correction=0, keepdim=keepdim),
    "var_mean": lambda m, x, dim, keepdim: m.var_mean(x, dim, keepdim=keepdim),
    "std_mean": lambda m, x, dim, keepdim: m.std_mean(x, dim, keepdim=keepdim),
    "logsumexp": lambda m, x, dim, keepdim: m.logsumexp(x, (0, 1, 2) if dim is None else dim, keepdim),
    "all": lambda m, x, dim, keepdim: m.all(x, (0, 1, 2) if dim is None else dim, keepdim),
    "any": lambda m, x, dim, keepdim: m.any(x, (0, 1, 2) if dim is None else dim, keepdim),
    "count_nonzero": lambda m, x, dim, keepdim: m.count_nonzero(x, dim),
    "norm": lambda m, x, dim, keepdim: m.norm(x, 2, dim, keepdim),
    "norm-inf": lambda m, x, dim, keepdim: x.norm(inf, dim, keepdim),
}
ALONG_ONE: dict[str, Callable[..., Any]] = {
    "max": lambda m, x, dim, keepdim: m.max(x, dim, keepdim),
    "min": lambda m, x, dim, keepdim: x.min(dim, keepdim=keepdim),
    "argmax": lambda m, x, dim, keepdim: x.argmax(dim, keepdim),
    "argmin": lambda m, x, dim, keepdim: m.argmin(x, dim, keepdim),
    "prod": lambda m, x, dim, keepdim: x.prod(dim, keepdim),
    "aminmax": lambda m, x, dim, keepdim: m.aminmax(x, dim=dim, keepdim=keepdim),
    "median": lambda m, x, dim, keepdim: x.median(dim, keepdim)[0],
    "nanmedian": lambda m, x, dim, keepdim: x.nanmedian(dim, keepdim)[0],
    "mode": lambda m, x, dim, keepdim: x.mode(dim, keepdim),
    "kthvalue": lambda m, x, dim, keepdim: x.kthvalue(2, dim, keepdim)[0],
    "cumsum": lambda m, x, dim, keepdim: x.cumsum(dim),
    "cumprod": lambda m, x, dim, keepdim: m.cumprod(x, dim),
    "logcumsumexp": lambda m, x, dim, keepdim: m.logcumsumexp(x, dim),
    "sort": lambda m, x, dim, keepdim: m.sort(x, dim=dim, descending=keepdim, stable=True),
    "argsort": lambda m, x, dim, keepdim: m.argsort(x, dim=dim, stable=True),
    "topk": lambda m, x, dim, keepdim: x.topk(2, dim, keepdim)[0],
    "softmax": lambda m, x, dim, keepdim: m.softmax(x, dim),
}
OF_ALL: dict[str, Callable[..., Any]] = {
    "sum": lambda m, x: x.sum(),
    "mean": lambda m, x: x.mean(),
    "prod": lambda m, x: x.prod(),
    "max": lambda m, x: x.max(),
    "min": lambda m, x: m.min(x),
    "argmax": lambda m, x: x.argmax(),
    "argmin": lambda m, x: x.argmin(keepdim=True),
    "aminmax": lambda m, x: x.aminmax(),
    "all": lambda m, x: x.all(),
    "any": lambda m, x: x.any(),
    "var": lambda m, x: x.var(False),
    "std": lambda m, x: x.std(correction=2.5),
    "norm": lambda m, x: x.norm(),
    "norm-1": lambda m, x: m.norm(x, 1),
    "norm-0": lambda m, x: m.norm(x, 0),
    "norm-3": lambda m, x: x.norm(p=3),
    "median": lambda m, x: x.median(),
    "nanmedian": lambda m, x: x.nanmedian(),
    "count_nonzero": lambda m, x: x.count_nonzero(),
    "unique": lambda m, x: m.unique(x, return_inverse=True, return_counts=True),
    "sum-float64": lambda m, x: x.sum(dtype=m.float64),
    "mean-float32": lambda m, x: x.mean(dtype=m.float32),
    "prod-int64": lambda m, x: x.prod(dtype=m.int64),
    "cumsum-int8": lambda m, x: x.reshape(-1).cumsum(0, dtype=m.int8),
}


def rtol_of(dtype: Any) -> float | None:
    return {"float16": 4e-3, "bfloat16": 2e-2, "float32": 1e-5}.get(str(dtype))


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", OVER_DIMS)
def test_over_all_dims_and_dtypes_as_pytorch(name: str, torch: Any) -> None:
    found = {}
    for dtype, dim, keepdim in itertools.product(DTYPES, DIMS, (False, True)):
        x = samples(dtype, 2, 3, 4)
        call = lambda m, x, dim=dim, keepdim=keepdim: OVER_DIMS[name](m, x, dim, keepdim)
        if name == "logsumexp" and dim == ():
            continue  # PyTorch fails on it
        found[f"{dtype}, {dim}, {keepdim}"] = difference(torch, call, x, rtol=rtol_of(dtype))
    assert {key: what for key, what in found.items() if what} == {}


@pytest.mark.torch
@pytest.mark.parametrize("name", ALONG_ONE)
def test_along_one_dim_and_all_dtypes_as_pytorch(name: str, torch: Any) -> None:
    found = {}
    for dtype, dim, keepdim in itertools.product(DTYPES, (0, 1, -1), (False, True)):
        call = lambda m, x, dim=dim, keepdim=keepdim: ALONG_ONE[name](m, x, dim, keepdim)
        for size in ((2, 3, 4), (3, 3)):
            x = samples(dtype, *size)
            if name in ("max", "min", "argmax", "argmin") and dtype.kind != "b":
                x = np.random.default_rng(3).permutation(x.size).reshape(size).astype(dtype)
            found[f"{dtype}, {size}, {dim}, {keepdim}"] = difference(torch, call, x, rtol=rtol_of(dtype))
    assert {key: what for key, what in found.items() if what} == {}


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", OF_ALL)
def test_of_all_elements_as_pytorch(name: str, torch: Any) -> None:
    found = {}
    for dtype, size in itertools.product(DTYPES, ((2, 3), (5,), ())):
        what = difference(torch, OF_ALL[name], samples(dtype, *size), rtol=rtol_of(dtype))
        found[f"{dtype}, {size}"] = what
    assert {key: what for key, what in found.items() if what} == {}


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@pytest.mark.parametrize("values", [[1.0, nan, 3.0], [nan, nan], [inf, 1.0, -inf], [inf, inf], [-inf, -inf]], ids=str)
def test_nan_and_infinity_as_in_pytorch(values: list[float], dtype: Any, torch: Any) -> None:
    x = np.array(values).astype(dtype)
    names = set(OF_ALL) - {"prod-int64", "cumsum-int8", "unique"}
    found = {name: difference(torch, OF_ALL[name], x, rtol=rtol_of(dtype)) for name in names}
    for name, call in ALONG_ONE.items():
        found[f"{name} along"] = difference(torch, lambda m, x, call=call: call(m, x, 0, False), x, rtol=rtol_of(dtype))
    found["logsumexp"] = difference(torch, lambda m, x: m.logsumexp(x, 0), x, rtol=rtol_of(dtype))
    found["nansum"] = difference(torch, lambda m, x: m.nansum(x), x)
    found["sorted"] = difference(torch, lambda m, x: m.sort(x, 0, True), x)
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_empty_tensors_have_the_identities_and_errors_of_pytorch(torch: Any) -> None:
    found = {}
    for size in ((0,), (2, 0), (0, 3)):
        x = np.zeros(size, np.float32)
        for name, call in OF_ALL.items():
            found[f"{name} of {size}"] = difference(torch, call, x)
        for dim in range(len(size)):
            for name, call in OVER_DIMS.items():
                if name == "norm-inf":
                    continue  # PyTorch names the dimension, we do not
                found[f"{name} of {size} over {dim}"] = difference(
                    torch, lambda m, x, call=call, dim=dim: call(m, x, dim, False), x
                )
            for name, call in ALONG_ONE.items():
                if name != "topk":
                    found[f"{name} of {size} along {dim}"] = difference(
                        torch, lambda m, x, call=call, dim=dim: call(m, x, dim, True), x
                    )
    assert {name: what for name, what in found.items() if what} == {}


ERRORS: dict[str, Callable[..., Any]] = {
    "dim-too-large": lambda m, x: x.sum(3),
    "dim-too-small": lambda m, x: x.mean(-4),
    "dim-twice": lambda m, x: x.sum((0, -2)),
    "argmax-dim": lambda m, x: x.argmax(2),
    "max-dim": lambda m, x: x.max(2),
    "cumsum-dim": lambda m, x: x.cumsum(2),
    "sort-dim": lambda m, x: x.sort(-3),
    "mean-of-integers": lambda m, x: x.long().mean(),
    "mean-of-bools": lambda m, x: (x > 0).mean(),
    "var-of-integers": lambda m, x: x.long().var(),
    "norm-of-integers": lambda m, x: x.long().norm(),
    "topk-too-many": lambda m, x: x.topk(4),
    "topk-negative": lambda m, x: x.topk(-1),
    "kthvalue-zero": lambda m, x: x.kthvalue(0),
    "kthvalue-too-large": lambda m, x: x.kthvalue(3, 0),
    "bincount-negative": lambda m, x: m.bincount(m.tensor([-1])),
    "bincount-of-floats": lambda m, x: m.bincount(x),
    "median-of-bools": lambda m, x: (x > 0).median(),
    "argmax-of-bools": lambda m, x: (x > 0).argmax(),
    "no-tensor": lambda m, x: m.sum("x"),
    "mean-to-integers": lambda m, x: x.mean(dtype=m.int64),
    "logcumsumexp-of-integers": lambda m, x: x.long().logcumsumexp(0),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_worded_as_pytorch_words_them(name: str, torch: Any) -> None:
    x = samples(np.dtype("float32"), 2, 3)
    with pytest.raises((RuntimeError, IndexError, TypeError)):
        ERRORS[name](cr, cr.Tensor(x))
    assert difference(torch, ERRORS[name], x) is None


# ---- Gradients of extremes ----


@pytest.mark.torch
@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: x.max(),
        lambda m, x: x.min(),
        lambda m, x: x.median(),
        lambda m, x: x.nanmedian(),
        lambda m, x: x.amax(0),
        lambda m, x: x.amin((0,)),
        lambda m, x: x.max(0).values,
        lambda m, x: x.min(0)[0],
        lambda m, x: x.norm(inf),
        lambda m, x: x.norm(),
        lambda m, x: x.std(correction=0),
        lambda m, x: x.logsumexp(0),
    ],
)
@pytest.mark.parametrize("values", [[2.0, 2.0, 1.0, 2.0], [1.0, 1.0], [3.0], [0.0, 0.0]], ids=str)
def test_ties_share_or_do_not_share_as_in_pytorch(call: Callable[..., Any], values: list[float], torch: Any) -> None:
    x, t = cr.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    call(cr, x).backward()
    call(torch, t).backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-6)


def test_extremes_print_with_their_names_and_unpack() -> None:
    x = cr.tensor([[1.0, 3.0], [4.0, 2.0]])
    result = x.max(1)
    assert repr(result) == "max(values=tensor([3., 4.]), indices=tensor([1, 0]))"
    values, indices = x.sort(1)
    assert (values.tolist(), indices.tolist()) == ([[1.0, 3.0], [2.0, 4.0]], [[0, 1], [1, 0]])
    assert repr(x.aminmax()) == "aminmax(min=tensor(1.), max=tensor(4.))"
    assert pickle.loads(pickle.dumps(result)).values.tolist() == [3.0, 4.0]


def test_max_of_two_tensors_is_maximum() -> None:
    a, b = cr.tensor([1.0, 4.0]), cr.tensor([2.0, 3.0])
    assert cr.max(a, b).tolist() == a.max(other=b).tolist() == [2.0, 4.0]
    assert cr.min(a, b).tolist() == [1.0, 3.0]


def test_variance_warns_where_no_degree_of_freedom_is_left() -> None:
    with pytest.warns(UserWarning, match="degrees of freedom is <= 0"):
        assert np.isnan(cr.ones(1).var().item())


def test_sums_of_many_float32_are_as_exact_as_pairwise_ones() -> None:
    x = np.random.default_rng(0).random(1_000_000, np.float32)
    exact = float(np.sum(x, dtype=np.float64))
    assert abs(cr.Tensor(x).sum().item() - exact) / exact < 2e-7
    assert abs(cr.Tensor(x).mean().item() * x.size - exact) / exact < 2e-7
    assert abs(cr.Tensor(x).cumsum(0)[-1].item() - exact) / exact < 1e-7


def test_products_of_zeros_have_exact_gradients_twice() -> None:
    x = cr.tensor([2.0, 0.0, 3.0], requires_grad=True)
    (g,) = cr.autograd.grad(x.prod(), x, create_graph=True)
    assert g is not None
    assert g.tolist() == [0.0, 6.0, 0.0]
    (h,) = cr.autograd.grad(g[1], x)
    assert h is not None
    assert h.tolist() == [3.0, 0.0, 2.0]


@pytest.mark.torch
def test_counts_and_histograms_are_those_of_pytorch(torch: Any) -> None:
    k = np.array([3, 1, 1, 2, 0])
    assert difference(torch, lambda m, k: m.bincount(k, minlength=7), k) is None
    for dtype in ("float32", "float64", "int32"):
        weights = np.arange(5).astype(dtype)
        assert difference(torch, lambda m, k, w: m.bincount(k, w), k, weights) is None
    x = np.array([0.1, 0.5, 0.9, 2.0, -1.0], np.float32)
    assert difference(torch, lambda m, x: m.histc(x, 4), x) is None
    assert difference(torch, lambda m, x: m.histc(x, bins=3, min=0, max=1), x) is None
    rows = np.array([[3, 1], [1, 2], [3, 1]])
    assert difference(torch, lambda m, x: m.unique(x, dim=0), rows) is None
    assert difference(torch, lambda m, x: m.unique(x, True, True, True, 1), rows) is None
