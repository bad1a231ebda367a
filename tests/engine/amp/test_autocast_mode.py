"""Regions of mixed precision: what they set, how they lie inside each other, and what is trained in them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn, optim
from chainrule.engine.nn import functional as F
from tests.engine.functions.agreement import to_array, to_torch


def dtype_of_a_product() -> Any:
    return (cr.ones(2, 2) @ cr.ones(2, 2)).dtype


# ---- Entered and left ----


def test_a_region_computes_products_in_bfloat16_and_ends() -> None:
    with cr.autocast("cpu") as region:
        assert region.device == "cpu"
        assert region.fast_dtype == cr.bfloat16
        assert cr.is_autocast_enabled("cpu")
        assert dtype_of_a_product() == cr.bfloat16
    assert not cr.is_autocast_enabled("cpu")
    assert dtype_of_a_product() == cr.float32


def test_regions_lie_inside_each_other() -> None:
    found = []
    with cr.autocast("cpu"):
        with cr.autocast("cpu", enabled=False):
            found.append(dtype_of_a_product())
            with cr.autocast("cpu", dtype=cr.float16):
                found.append(dtype_of_a_product())
            found.append(dtype_of_a_product())
        found.append(dtype_of_a_product())
    assert found == [cr.float32, cr.float16, cr.float32, cr.bfloat16]


def test_a_region_ends_with_an_error() -> None:
    with pytest.raises(ZeroDivisionError), cr.autocast("cpu", dtype=cr.float16, cache_enabled=False):
        raise ZeroDivisionError
    assert dtype_of_a_product() == cr.float32
    assert cr.get_autocast_dtype("cpu") == cr.bfloat16
    assert cr.is_autocast_cache_enabled()


def test_a_decorated_function_may_call_itself() -> None:
    @cr.autocast("cpu")
    def descend(depth: int) -> list[Any]:
        below = descend(depth - 1) if depth else []
        return [*below, dtype_of_a_product()]

    assert descend(2) == [cr.bfloat16] * 3
    assert descend.__name__ == "descend"
    assert dtype_of_a_product() == cr.float32


def test_a_setting_of_the_thread_is_what_a_region_takes() -> None:
    cr.set_autocast_dtype("cpu", cr.float16)
    with cr.autocast("cpu"):
        assert dtype_of_a_product() == cr.float16
    cr.set_autocast_dtype("cpu", cr.bfloat16)


# ---- As PyTorch says it ----

WORDS: list[Callable[[Any], Any]] = [
    lambda m: m.autocast(3),
    lambda m: m.autocast("cpu")(3),
    lambda m: m.amp.custom_fwd(device_type=3),
    lambda m: m.amp.custom_bwd(device_type=3),
    lambda m: m.amp.is_autocast_available(3),
]


@pytest.mark.torch
@pytest.mark.parametrize("call", WORDS)
def test_wrong_arguments_are_refused_in_pytorchs_words(call: Callable[[Any], Any], torch: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as theirs:
        call(torch)
    with pytest.raises(theirs.type) as ours:
        call(cr)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.torch
@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.autocast("cpu", dtype=m.float32),
        lambda m: m.autocast("xpu", dtype=m.float64),
        lambda m: m.autocast("cpu", dtype=m.float64, enabled=False),
        lambda m: m.autocast("cuda"),
        lambda m: m.autocast("cuda", enabled=False),
        lambda m: m.amp.GradScaler(),
        lambda m: m.cpu.amp.autocast(),
        lambda m: m.cpu.amp.GradScaler(),
    ],
)
def test_what_has_no_effect_warns_in_pytorchs_words(call: Callable[[Any], Any], torch: Any) -> None:
    said = []
    for module in (cr, torch):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = call(module)
        said.append([(each.category, str(each.message).replace("of torch.", "of ")) for each in caught])
        said[-1] = [(kind, text.replace(", torch.", ", ")) for kind, text in said[-1]]
        if caught and said[-1][0][0] is UserWarning and hasattr(made, "__enter__"):
            with made:
                assert module.mm(module.ones(2, 2), module.ones(2, 2)).dtype == module.float32
    assert said[0] == said[1]


# ---- Functions of users ----


def squared(module: Any, *, cast_inputs: Any = None) -> Any:
    class Square(module.autograd.Function):  # type: ignore[misc]
        @staticmethod
        @module.amp.custom_fwd(device_type="cpu", cast_inputs=cast_inputs)  # type: ignore[untyped-decorator]
        def forward(ctx: Any, x: Any, factors: Any) -> Any:
            ctx.save_for_backward(x)
            ctx.seen = (x.dtype, factors["w"].dtype, module.is_autocast_enabled("cpu"))
            return module.mm(x, x)

        @staticmethod
        @module.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            seen.append((*ctx.seen, module.is_autocast_enabled("cpu"), module.get_autocast_dtype("cpu")))
            product = module.mm(g, x.to(g.dtype))
            seen.append((product.dtype,))
            return product.to(x.dtype) + 0, None

    seen: list[tuple[Any, ...]] = []
    return Square, seen


@pytest.mark.torch
@pytest.mark.parametrize("cast", [None, "float32", "float16"])
@pytest.mark.parametrize("enabled", [True, False])
def test_functions_of_users_compute_as_pytorchs(enabled: bool, cast: str | None, torch: Any) -> None:
    outcomes = []
    for module in (cr, torch):
        Square, seen = squared(module, cast_inputs=cast and getattr(module, cast))
        x = module.ones(2, 2, requires_grad=True)
        with module.autocast("cpu", enabled=enabled):
            y = Square.apply(x, {"w": module.ones(2).bfloat16()})
        y.sum().backward()
        said = [str(each).removeprefix("torch.") for row in seen for each in row]
        outcomes.append([*said, str(y.dtype).removeprefix("torch."), str(x.grad.dtype).removeprefix("torch.")])
    assert outcomes[0] == outcomes[1]


def test_containers_and_other_arguments_are_cast_inside() -> None:
    seen: list[Any] = []

    @cr.amp.custom_fwd(device_type="cpu", cast_inputs=cr.float32)
    def forward(ctx: Any, *args: Any) -> None:
        seen.extend(args)

    class Context:
        pass

    array, low = np.ones(2), cr.ones(2).bfloat16()
    with cr.autocast("cpu"):
        forward(
            Context(), (low, [low]), cr.ones(2, dtype=cr.float64), cr.tensor([1]), "text", array, (x for x in [low])
        )
    nested, double, integer, text, same, generated = seen
    assert [nested[0].dtype, nested[1][0].dtype, double.dtype, integer.dtype] == [
        cr.float32, cr.float32, cr.float64, cr.int64,
    ]  # fmt: skip
    assert text == "text"
    assert same is array
    assert next(generated).dtype == cr.float32


# ---- Trained ----


LAYERS: dict[str, Callable[[Any], Any]] = {
    "stem": lambda m: m.nn.Conv2d(1, 8, 3, padding=1, bias=False),
    "norm": lambda m: m.nn.BatchNorm2d(8),
    "first": lambda m: m.nn.Conv2d(8, 8, 3, padding=1, bias=False),
    "norm1": lambda m: m.nn.BatchNorm2d(8),
    "second": lambda m: m.nn.Conv2d(8, 8, 3, padding=1, bias=False),
    "norm2": lambda m: m.nn.BatchNorm2d(8),
    "head": lambda m: m.nn.Linear(8, 4),
}


def block(m: Any) -> Any:
    """A residual block as in ResNet, and a head, of either library."""

    class Block(m.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for name, make in LAYERS.items():
                setattr(self, name, make(m))

        def steps(self, x: Any) -> list[Any]:
            stem = self.norm(self.stem(x)).relu()
            inner = self.norm1(self.first(stem)).relu()
            outer = self.norm2(self.second(inner))
            joined = (outer + stem).relu()
            pooled = joined.mean((2, 3))
            return [stem, inner, outer, joined, pooled, self.head(pooled)]

        def forward(self, x: Any) -> Any:
            return self.steps(x)[-1]

    return Block()


def examples(count: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images of 8 × 8 with a bright quarter, whose place is the class."""
    random = np.random.default_rng(seed)
    x, t = random.normal(size=(count, 1, 8, 8)).astype(np.float32), random.integers(0, 4, count)
    for image, place in zip(x, t, strict=True):
        row, column = 4 * (place // 2), 4 * (place % 2)
        image[0, row : row + 4, column : column + 4] += 2
    return x, t


def trained(make: Callable[[], nn.Module], *, enabled: bool, dtype: Any = cr.bfloat16) -> tuple[list[float], nn.Module]:
    """The losses of 30 steps, and the model."""
    cr.manual_seed(0)
    model = make()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scaler = cr.amp.GradScaler("cpu", init_scale=1024.0, enabled=enabled and dtype == cr.float16)
    x, t = map(cr.tensor, examples(256, 1))
    losses = []
    for step in range(30):
        rows = slice(32 * (step % 8), 32 * (step % 8) + 32)
        optimizer.zero_grad()
        with cr.autocast("cpu", dtype=dtype, enabled=enabled):
            loss = F.cross_entropy(model(x[rows]), t[rows])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return losses, model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "convnet": lambda: block(cr),
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.LayerNorm(32), nn.Linear(32, 4)),
}


