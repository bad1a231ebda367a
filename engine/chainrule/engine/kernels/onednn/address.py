"""Where an array lies in memory, as a number: asked for every argument of every primitive."""

from __future__ import annotations

import sys
from collections.abc import Callable
from ctypes import Structure, c_char, c_ssize_t

import numpy as np

from chainrule.engine.dtypes import Array


class _Head(Structure):
    """How an array begins: numpy's `PyArrayObject_fields`, of `ndarraytypes.h`, which extensions are compiled with."""

    _fields_ = (("object", c_char * object.__basicsize__), ("data", c_ssize_t))


_head_at = _Head.from_address


def said(array: Array) -> int:
    """As the array says it, in a dict that it makes for the purpose: a microsecond."""
    address: int = array.__array_interface__["data"][0]
    return address


def read(array: Array) -> int:
    """As it is in the array, where CPython's `id` is its address: a tenth of that."""
    if type(array) is not np.ndarray:  # a number of numpy's begins otherwise
        return said(array)
    address: int = _head_at(id(array)).data
    return address


def chosen(implementation: str) -> Callable[[Array], int]:
    """`read` where it gives what `said` does."""
    sample = np.empty(3, np.uint8)[1:]
    return read if implementation == "cpython" and read(sample) == said(sample) else said


address_of = chosen(sys.implementation.name)
