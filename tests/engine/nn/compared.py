"""A function called by both libraries on the same numbers: values, gradients, dtypes and nodes are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule.engine as cr
from chainrule.engine.dtypes import Array
from tests.engine.nn.twins import ours

Call = Callable[..., Any]

TOLERANCE = {"float32": (2e-5, 2e-6), "float64": (1e-10, 1e-12)}


def draws(*shapes: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> list[Array]:
    """Normal numbers of the shapes."""
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in shapes]


def layouts(array: Array) -> dict[str, Array]:
    """The same numbers in other memory: column by column, and every second of twice as many."""
    if not array.ndim:
        return {"rows": array}
    strided = np.repeat(array, 2, axis=-1)[..., ::2]
    return {"rows": array, "columns": np.asfortranarray(array), "strided": strided}


def same(torch: Any, call: Call, arrays: list[Array], *, node: bool = True, precision: str | None = None) -> None:
    """call(library, *tensors) gives the same with both: value, node, and the gradients of all floating inputs.

    With `precision` the numbers are compared as those of this dtype.
    """
    torch.set_num_threads(1)  # so little work takes longer with more
    mine = [_leaf(array, cr.Tensor(array.copy(order="K"))) for array in arrays]
    theirs = [_leaf(array, _strided(torch, array)) for array in arrays]
    y, expected = call(ours, *mine), call(torch, *theirs)
    close(y, expected, precision or str(expected.dtype))
    assert str(y.dtype) == str(expected.dtype).removeprefix("torch.")
    assert y.requires_grad == expected.requires_grad
    if node and expected.grad_fn is not None:
        assert y.grad_fn.name().rstrip("0123456789") == expected.grad_fn.name().rstrip("0123456789")
    if not expected.requires_grad:
        return
    weight = np.random.default_rng(5).standard_normal(tuple(expected.shape)).astype(y.dtype)
    y.backward(cr.Tensor(weight))
    expected.backward(torch.tensor(weight))
    for x, t in zip(mine, theirs, strict=True):
        assert (x.grad is None) == (t.grad is None)
        if t.grad is not None:
            close(x.grad, t.grad, precision or str(t.dtype))


def close(x: Any, expected: Any, dtype: str = "torch.float32") -> None:
    rtol, atol = TOLERANCE.get(dtype.removeprefix("torch."), (0.0, 0.0))
    np.testing.assert_allclose(
        x.detach().numpy(), expected.detach().numpy(), rtol=rtol, atol=atol, strict=True, equal_nan=True
    )


def _leaf(array: Array, tensor: Any) -> Any:
    return tensor.requires_grad_(array.dtype.kind == "f")


def _strided(torch: Any, array: Array) -> Any:
    """A tensor with the strides of the array."""
    tensor = torch.from_numpy(array.copy(order="C"))
    made = torch.empty_strided(array.shape, [step // array.itemsize for step in array.strides], dtype=tensor.dtype)
    return made.copy_(tensor)
