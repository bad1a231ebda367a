"""Conversions: dtypes, copies and memory layouts are PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from tests.engine.functions.expressions import assert_agrees

EXPRESSIONS = [
    "x.to(m.float64)",
    "x.to('cpu')",
    "x.to('cpu', m.float64)",
    "x.to(n)",
    "x.to(dtype=m.int8)",
    "x.to(m.float64, copy=True)",
    "x.to(m.float16).to(m.bfloat16)",
    "x.half()",
    "x.bfloat16()",
    "x.double()",
    "x.int()",
    "x.short()",
    "x.char()",
    "x.byte()",
    "x.bool()",
    "(x - 1.5).int()",
    "(x / 4).long()",
    "x.type()",
    "n.type()",
    "x.type('torch.DoubleTensor')",
    "x.type(m.int64)",
    "x.type_as(n)",
    "x.cpu()",
    "x.T.contiguous().stride()",
    "x.T.clone().stride()",
    "x.T.clone(memory_format=m.contiguous_format).stride()",
    "m.ones(2, 3, 4, 5).contiguous(memory_format=m.channels_last).stride()",
    "m.ones(2, 3, 4, 5).to(memory_format=m.channels_last).is_contiguous(memory_format=m.channels_last)",
    "m.ones(2, 3, 4, 5).clone(memory_format=m.channels_last).is_contiguous()",
    "m.ones(2, 3, 4, 5).is_contiguous(memory_format=m.channels_last)",
    "m.ones(2, 1, 4, 5).is_contiguous(memory_format=m.channels_last)",
    "m.ones(2, 3, 1, 1).is_contiguous(memory_format=m.channels_last)",
    "m.ones(2, 3, 4, 5).double().to(m.float32, memory_format=m.channels_last).stride()",
    "x.contiguous(memory_format=m.channels_last)",
    "x.clone(memory_format=m.channels_last)",
    "x.is_contiguous(memory_format=m.channels_last)",
    "x.to(m.float32) is x",
    "x.to(m.float32,copy=True) is x",
    "x.to(x) is x",
    "x.to(m.arange(3)).dtype",
    "x.to(dtype=m.float64).dtype",
    "x.type(m.float64).dtype",
    'x.type("m.DoubleTensor").dtype',
    'x.type("bad")',
    "x.type_as(m.arange(3)).dtype",
    "x.cpu() is x",
    "x.contiguous(memory_format=m.preserve_format)",
    "m.ones(2,3,4,5).contiguous(memory_format=m.channels_last).stride()",
    "x.float() is x",
    "x.size()",
    "x.char().dtype",
    "m.tensor(-1.5).byte()",
]


@pytest.mark.torch
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_conversions_and_their_errors_are_pytorchs(expression: str, torch: Any) -> None:
    assert_agrees(torch, expression)


def test_what_needs_no_conversion_is_the_tensor_itself() -> None:
    x = cr.ones(2, 3)
    assert all(y is x for y in (x.float(), x.to(cr.float32), x.to("cpu"), x.to(x), x.cpu(), x.contiguous()))
    assert x.to(cr.float32, copy=True) is not x
    assert x.clone() is not x


@pytest.mark.parametrize("call", [lambda x: x.to("cuda"), lambda x: x.cuda(), lambda x: cr.ones(2, device="mps:0")])
def test_other_devices_are_refused(call: Any) -> None:
    with pytest.raises(cr.UnsupportedError, match="tensors lie in the memory of the CPU"):
        call(cr.ones(2))


def test_a_device_is_the_cpu() -> None:
    assert repr(cr.device("cpu")) == "device(type='cpu')"
    assert cr.ones(2).device == cr.device("cpu")
    assert (str(cr.device("cpu:0")), cr.device("cpu:0").index) == ("cpu:0", 0)


@pytest.mark.torch
def test_gradients_pass_dtypes_and_layouts(torch: Any) -> None:
    gradients = []
    for m in (cr, torch):
        x = m.arange(24.0).reshape(1, 2, 3, 4).requires_grad_()
        y = x.to(m.float64).to(memory_format=m.channels_last).clone().contiguous().to(m.float32)
        (y * y).sum().backward()
        gradients.append((x.grad.tolist(), str(x.grad.dtype).removeprefix("torch.")))
    assert gradients[0] == gradients[1]


@pytest.mark.torch
@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: x + x,
        lambda m, x: (x * 2).exp().relu(),
        lambda m, x: x + m.ones(3, 1, 1),
        lambda m, x: m.where(x > 0, x, 0.0),
        lambda m, x: x.double(),
        lambda m, x: m.zeros_like(x),
        lambda m, x: m.rand_like(x),
        lambda m, x: x.clone(),
    ],
)
def test_results_of_channels_last_are_channels_last(call: Any, torch: Any) -> None:
    for m in (cr, torch):
        x = m.ones(2, 3, 4, 5).to(memory_format=m.channels_last)
        assert call(m, x).is_contiguous(memory_format=m.channels_last)


def test_memory_formats_have_names() -> None:
    names = [repr(each) for each in (cr.channels_last, cr.contiguous_format, cr.preserve_format)]
    assert names == ["channels_last", "contiguous_format", "preserve_format"]
    with pytest.raises(TypeError, match="must be a memory format, not str"):
        cr.ones(2).contiguous("rows")  # type: ignore[arg-type]


def test_a_tensor_of_a_name_of_no_type_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid type: 'bad'"):
        cr.ones(2).type("bad")
    assert np.dtype("float64") == cr.ones(2).type(cr.float64).dtype


@pytest.mark.parametrize("dtype", [cr.float16, cr.bfloat16, cr.float64])
def test_the_gradient_comes_back_in_the_dtype_it_left(dtype: Any) -> None:
    x = cr.tensor([0.5, 2.0], requires_grad=True)
    for create_graph in (False, True):
        (g,) = cr.autograd.grad(x.to(dtype).exp().sum(), x, create_graph=create_graph)
        assert g is not None
        assert g.dtype == cr.float32
        np.testing.assert_allclose(g.detach().numpy(), np.exp([0.5, 2.0]), rtol=1e-2)
