"""An array is found where it says it lies."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.engine.kernels.onednn.address import chosen, read, said


def read_only() -> Any:
    x = np.ones(5)
    x.flags.writeable = False
    return x


ARRAYS: dict[str, Any] = {
    "rows": np.ones((3, 4), np.float32),
    "a part": np.ones((3, 4))[1:, 2:],
    "backwards": np.ones((3, 4))[::-1],
    "transposed": np.ones((3, 4)).T,
    "repeated": np.broadcast_to(np.ones(3), (4, 3)),
    "read-only": read_only(),
    "a number": np.array(1.0),
    "of a subclass": np.ones(3).view(np.recarray),
    "others' memory": np.frombuffer(bytearray(16), np.float32),
}


@pytest.mark.skipif(platform.python_implementation() != "CPython", reason="`id` is no address here")
@pytest.mark.parametrize("kind", ARRAYS)
def test_the_address_read_is_that_which_the_array_says(kind: str) -> None:
    assert read(ARRAYS[kind]) == said(ARRAYS[kind])


def test_the_address_of_mapped_memory_is_read(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "numbers", np.float32, "w+", shape=(4,))
    assert chosen(platform.python_implementation().lower())(mapped) == said(mapped)


def test_a_number_of_numpy_is_not_read_as_an_array() -> None:
    number: Any = np.float64(0)  # whose value is where an array has its address
    assert read(number) != 0


def test_elsewhere_than_in_cpython_the_array_is_asked() -> None:
    assert chosen("pypy") is said
