"""Examples are converted to what the API wants, or refused here where that would change their meaning."""

import numpy as np
import pytest
from numpy.typing import ArrayLike

from chainrule.client import InvalidInputError
from chainrule.client.examples import to_column, to_inputs, to_targets

INPUTS = np.arange(16, dtype=np.float32).reshape(4, 1, 2, 2)
TARGETS = np.array([0, 1, 2, 1])


@pytest.mark.parametrize(
    "inputs", [INPUTS, INPUTS.astype(np.float64), INPUTS.astype(np.uint8), INPUTS > 3, INPUTS[:, :, ::-1], [[1.5], [2]]]
)
def test_inputs_become_contiguous_float32(inputs: ArrayLike) -> None:
    converted = to_inputs(inputs)
    assert converted.dtype == np.float32
    assert converted.flags.c_contiguous
    np.testing.assert_array_equal(converted, inputs)


@pytest.mark.parametrize("targets", [[0, 1, 2], np.array([0, 1], np.uint8), np.array([True, False]), np.arange(8)[::2]])
def test_targets_become_contiguous_int64(targets: ArrayLike) -> None:
    converted = to_targets(targets)
    assert converted.dtype == np.int64
    assert converted.flags.c_contiguous
    np.testing.assert_array_equal(converted, targets)


@pytest.mark.parametrize("targets", [[0.0, 1.5], np.eye(3, dtype=np.float16), np.array([1.0, 2.0])])
def test_targets_of_a_floating_dtype_become_float32(targets: ArrayLike) -> None:
    converted = to_targets(targets)
    assert converted.dtype == np.float32
    np.testing.assert_array_equal(converted, targets)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0.0, 1e300], "targets of dtype float64 hold values beyond the range of float32"),
        (np.array([0, 2**64 - 1], np.uint64), r"targets\[1\] is 18446744073709551615"),
        (["zero", "one"], "targets have dtype <U4"),
        (np.array([0, None]), "targets have dtype object"),
    ],
)
def test_targets_that_are_neither_labels_nor_numbers_are_refused_here(targets: ArrayLike, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        to_targets(targets)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.array([1e300, 1.0]), "inputs of dtype float64 hold values beyond the range of float32"),
        (np.array([1j]), "inputs have dtype complex128"),
        (["a"], "inputs have dtype <U1"),
    ],
)
def test_inputs_that_do_not_fit_float32_are_refused_here(inputs: ArrayLike, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        to_inputs(inputs)


def test_what_is_wrong_with_the_values_is_the_servers_to_say() -> None:
    np.testing.assert_array_equal(to_inputs([np.nan, np.inf]), np.array([np.nan, np.inf], np.float32))
    np.testing.assert_array_equal(to_targets([-1]), [-1])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0.5, 2], np.float32), ([1, -2], np.int64), ([True, False], np.int64), (np.array([255], np.uint8), np.int64)],
)
def test_another_column_has_the_dtype_of_its_numbers(values: ArrayLike, dtype: type[np.generic]) -> None:
    converted = to_column(values, "w")
    assert converted.dtype == dtype
    np.testing.assert_array_equal(converted, values)
    with pytest.raises(InvalidInputError, match="w have dtype"):
        to_column(np.array(values).astype(str), "w")


# Tokens


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.float64])
def test_tokens_become_contiguous_int64(dtype: type[np.generic]) -> None:
    inputs = np.array([[1, 2, 70000 if dtype != np.uint16 else 7], [3, 0, 4]]).astype(dtype)[:, ::-1]
    converted = to_inputs(inputs, tokens=True)
    assert converted.dtype == np.int64
    assert converted.flags.c_contiguous
    np.testing.assert_array_equal(converted, inputs)


def test_a_token_with_a_fraction_is_refused_by_its_place() -> None:
    with pytest.raises(InvalidInputError) as caught:
        to_inputs([[1.0, 2.0], [3.0, 4.5]], tokens=True)
    assert str(caught.value) == "inputs[1, 1] is 4.5; tokens must be whole numbers that fit int64"
