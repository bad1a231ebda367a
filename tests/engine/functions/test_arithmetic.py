"""Functions of elements: values, gradients, errors and in-place forms, as PyTorch's."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import chainrule.engine as cr
from chainrule.engine.dtypes import Array
from chainrule.engine.functions import arithmetic, in_place
from tests.engine.functions.agreement import DTYPES, FLOATING, difference, samples

inf, nan = float("inf"), float("nan")

UNARY = [
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "ceil",
    "cos",
    "cosh",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "frac",
    "log",
    "log10",
    "log1p",
    "log2",
    "logit",
    "nan_to_num",
    "neg",
    "positive",
    "reciprocal",
    "relu",
    "round",
    "rsqrt",
    "sgn",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "trunc",
]
EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, 100.0, -100.0, inf, -inf, nan]


@pytest.mark.torch
@pytest.mark.parametrize("name", UNARY)
def test_of_every_dtype_as_pytorch(name: str, torch: Any) -> None:
    call = lambda m, x: getattr(m, name)(x)
    found = {}
    for dtype, size in itertools.product(DTYPES, ((2, 3), (), (0, 2))):
        found[f"{dtype}, {size}"] = difference(torch, call, samples(dtype, *size))
    for dtype in FLOATING:
        with warnings.catch_warnings():
            warnings.simplefilter("error" if dtype.itemsize > 2 else "ignore")  # halves are rounded with a warning
            found[f"{dtype}, edges"] = difference(torch, call, np.array(EDGES).astype(dtype))
    assert {key: what for key, what in found.items() if what} == {}


# tan(100) and the like are right to the last bit or two of float32 on either side, which is what TOLERANCE allows.


@pytest.mark.torch
@pytest.mark.parametrize("name", sorted(set(UNARY) - {"nan_to_num", "positive", "logit", "relu", "sgn"}))
def test_gradients_at_edges_are_those_of_pytorch(name: str, torch: Any) -> None:
    edges = np.array(EDGES)
    x, t = cr.tensor(edges, requires_grad=True), torch.tensor(edges, requires_grad=True)
    with np.errstate(all="ignore"):
        getattr(cr, name)(x).sum().backward()
    getattr(torch, name)(t).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-12, atol=1e-300)


BINARY: dict[str, Callable[..., Any]] = {
    "div": lambda m, a, b: a / b,
    "floor_divide": lambda m, a, b: a // b,
    "trunc_divide": lambda m, a, b: m.div(a, b, rounding_mode="trunc"),
    "remainder": lambda m, a, b: a % b,
    "fmod": lambda m, a, b: m.fmod(a, b),
    "pow": lambda m, a, b: a**b,
    "maximum": lambda m, a, b: m.maximum(a, b),
    "minimum": lambda m, a, b: m.minimum(a, b),
    "fmax": lambda m, a, b: m.fmax(a, b),
    "fmin": lambda m, a, b: m.fmin(a, b),
    "max": lambda m, a, b: m.max(a, b),
    "atan2": lambda m, a, b: m.atan2(a, b),
    "hypot": lambda m, a, b: m.hypot(a, b),
    "logaddexp": lambda m, a, b: m.logaddexp(a, b),
    "xlogy": lambda m, a, b: m.xlogy(a, b),
    "copysign": lambda m, a, b: m.copysign(a, b),
    "heaviside": lambda m, a, b: m.heaviside(a, b),
    "clamp": lambda m, a, b: m.clamp(a, b, -b),
    "clamp-number": lambda m, a, b: m.clamp(a, -0.5, 1.5),
    "lerp": lambda m, a, b: m.lerp(a, b, 0.75),
    "addcmul": lambda m, a, b: m.addcmul(a, a, b, value=-2),
    "addcdiv": lambda m, a, b: m.addcdiv(a, a, b, value=0.5),
    "nan_to_num": lambda m, a, b: m.nan_to_num(a, 1.0, 2.0),
    "logit": lambda m, a, b: m.logit(a, 0.25),
}
HAVE_GRADIENTS = sorted(set(BINARY) - {"floor_divide", "heaviside", "addcdiv", "pow", "hypot", "atan2"})


@pytest.mark.torch
@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_of_two_at_every_pair_of_edges_as_pytorch(name: str, dtype: Any, torch: Any) -> None:
    edges = np.array([0.0, -0.0, 1.0, -1.0, 2.5, -2.5, inf, -inf, nan]).astype(dtype)
    a, b = np.repeat(edges, len(edges)), np.tile(edges, len(edges))
    if name == "copysign":  # what sign nan has is nobody's promise
        a, b = a[~np.isnan(b)], b[~np.isnan(b)]
    if name == "lerp":
        a, b = a[np.isfinite(a * b)], b[np.isfinite(a * b)]
    with np.errstate(all="ignore"):
        assert difference(torch, BINARY[name], a, b) is None


@pytest.mark.torch
@pytest.mark.parametrize("name", HAVE_GRADIENTS)
def test_gradients_of_two_at_pairs_of_edges_as_pytorch(name: str, torch: Any) -> None:
    edges = np.array([0.0, 1.0, -1.0, 2.5, nan])
    values = np.repeat(edges, len(edges)), np.tile(edges, len(edges))
    ours = [cr.tensor(x, requires_grad=True) for x in values]
    theirs = [torch.tensor(x, requires_grad=True) for x in values]
    with np.errstate(all="ignore"):
        BINARY[name](cr, *ours).sum().backward()
    BINARY[name](torch, *theirs).sum().backward()
    for x, t in zip(ours, theirs, strict=True):
        if t.grad is not None:
            assert x.grad is not None
            np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-12)


# ---- Integers ----


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8"])
def test_integers_divide_wrap_and_take_powers_as_in_pytorch(dtype: str, torch: Any) -> None:
    limits = cr.iinfo(dtype)
    wanted = [limits.min, -7, -1, 1, 2, 7, limits.max]
    numbers = np.array([n for n in wanted if limits.min <= n and n != 0], dtype)
    a, b = np.repeat(numbers, len(numbers)), np.tile(numbers, len(numbers))
    calls: dict[str, Callable[..., Any]] = {
        "floor": lambda m, a, b: a // b,
        "mod": lambda m, a, b: a % b,
        "fmod": lambda m, a, b: m.fmod(a, b),
        "trunc": lambda m, a, b: m.div(a, b, rounding_mode="trunc"),
        "div": lambda m, a, b: a / b,
        "add": lambda m, a, b: a + b,
        "mul": lambda m, a, b: a * b,
        "pow": lambda m, a, b: a ** (b % 8),
        "negative-pow": lambda m, a, b: a ** (-(b % 8)),
        "shift": lambda m, a, b: (a << (b % 8)) + (a >> (b % 8)),
    }
    usual = (b != -1) | (a != limits.min)  # the one quotient that does not fit; PyTorch's depends on the processor
    found = {name: difference(torch, call, a[usual], b[usual]) for name, call in calls.items()}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize("divide", [lambda a: a // 0, lambda a: a % 0, lambda a: cr.fmod(a, 0), lambda a: 1 // (a - a)])
def test_integers_are_not_divided_by_zero(divide: Callable[[cr.Tensor], cr.Tensor]) -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        divide(cr.tensor([1, 2]))
    with pytest.raises(ZeroDivisionError):
        divide(cr.tensor([1, 2]))
    assert not np.isfinite(divide(cr.tensor([1.0, 2.0])).numpy()).any()


ERRORS: dict[str, Callable[..., Any]] = {
    "negative-power": lambda m, x: x.long() ** -1,
    "minus-bools": lambda m, x: (x > 0) - (x > 1),
    "minus-bool": lambda m, x: x - (x > 1),
    "one-minus-bool": lambda m, x: 1 - (x > 1),
    "negative-bool": lambda m, x: -(x > 1),
    "positive-bool": lambda m, x: +(x > 1),
    "abs-of-bool": lambda m, x: m.abs(x > 1),
    "bits-of-floats": lambda m, x: x & 1,
    "not-of-floats": lambda m, x: ~x,
    "shift-of-floats": lambda m, x: x << 1,
    "shift-of-bools": lambda m, x: (x > 1) << (x > 1),
    "where-of-integers": lambda m, x: m.where(x.long(), 1, 2),
    "clamp-of-nothing": lambda m, x: m.clamp(x),
    "clamp-of-bools": lambda m, x: m.clamp(x > 1, False, True),
    "lerp-of-other-dtype": lambda m, x: m.lerp(x, x.double(), 0.5),
    "lerp-by-other-dtype": lambda m, x: m.lerp(x, x, x.double()),
    "alpha-fraction": lambda m, x: m.add(x.long(), x.long(), alpha=1.5),
    "alpha-bool": lambda m, x: m.add(x, x, alpha=True),
    "maximum-of-number": lambda m, x: m.maximum(x, 2),
    "atan2-of-number": lambda m, x: m.atan2(x, 2),
    "hypot-of-integers": lambda m, x: m.hypot(x.long(), x.long()),
    "heaviside-of-two-dtypes": lambda m, x: m.heaviside(x, x.long()),
    "shapes": lambda m, x: x + m.ones(4),
    "shapes-of-three": lambda m, x: m.where(x > 0, m.ones(2, 3), m.ones(3, 3)),
    "no-number": lambda m, x: m.add(x, "a"),
    "no-tensor": lambda m, x: m.exp("a"),
    "operator": lambda m, x: x + "a",
    "divmod": lambda m, x: divmod(x, 2),
    "integers-in-place": lambda m, x: x.long().mul_(1.5),
    "quotient-in-place": lambda m, x: x.long().div_(2),
    "root-in-place": lambda m, x: x.long().sqrt_(),
    "shape-in-place": lambda m, x: m.ones(3).add_(x),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_worded_as_pytorch_words_them(name: str, torch: Any) -> None:
    x = samples(np.dtype("float32"), 2, 3)
    with pytest.raises((RuntimeError, TypeError)):
        ERRORS[name](cr, cr.Tensor(x))
    assert difference(torch, ERRORS[name], x) is None


def test_integers_are_not_divided_by_addcdiv() -> None:
    with pytest.raises(cr.DTypeError, match="Integer division with addcdiv is no longer supported"):
        cr.addcdiv(cr.ones(1), cr.tensor([1]), cr.tensor([2]))


def test_an_unknown_rounding_mode_is_refused_by_name() -> None:
    with pytest.raises(cr.ArgumentError, match="'trunc', or 'floor' but found"):
        cr.div(cr.ones(1), 2, rounding_mode="up")


def test_where_of_a_condition_alone_gives_indices() -> None:
    rows, columns = cr.where(cr.tensor([[True, False], [False, True]]))
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [0, 1])


# ---- In place ----

WRITTEN: dict[str, tuple[Any, ...]] = {
    "add_": (2.0,),
    "sub_": (2.0,),
    "mul_": (2.0,),
    "div_": (2.0,),
    "pow_": (3,),
    "remainder_": (0.7,),
    "fmod_": (0.7,),
    "clamp_": (-0.5, 1.0),
    "clip_": (0.1,),
    "clamp_min_": (0.1,),
    "clamp_max_": (0.1,),
    "lerp_": (cr.tensor([0.5, 1.0, 2.0]), 0.25),
    "addcmul_": (cr.tensor([0.5, 1.0, 2.0]), cr.tensor([0.5, 1.0, 2.0])),
    "addcdiv_": (cr.tensor([0.5, 1.0, 2.0]), cr.tensor([0.5, 1.0, 2.0])),
    "cumsum_": (0,),
    "cumprod_": (0,),
    "logit_": (0.1,),
    "xlogy_": (2.0,),
    "atan2_": (cr.tensor([0.5, 1.0, 2.0]),),
    "nan_to_num_": (),
    **{
        f"{name}_": ()
        for name in [
            "exp",
            "sqrt",
            "neg",
            "floor",
            "ceil",
            "sigmoid",
            "tanh",
            "relu",
            "abs",
            "log",
            "reciprocal",
            "sin",
            "cos",
            "erf",
        ]
    },
}


@pytest.mark.torch
@pytest.mark.parametrize("name", WRITTEN)
def test_in_place_writes_and_records_as_pytorch(name: str, torch: Any) -> None:
    ours: list[Any] = []
    theirs: list[Any] = []
    for module, found in ((cr, ours), (torch, theirs)):
        args = [module.tensor(x.tolist()) if isinstance(x, cr.Tensor) else x for x in WRITTEN[name]]
        leaf = module.tensor([0.3, 0.8, 1.7], requires_grad=True)
        x = leaf * 1
        assert getattr(x, name)(*args) is x
        x.backward(module.ones(3))
        found += [x.detach().numpy(), leaf.grad.numpy()]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6)


def test_every_in_place_form_is_a_method_and_names_its_function() -> None:
    written = {name for name in vars(in_place) if name.endswith("_") and not name.startswith("_")}
    assert len(written) > 90
    assert {name for name in written if not hasattr(cr.Tensor, name)} == set()
    x = cr.tensor([1.0, 4.0])
    y = x
    y **= 2
    y //= 3
    y %= 4
    assert x is y
    assert x.tolist() == [0.0, 1.0]
    b = cr.tensor([True, False])
    b &= cr.tensor([True, True])
    b |= cr.tensor([False, True])
    b ^= True
    assert b.tolist() == [False, False]
    k = cr.tensor([1, 5])
    k <<= 2
    k >>= 1
    assert k.tolist() == [2, 10]


def test_public_functions_are_methods() -> None:
    assert [n for n in arithmetic.__all__ if n not in ("result_type", "rsub") and not hasattr(cr.Tensor, n)] == []


# ---- Broadcasting ----

BROADCAST: dict[str, tuple[Callable[..., Any], Callable[[Array, Array], Array]]] = {
    "add": (lambda a, b: a + b, np.add),
    "sub": (lambda a, b: a - b, np.subtract),
    "mul": (lambda a, b: a * b, np.multiply),
    "div": (lambda a, b: a / b, np.divide),
    "pow": (lambda a, b: a**b, np.power),
    "atan2": (lambda a, b: cr.atan2(a, b), np.arctan2),
    "maximum": (lambda a, b: cr.maximum(a, b), np.maximum),
    "hypot": (lambda a, b: cr.hypot(a, b), np.hypot),
    "logaddexp": (lambda a, b: cr.logaddexp(a, b), np.logaddexp),
    "remainder": (lambda a, b: a % b, np.remainder),
}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    shapes=mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3, min_side=0),
    name=st.sampled_from(sorted(BROADCAST)),
    seed=st.integers(0, 1000),
)
def test_any_two_shapes_broadcast_and_gradients_come_back_in_them(shapes: Any, name: str, seed: int) -> None:
    ours, numpys = BROADCAST[name]
    draws = np.random.default_rng(seed)
    arrays = [np.asarray(draws.uniform(0.5, 2.0, shape)) for shape in shapes.input_shapes]
    a, b = (cr.Tensor(x, requires_grad=True) for x in arrays)
    y = ours(a, b)
    np.testing.assert_array_equal(y.detach().numpy(), numpys(*arrays))
    assert y.shape == shapes.result_shape
    whole = [cr.Tensor(np.broadcast_to(x, y.shape).copy(), requires_grad=True) for x in arrays]
    weight = cr.Tensor(np.asarray(draws.standard_normal(y.shape)))
    y.backward(weight)
    ours(*whole).backward(weight)
    for x, full in zip((a, b), whole, strict=True):
        assert x.grad is not None
        assert full.grad is not None
        axes = tuple(range(y.ndim - x.ndim))
        summed = full.grad.numpy().sum(axes)
        stretched = tuple(i for i, n in enumerate(x.shape) if n == 1 and summed.shape[i] != 1)
        expected = summed.sum(stretched, keepdims=True) if stretched else summed
        np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-12, atol=1e-12, strict=True)