@pytest.mark.parametrize("dtype", [cr.bfloat16, cr.float16])
@pytest.mark.parametrize("model", MODELS)
def test_trainings_come_to_the_same_losses_as_in_float32(model: str, dtype: Any) -> None:
    plain, _ = trained(MODELS[model], enabled=False)
    losses, trained_model = trained(MODELS[model], enabled=True, dtype=dtype)
    assert plain[-1] < plain[0] / 2
    assert losses != plain  # it did compute in lower precision
    np.testing.assert_allclose(losses, plain, rtol=0.0, atol=0.01)
    for name, value in trained_model.state_dict().items():
        assert value.dtype == (cr.int64 if name.endswith("num_batches_tracked") else cr.float32), name
    assert {p.grad is not None and p.grad.dtype for p in trained_model.parameters()} == {cr.float32}


@pytest.mark.torch
@pytest.mark.parametrize("training", [True, False])
def test_a_residual_block_is_pytorchs(training: bool, torch: Any) -> None:
    cr.manual_seed(0)
    ours, theirs = block(cr), block(torch)
    theirs.load_state_dict({name: to_torch(torch, value) for name, value in ours.state_dict().items()})
    x, t = examples(8, 2)
    found = []
    for module, model in ((cr, ours), (torch, theirs)):
        model.train(training)
        with module.autocast("cpu", dtype=module.bfloat16):
            steps = model.steps(module.tensor(x))
            loss = module.nn.functional.cross_entropy(steps[-1], module.tensor(t))
        loss.backward()
        found.append([*steps, loss, *(p.grad for p in model.parameters()), *model.buffers()])
    for mine, other in zip(*found, strict=True):
        assert str(mine.dtype) == str(other.dtype).removeprefix("torch.")
        a, b = to_array(mine), to_array(other)
        np.testing.assert_allclose(a, b, rtol=0.03, atol=0.03 * max(1.0, float(np.abs(b).max())))


@pytest.mark.torch
@pytest.mark.parametrize("dtypes", [("float64", "float32", None), ("float32", "float32", "float64"),
                                    ("float32", "float32", "int64"), ("float32", "float64", None),
                                    ("int64", "float32", None)])  # fmt: skip
def test_a_convolution_refuses_what_pytorchs_refuses(dtypes: tuple[str, str, str | None], torch: Any) -> None:
    for m in (cr, torch):
        shapes = ((1, 2, 4, 4), (3, 2, 3, 3), (3,))
        x, w, b = (None if d is None else m.ones(s).to(getattr(m, d)) for s, d in zip(shapes, dtypes, strict=True))
        with m.autocast("cpu", dtype=m.bfloat16), pytest.raises(RuntimeError):
            m.nn.functional.conv2d(x, w, b)
