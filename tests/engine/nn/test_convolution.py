"""Convolutions are PyTorch's: values and gradients over grids of settings, layers, and the errors of wrong use."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.dtypes import Array
from chainrule.engine.kernels.reference import convolution as kernels
from chainrule.engine.nn import functional as F
from tests.engine.nn.twins import same_error

TOLERANCE = {"float32": (1e-4, 2e-5), "float64": (1e-10, 1e-11)}

Call = Callable[..., Any]


def draw(*size: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed + len(size)).standard_normal(size)


def laid_out(x: Array, memory: str) -> Array:
    """The same numbers in another order in memory."""
    if memory == "channels last":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -3, -1)), -1, -3)
    return np.repeat(x, 2, axis=-1)[..., ::2] if memory == "strided" else x


def agree(torch: Any, call: Call, arrays: list[Array], dtype: str = "float64", memory: str = "contiguous") -> Array:
    """Checks that `call(m, *tensors)` has one value and one gradient by each tensor, whichever library m is."""
    arrays = [laid_out(x.astype(dtype), memory if i == 0 else "") for i, x in enumerate(arrays)]
    ours = [cr.Tensor(x, requires_grad=True) for x in arrays]
    theirs = [torch.tensor(x, requires_grad=True) for x in arrays]
    y, expected = call(cr, *ours), call(torch, *theirs)
    rtol, atol = TOLERANCE[dtype]
    value = np.asarray(y.detach().numpy())
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=rtol, atol=atol, strict=True)
    weight = np.random.default_rng(9).standard_normal(value.shape).astype(dtype)
    y.backward(cr.Tensor(weight))
    expected.backward(torch.tensor(weight))
    for x, t in zip(ours, theirs, strict=True):
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=rtol, atol=10 * atol, strict=True)
    return value


# ---- Over grids ----


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("memory", ["contiguous", "channels last", "strided"])
def test_conv2d_is_pytorchs(memory: str, groups: int, dtype: str, torch: Any) -> None:
    for (kh, kw), stride, padding, dilation in itertools.product(
        [(3, 3), (1, 1), (2, 3)], [1, 2, (2, 3)], [0, 1, (2, 1)], [1, (2, 1)]
    ):
        agree(
            torch,
            lambda m, x, w, b, s=(stride, padding, dilation): m.nn.functional.conv2d(x, w, b, *s, groups),
            [draw(2, 4, 7, 6), draw(8, 4 // groups, kh, kw), draw(8)],
            dtype,
            memory,
        )


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("memory", ["contiguous", "channels last", "strided"])
def test_conv_transpose2d_is_pytorchs(memory: str, groups: int, dtype: str, torch: Any) -> None:
    for (kh, kw), stride, padding, output_padding, dilation in itertools.product(
        [(3, 3), (1, 1), (2, 3)], [1, (2, 3)], [0, (0, 1)], [0, 1, (0, 1)], [1, (2, 2)]
    ):
        if stride == 1 and dilation == 1 and output_padding != 0:
            continue
        agree(
            torch,
            lambda m, x, w, b, s=(stride, padding, output_padding, groups, dilation): m.nn.functional.conv_transpose2d(
                x, w, b, *s
            ),
            [draw(2, 4, 3, 4), draw(4, 8 // groups, kh, kw), draw(8)],
            dtype,
            memory,
        )


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("groups", [1, 3])
def test_convolutions_in_one_dimension_are_pytorchs(groups: int, dtype: str, torch: Any) -> None:
    for kernel, stride, padding, dilation in itertools.product([1, 2, 3], [1, 2], [0, 1], [1, 2]):
        agree(
            torch,
            lambda m, x, w, b, s=(stride, padding, dilation): m.nn.functional.conv1d(x, w, b, *s, groups),
            [draw(2, 6, 9), draw(3, 6 // groups, kernel), draw(3)],
            dtype,
        )
        if kernel > padding:
            agree(
                torch,
                lambda m, x, w, b, s=(stride, padding, stride - 1, groups, dilation): m.nn.functional.conv_transpose1d(
                    x, w, b, *s
                ),
                [draw(2, 6, 4), draw(6, 2, kernel), draw(2 * groups)],
                dtype,
            )


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("window", [(1, 1), (2, 2), (3, 4), (4, 5)])
@pytest.mark.parametrize("dilation", [1, 2, (1, 3)])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_has_names(window: tuple[int, int], dilation: Any, padding: str, torch: Any) -> None:
    y = agree(
        torch,
        lambda m, x, w: m.nn.functional.conv2d(x, w, padding=padding, dilation=dilation),
        [draw(2, 3, 9, 14), draw(2, 3, *window)],
    )
    if padding == "same":
        assert y.shape == (2, 2, 9, 14)


@pytest.mark.torch
@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.data())
def test_any_geometry_is_pytorchs(torch: Any, data: st.DataObject) -> None:
    def ints(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    n, groups, per_group, out, transposed = ints(0, 3), ints(1, 3), ints(1, 2), ints(1, 3), data.draw(st.booleans())
    kernel, stride, padding, dilation = ((ints(low, 3), ints(low, 3)) for low in (1, 1, 0, 1))
    extent = [dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    size = [ints(max(1, extent[i] - 2 * padding[i]), extent[i] + 6) for i in (0, 1)]
    channels = groups * per_group
    if not transposed:
        agree(
            torch,
            lambda m, x, w, b: m.nn.functional.conv2d(x, w, b, stride, padding, dilation, groups),
            [draw(n, channels, *size), draw(groups * out, per_group, *kernel), draw(groups * out)],
        )
        return
    behind = [ints(0, max(stride[i], dilation[i]) - 1) for i in (0, 1)]
    if all((size[i] - 1) * stride[i] - 2 * padding[i] + extent[i] + behind[i] > 0 for i in (0, 1)):
        agree(
            torch,
            lambda m, x, w, b: m.nn.functional.conv_transpose2d(x, w, b, stride, padding, behind, groups, dilation),
            [draw(n, channels, *size), draw(channels, out, *kernel), draw(groups * out)],
        )


@pytest.mark.torch
def test_the_gradient_of_the_gradient_is_pytorchs(torch: Any) -> None:
    def twice(m: Any, x: Any, w: Any) -> Any:
        y = m.nn.functional.conv2d(x, w, stride=2, padding=1, groups=2)
        z = m.nn.functional.conv_transpose2d(y.tanh(), w, stride=2, groups=2)
        gx, gw = m.autograd.grad((z**3).sum(), (x, w), create_graph=True)
        return (gx**2).sum() + (gw**3).sum()

    agree(torch, twice, [draw(2, 4, 5, 6) / 3, draw(6, 2, 3, 3) / 3])


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["int64", "float16", "bfloat16"])
def test_other_dtypes_are_pytorchs(dtype: str, torch: Any) -> None:
    x, w = np.round(draw(2, 3, 5, 5) * 4), np.round(draw(4, 3, 3, 3) * 2)  # no sum of these is rounded in float16
    y = F.conv2d(cr.tensor(x).to(dtype), cr.tensor(w).to(dtype))
    expected = torch.nn.functional.conv2d(
        torch.tensor(x).to(getattr(torch, dtype)), torch.tensor(w).to(getattr(torch, dtype))
    )
    assert str(y.dtype) == dtype
    np.testing.assert_array_equal(y.double().numpy(), expected.double().numpy())


# ---- Memory and the order of additions ----


def test_no_images_give_no_images_and_zero_gradients() -> None:
    x, w = cr.zeros(0, 3, 5, 5, requires_grad=True), cr.ones(2, 3, 3, 3).requires_grad_()
    y = F.conv2d(x, w, cr.ones(2))
    y.sum().backward()
    assert y.shape == (0, 2, 3, 3)
    assert x.grad is not None
    assert x.grad.shape == (0, 3, 5, 5)
    assert w.grad is not None
    np.testing.assert_array_equal(w.grad.numpy(), np.zeros((2, 3, 3, 3)))


@pytest.mark.parametrize("memory", ["contiguous", "channels last"])
def test_outputs_and_gradients_are_channels_last_in_memory(memory: str) -> None:
    x = cr.Tensor(laid_out(draw(2, 4, 6, 6), memory), requires_grad=True)
    y = F.conv2d(x, cr.Tensor(draw(4, 4, 3, 3)), padding=1)
    y.backward(cr.ones_like(y))
    assert x.grad is not None
    for array in (y.data, x.grad.data, F.conv_transpose2d(y, cr.Tensor(draw(4, 2, 2, 2)), stride=2).data):
        assert array.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_images_in_blocks_give_what_one_block_gives(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def results() -> list[Array]:
        x, w = (
            cr.Tensor(draw(5, 4, 6, 6), requires_grad=True),
            cr.Tensor(draw(4, 4 // groups, 3, 3), requires_grad=True),
        )
        y = F.conv2d(x, w, padding=1, groups=groups)
        y.backward(cr.Tensor(draw(*y.shape, seed=4)))
        assert x.grad is not None
        assert w.grad is not None
        return [y.data, x.grad.data, w.grad.data]

    whole = results()
    monkeypatch.setattr(kernels, "GATHERED_BYTES", 1)
    monkeypatch.setattr(kernels, "DEPTHWISE_BYTES", 1)
    for one, other in zip(results(), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


def test_the_same_convolution_has_the_same_bits() -> None:
    x, w = draw(3, 8, 9, 9).astype(np.float32), draw(16, 8, 3, 3).astype(np.float32)
    first, second = (F.conv2d(cr.Tensor(x), cr.Tensor(w), padding=1).numpy().tobytes() for _ in range(2))
    assert first == second


# ---- Layers ----

LAYERS: list[tuple[Callable[[Any], Any], tuple[int, ...]]] = [
    (lambda m: m.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9)),
    (lambda m: m.Conv1d(2, 3, (2,), padding="same", bias=False), (2, 7)),
    (lambda m: m.Conv1d(2, 3, 4, padding="same", padding_mode="circular"), (1, 2, 7)),
    (lambda m: m.Conv2d(3, 4, (3, 2), padding=(1, 2), dilation=2), (2, 3, 7, 6)),
    (lambda m: m.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), (2, 4, 5, 5)),
    (lambda m: m.Conv2d(3, 4, 3, padding=(1, 2), padding_mode="reflect"), (2, 3, 5, 6)),
    (lambda m: m.Conv2d(3, 4, 3, stride=2, padding=2, padding_mode="replicate"), (3, 5, 6)),
    (lambda m: m.Conv2d(3, 4, (2, 4), padding="same", dilation=(1, 2), padding_mode="circular"), (2, 3, 8, 9)),
    (lambda m: m.Conv2d(3, 4, 2, padding="valid", padding_mode="reflect"), (2, 3, 5, 5)),
    (lambda m: m.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 4, 5)),
    (lambda m: m.ConvTranspose1d(2, 3, 2, dilation=2, bias=False), (2, 5)),
    (lambda m: m.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), (2, 3, 4, 5)),
    (lambda m: m.ConvTranspose2d(4, 6, (2, 3), groups=2, dilation=(2, 1)), (4, 4, 5)),
]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(("make", "shape"), LAYERS, ids=lambda value: repr(value(nn)) if callable(value) else "")
def test_layer_is_pytorchs(make: Callable[[Any], Any], shape: tuple[int, ...], torch: Any) -> None:
    ours, theirs = make(nn), make(torch.nn)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    assert repr(ours) == repr(theirs)
    assert {name: tuple(value.shape) for name, value in ours.state_dict().items()} == {
        name: tuple(value.shape) for name, value in theirs.state_dict().items()
    }
    layers = {cr: ours, torch: theirs}
    agree(torch, lambda m, x: layers[m](x), [draw(*shape)], "float32")
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-4, atol=1e-4, strict=True)


@pytest.mark.torch
@pytest.mark.parametrize("make", [lambda m: m.Conv2d(8, 64, 3, groups=2), lambda m: m.ConvTranspose2d(64, 32, 3)])
def test_parameters_begin_as_pytorchs_do(make: Callable[[Any], Any], torch: Any) -> None:
    cr.manual_seed(0)
    torch.manual_seed(0)
    ours, theirs = make(nn), make(torch.nn)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert p.dtype == cr.float32
        assert np.abs(p.detach().numpy()).max() == pytest.approx(q.abs().max().item(), rel=0.1)
        assert p.detach().numpy().std() == pytest.approx(q.std().item(), rel=0.3)


@pytest.mark.torch
def test_a_transposed_layer_takes_the_size_of_its_output(torch: Any) -> None:
    ours, theirs = (m.ConvTranspose2d(3, 2, 3, stride=2, padding=1) for m in (nn, torch.nn))
    for size in [(7, 8), (2, 8, 7), (1, 2, 8, 8)]:
        shape = (3, 4, 4) if len(size) == 3 else (1, 3, 4, 4)
        y, expected = ours(cr.ones(*shape), output_size=size), theirs(torch.ones(shape), output_size=size)
        assert y.shape == tuple(expected.shape)


def test_a_layer_has_the_dtype_it_is_asked_for() -> None:
    layer = nn.Conv2d(1, 2, 3, dtype=cr.float64)
    assert {p.dtype for p in layer.parameters()} == {cr.float64}
    assert layer(cr.ones(1, 3, 3, dtype=cr.float64)).dtype == cr.float64


# ---- Wrong use ----

x4, w4 = (1, 3, 5, 5), (2, 3, 3, 3)
half: Any = 0.5


@pytest.mark.torch
@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.nn.functional.conv2d(m.ones(1, 4, 5, 5), m.ones(w4)),
        lambda m: m.nn.functional.conv2d(m.ones(4, 5, 5), m.ones(w4)),
        lambda m: m.nn.functional.conv2d(m.ones(1, 4, 5, 5), m.ones(3, 2, 3, 3), groups=2),
        lambda m: m.nn.functional.conv2d(m.ones(1, 3, 2, 5), m.ones(w4)),
        lambda m: m.nn.functional.conv2d(m.ones(1, 3, 2, 5), m.ones(w4), dilation=2, padding=1),
        lambda m: m.nn.functional.conv2d(m.ones(3), m.ones(w4)),
        lambda m: m.nn.functional.conv2d(m.ones(1, 3, 5, 5, 5), m.ones(w4)),
        lambda m: m.nn.functional.conv2d(m.ones(x4), m.ones(w4), m.ones(3)),
        lambda m: m.nn.functional.conv2d(m.ones(x4), m.ones(w4), stride=0),
        lambda m: m.nn.functional.conv2d(m.ones(x4), m.ones(w4), stride=(1, 1, 1)),
        lambda m: m.nn.functional.conv2d(m.ones(x4), m.ones(w4), padding=-1),
        lambda m: m.nn.functional.conv2d(m.ones(x4), m.ones(w4), padding=(1, 1, 1)),
        lambda m: m.nn.functional.conv2d(m.ones(x4), m.ones(w4), dilation=0),
        lambda m: m.nn.functional.conv2d(m.ones(x4), m.ones(w4), dilation=(1, 1, 1)),
        lambda m: m.nn.functional.conv2d(m.ones(x4), m.ones(w4), groups=0),
        lambda m: m.nn.functional.conv2d(m.ones(x4), m.ones(w4), stride=2, padding="same"),
        lambda m: m.nn.functional.conv2d(m.ones(x4), m.ones(w4), padding="half"),
        lambda m: m.nn.functional.conv2d(m.ones(x4), m.ones(0, 3, 3, 3)),
        lambda m: m.nn.functional.conv1d(m.ones(1, 4, 5), m.ones(2, 3, 3)),
        lambda m: m.nn.functional.conv1d(m.ones(1, 3, 2), m.ones(2, 3, 3)),
        lambda m: m.nn.functional.conv1d(m.ones(3), m.ones(2, 3, 3)),
        lambda m: m.nn.functional.conv1d(m.ones(1, 3, 5), m.ones(2, 3, 3), padding=(1, 1)),
        lambda m: m.nn.functional.conv1d(m.ones(1, 3, 5), m.ones(w4)),
        lambda m: m.nn.functional.conv_transpose2d(m.ones(1, 4, 5, 5), m.ones(3, 2, 3, 3)),
        lambda m: m.nn.functional.conv_transpose2d(m.ones(x4), m.ones(3, 2, 3, 3), output_padding=1),
        lambda m: m.nn.functional.conv_transpose2d(m.ones(x4), m.ones(3, 2, 3, 3), stride=2, output_padding=-1),
        lambda m: m.nn.functional.conv_transpose2d(m.ones(x4), m.ones(3, 2, 3, 3), m.ones(3)),
        lambda m: m.nn.functional.conv_transpose2d(m.ones(1, 3, 1, 1), m.ones(3, 2, 3, 3), padding=2),
        lambda m: m.nn.functional.conv_transpose2d(m.ones(3), m.ones(3, 2, 3, 3)),
        lambda m: m.nn.functional.conv_transpose2d(m.ones(x4), m.ones(3, 2, 3, 3), padding="same"),
        lambda m: m.nn.Conv2d(3, 2, 3, groups=2),
        lambda m: m.nn.Conv2d(4, 3, 3, groups=2),
        lambda m: m.nn.Conv2d(4, 3, 3, groups=0),
        lambda m: m.nn.Conv2d(3, 2, 3, padding="same", stride=2),
        lambda m: m.nn.Conv2d(3, 2, 3, stride=0)(m.ones(x4)),
        lambda m: m.nn.Conv2d(3, 2, 3, padding=1, padding_mode="reflect")(m.ones(1, 3, 1, 5)),
        lambda m: m.nn.ConvTranspose2d(3, 2, 3, padding_mode="reflect"),
        lambda m: m.nn.ConvTranspose2d(3, 2, 3, stride=2)(m.ones(1, 3, 4, 4), output_size=(12, 9)),
        lambda m: m.nn.ConvTranspose2d(3, 2, 3, stride=2)(m.ones(1, 3, 4, 4), output_size=(1, 9, 9)),
    ],
)
def test_wrong_use_is_refused_in_pytorchs_words(call: Callable[[Any], Any], torch: Any) -> None:
    same_error(torch, call)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Conv2d(3, 2, 3, padding="half"), cr.ConfigError, "Invalid padding string 'half', should be one of"),
        (lambda: nn.Conv2d(3, 2, 3, padding_mode="wrap"), cr.ConfigError, "padding_mode must be one of"),
        (
            lambda: F.conv2d(cr.ones(x4), cr.ones(w4), stride=half),
            cr.DTypeError,
            "'stride' must be tuple of ints, not f",
        ),
        (lambda: F.conv2d(half, cr.ones(w4)), cr.DTypeError, "'input' .position 1. must be Tensor, not float"),
        (lambda: F.conv2d(cr.ones(x4).double(), cr.ones(w4)), cr.DTypeError, "input is float64 and weight float32"),
        (lambda: F.conv2d(cr.ones(x4), cr.ones(w4), cr.ones(2).double()), cr.DTypeError, "and bias float64"),
        (lambda: F.conv2d(cr.ones(x4), cr.ones(2, 3, 0, 3)), cr.ShapeError, "kernel size should be greater than zero"),
        (
            lambda: F.conv_transpose1d(cr.ones(1, 3, 5), cr.ones(3, 2, 3), output_padding=1),
            cr.ConfigError,
            "output_padding=1: output padding must be smaller than either stride or dilation, but got "
            "output_padding_width: 1 stride_width: 1 dilation_width: 1",
        ),
    ],
)
def test_wrong_use_is_explained(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
