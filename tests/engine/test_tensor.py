"""The Tensor's own manners: attributes, conversions, indexing, in-place operations, copies."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr


def test_a_tensor_describes_itself() -> None:
    x = cr.zeros(2, 3)
    assert (x.shape, x.size(), x.size(1), x.ndim, x.dim(), x.numel(), len(x)) == ((2, 3), (2, 3), 3, 2, 2, 6, 2)
    assert x.dtype == cr.float32
    assert x.is_floating_point()
    assert x.is_contiguous()
    assert not x.T.is_contiguous()


def test_only_floating_tensors_can_require_gradients() -> None:
    with pytest.raises(RuntimeError, match="only Tensors of floating point dtype can require gradients"):
        cr.ones(2, dtype=cr.int64, requires_grad=True)


def test_requires_grad_of_a_computed_tensor_cannot_be_dropped() -> None:
    y = cr.ones(2, requires_grad=True) * 2
    with pytest.raises(RuntimeError, match="leaf variables"):
        y.requires_grad = False


def test_numpy_shares_memory_and_refuses_what_requires_a_gradient() -> None:
    x = cr.zeros(2)
    x.numpy()[0] = 5
    assert x.tolist() == [5.0, 0.0]
    assert np.asarray(x).tolist() == [5.0, 0.0]
    with pytest.raises(RuntimeError, match=r"Use tensor.detach\(\).numpy\(\) instead"):
        cr.zeros(2, requires_grad=True).numpy()


def test_arrays_leave_arithmetic_to_the_tensor() -> None:
    y = np.ones(2, np.float32) * cr.ones(2, requires_grad=True)
    assert isinstance(y, cr.Tensor)
    assert y.requires_grad
    z = np.ones((2, 2), np.float32) @ cr.ones(2)
    assert isinstance(z, cr.Tensor)


def test_numbers_come_out() -> None:
    x = cr.tensor([2.5])
    assert (x.item(), float(x), int(x), bool(x), f"{cr.tensor(2.5):.2f}") == (2.5, 2.5, 2, True, "2.50")
    assert [10, 20, 30][cr.tensor(1)] == 20
    with pytest.raises(RuntimeError, match="a Tensor with 2 elements cannot be converted to Scalar"):
        cr.ones(2).item()
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(cr.ones(2))


def test_comparison_with_what_is_no_number_is_identity() -> None:
    x = cr.ones(1)
    other: Any = "a"
    assert not isinstance(x == other, cr.Tensor)
    assert not isinstance(x != other, cr.Tensor)
    assert {x: 1}[x] == 1


def test_detach_shares_memory_and_version() -> None:
    x = cr.ones(2, requires_grad=True)
    y = x.detach()
    y.zero_()
    assert not y.requires_grad
    assert x.tolist() == [0.0, 0.0]
    assert x._version == 1


def test_iteration_goes_over_the_first_dimension() -> None:
    assert [row.tolist() for row in cr.tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]
    with pytest.raises(TypeError, match="iteration over a 0-d tensor"):
        iter(cr.tensor(1))


# ---- Shapes ----


def test_reshapes() -> None:
    x = cr.arange(6)
    assert x.view(2, -1).shape == (2, 3)
    assert x.reshape((3, 2)).shape == (3, 2)
    assert x.view(1, 6, 1).flatten(1).shape == (1, 6)
    assert x.view(2, 3).T.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert cr.tensor(1).flatten().shape == (1,)
    assert x.view(2, 3, 1).squeeze(0).shape == (2, 3, 1)
    assert x.expand(2, -1).shape == (2, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x.reshape(4), r"shape '\[4\]' is invalid for input of size 6"),
        (lambda x: x.reshape(-1, 4), r"shape '\[-1, 4\]' is invalid for input of size 6"),
        (lambda x: x.reshape(-1, -1), "only one dimension can be inferred"),
        (lambda x: x.T.view(6), r"Use .reshape\(...\) instead"),
        (lambda x: x.permute(0, 0), "duplicate dims are not allowed"),
        (lambda x: x.expand(2, 4), r"must match the existing size \(3\) at non-singleton dimension 1"),
        (
            lambda x: x + cr.ones(2),
            r"size of tensor a \(3\) must match the size of tensor b \(2\) at non-singleton dimension 1",
        ),
        (lambda x: x @ cr.ones(2), r"size mismatch, got input \(2\), mat \(2x3\), vec \(2\)"),
        (lambda x: cr.cat([x, cr.ones(1, 1)]), "Sizes of tensors must match except in dimension 0"),
        (lambda x: cr.stack([x, cr.ones(1, 1)]), "equal size"),
        (lambda x: cr.stack([]), "non-empty"),
        (lambda x: x.sum((0, 0)), "appears multiple times"),
    ],
)
def test_impossible_shapes_are_explained(call: Any, message: str) -> None:
    with pytest.raises(cr.ShapeError, match=message):
        call(cr.ones(2, 3))


@pytest.mark.parametrize(
    "call", [lambda x: x.sum(2), lambda x: x.transpose(0, 2), lambda x: x.argmax(-3), lambda x: x.unsqueeze(4)]
)
def test_dimensions_that_are_not_there_are_index_errors(call: Any) -> None:
    with pytest.raises(IndexError, match="Dimension out of range") as caught:
        call(cr.ones(2, 3))
    assert isinstance(caught.value, cr.DimensionError)


def test_products_of_different_dtypes_are_refused() -> None:
    with pytest.raises(cr.DTypeError, match="expected m1 and m2 to have the same dtype, but got: float != double"):
        cr.ones(2, 2) @ cr.ones(2, 2, dtype=cr.float64)


def test_extremes_along_a_dimension_have_indices_and_gradients() -> None:
    x = cr.tensor([[1.0, 5.0, 5.0], [7.0, 2.0, 3.0]], requires_grad=True)
    values, indices = x.max(1)
    assert (values.tolist(), indices.tolist()) == ([5.0, 7.0], [1, 0])
    assert x.min(dim=0, keepdim=True).values.tolist() == [[1.0, 2.0, 3.0]]
    values.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


def test_mean_of_integers_is_refused() -> None:
    with pytest.raises(cr.DTypeError, match="Got: Long"):
        cr.arange(3).mean()


def test_indices_may_be_tensors() -> None:
    x = cr.arange(12).view(3, 4)
    assert x[cr.tensor([2, 0]), 1].tolist() == [9, 1]
    assert x[x > 9].tolist() == [10, 11]
    assert x[cr.tensor(1)].tolist() == [4, 5, 6, 7]
    assert x[..., -1].tolist() == [3, 7, 11]


# ---- In place ----


def test_one_element_is_a_view() -> None:
    x = cr.zeros(3)
    x[1].fill_(5)
    assert x.tolist() == [0.0, 5.0, 0.0]
    assert x._version == 1


def test_in_place_operations_count_versions() -> None:
    x = cr.ones(2)
    identity = x
    x += 1
    x *= cr.tensor([1.0, 2.0])
    x -= 1
    x /= 2
    x[0] = 9
    x.copy_(x * 2)
    assert x is identity
    assert x.tolist() == [18.0, 3.0]
    assert x._version == 6


def test_a_leaf_that_requires_a_gradient_is_written_only_without_recording() -> None:
    x = cr.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad is being used in an in-place operation"):
        x += 1
    with cr.no_grad():
        x -= 0.5
    assert x.requires_grad
    assert x.tolist() == [0.5, 0.5]


def test_writing_to_an_expanded_tensor_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"Please clone\(\) the tensor"):
        cr.zeros(1).expand(3).fill_(1)


def test_in_place_results_must_fit() -> None:
    with pytest.raises(cr.DTypeError, match="can't be cast to the desired output type Long"):
        cr.arange(2).__iadd__(0.5)
    with pytest.raises(cr.ShapeError):
        cr.ones(2).add_(cr.ones(3))


# ---- Copies ----


def test_deepcopy_copies_leaves_with_gradients_and_refuses_computed_tensors() -> None:
    x = cr.ones(2, requires_grad=True)
    (x * 3).sum().backward()
    y = copy.deepcopy(x)
    assert y.requires_grad
    assert y.grad is not None
    assert y.grad.tolist() == [3.0, 3.0]
    assert not np.shares_memory(x.data, y.data)
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(x * 2)


def test_pickling_keeps_values_and_refuses_computed_tensors() -> None:
    x = pickle.loads(pickle.dumps(cr.nn.Parameter(cr.arange(3.0))))
    assert isinstance(x, cr.nn.Parameter)
    assert (x.tolist(), x.requires_grad) == ([0.0, 1.0, 2.0], True)
    with pytest.raises(RuntimeError, match="pickle its detach"):
        pickle.dumps(x * 2)


def test_conversion_to_its_own_dtype_is_itself() -> None:
    x = cr.ones(2)
    assert x.float() is x
    assert (x.double().dtype, x.long().dtype) == (cr.float64, cr.int64)
    with pytest.raises(cr.DTypeError, match="complex64 is not supported"):
        x.to("complex64")


def test_view_as_takes_the_shape_of_another_tensor_and_mt_swaps_the_last_two() -> None:
    x = cr.arange(6)
    assert x.view_as(cr.zeros(2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert x.view(1, 2, 3).mT.tolist() == [[[0, 3], [1, 4], [2, 5]]]


# ---- numpy's functions ----


def test_numpys_functions_see_arrays_and_give_arrays() -> None:
    x = cr.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert type(np.sum(x)) is np.float32
    np.testing.assert_array_equal(np.concatenate([x, x], axis=1)[0], [1, 2, 1, 2])
    np.testing.assert_array_equal(np.mean(x, axis=0), [2, 3])
    assert np.allclose(x, x.numpy())
    np.testing.assert_array_equal(np.asarray(x), x.numpy())
    two: Any = np.float32(2)
    assert two * x[0, 1] == 4
    assert isinstance(np.ones(2) * x, cr.Tensor)


def test_numpys_functions_do_not_see_recorded_tensors() -> None:
    x = cr.ones(2, requires_grad=True)
    for call in (lambda: np.sum(x), lambda: np.asarray(x), lambda: np.stack([x, x])):
        with pytest.raises(RuntimeError, match=r"Use tensor\.detach\(\)\.numpy\(\) instead"):
            call()


def test_numpys_ufuncs_refuse_tensors() -> None:
    with pytest.raises(TypeError, match="'Tensor' does not support ufuncs"):
        np.exp(cr.ones(2))


@pytest.mark.torch
@pytest.mark.parametrize("arguments", [(), (3,), (2, 3), (0, 2), ([1, 2],), ((2, 3),)], ids=str)
def test_the_constructor_takes_lengths_or_a_sequence(torch: Any, arguments: tuple[Any, ...]) -> None:
    ours, theirs = cr.Tensor(*arguments), torch.Tensor(*arguments)
    assert ours.shape == tuple(theirs.shape)
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
    if arguments and not isinstance(arguments[0], int):
        assert ours.tolist() == theirs.tolist()


def test_lengths_and_sequences_do_not_mix() -> None:
    with pytest.raises(cr.DTypeError, match="one sequence of numbers, or integers that are the lengths"):
        cr.Tensor(2, [3])
