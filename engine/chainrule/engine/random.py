"""Random numbers that are a function of a seed and of how many draws came before, on every version of numpy.

Draw number i of a generator reads the raw stream of a Philox keyed by (seed, i). Raw streams are fixed by numpy's
compatibility policy, and what is made of them is made here.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from chainrule.engine.dtypes import (
    Array,
    DType,
    bfloat16,
    default_dtype,
    float16,
    float32,
    float64,
    is_floating,
    type_name,
)
from chainrule.engine.errors import ArgumentError, UnsupportedError
from chainrule.engine.layout import check_device

mantissa_bits = {float16: 11, bfloat16: 8, float32: 24, float64: 53}
default_seed = 67280421310721  # PyTorch's
_seed_mask = 2**64 - 1  # negative seeds mean what they mean to PyTorch
_block = 1 << 20  # numbers drawn at a time


def raw_stream(*key: int, size: int) -> npt.NDArray[np.uint64]:
    """`size` 64-bit words that are a function of `key`, non-negative integers."""
    return np.random.Philox(np.random.SeedSequence(key)).random_raw(size)


def raw_blocks(*key: int, size: int, block: int) -> Iterator[npt.NDArray[np.uint64]]:
    """The words of `raw_stream`, `block` of them at a time."""
    stream = np.random.Philox(np.random.SeedSequence(key))
    for start in range(0, size, block):
        yield stream.random_raw(min(block, size - start))


class Generator:
    """A source of draws, each keyed by (seed, number of the draw)."""

    def __init__(self, seed: int | str = default_seed, *, device: object = None) -> None:
        check_device(seed if isinstance(seed, str) else device)  # PyTorch's first argument is the device
        self._seed = default_seed if isinstance(seed, str) else int(seed) & _seed_mask
        self._draws = 0

    def manual_seed(self, seed: int) -> Generator:
        """Starts over with another seed."""
        self._seed, self._draws = int(seed) & _seed_mask, 0
        return self

    def initial_seed(self) -> int:
        """The seed it was given."""
        return self._seed

    def seed(self) -> int:
        """Starts over with a seed from the operating system, and gives that."""
        self.manual_seed(secrets.randbits(64))
        return self._seed

    def get_state(self) -> tuple[int, int]:
        """The seed and how many draws were made."""
        return self._seed, self._draws

    def set_state(self, state: tuple[int, int]) -> Generator:
        """Continues from a state of `get_state`."""
        self._seed, self._draws = state
        return self

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed}, draws={self._draws})"

    def words(self, size: int) -> npt.NDArray[np.uint64]:
        """The next draw: `size` words of 64 random bits."""
        number = self._draws
        self._draws += 1
        return raw_stream(self._seed, number, size=size)

    def uniform(self, shape: Sequence[int], dtype: DType = default_dtype) -> Array:
        """The next draw: numbers in [0, 1), every multiple of 2⁻²⁴ (float32) or 2⁻⁵³ (float64) equally likely.

        Raises:
            UnsupportedError: a dtype without fractions.
        """
        if not is_floating(dtype):
            raise UnsupportedError(f"\"check_uniform_bounds\" not implemented for '{type_name(dtype)}'")
        bits = mantissa_bits[dtype]
        words = self.words(int(np.prod(shape, dtype=np.int64))) >> np.uint64(64 - bits)
        values: Array = words.astype(dtype) * dtype.type(2.0**-bits)
        return values.reshape(tuple(shape))

    def normal(self, shape: Sequence[int], dtype: DType = default_dtype) -> Array:
        """The next draw: √(−2 ln u) · cos 2πv, standard normal (Box and Muller), for u in (0, 1] and v in [0, 1).

        Raises:
            UnsupportedError: a dtype without fractions.
        """
        if not is_floating(dtype):
            raise UnsupportedError(f"\"normal_kernel_cpu\" not implemented for '{type_name(dtype)}'")
        size = int(np.prod(shape, dtype=np.int64))
        words = self.words(2 * size).reshape(2, size)
        values: Array = np.empty(size, dtype)
        for start in range(0, size, _block):  # the intermediates of a large layer would take gigabytes
            part = slice(start, start + _block)
            u, v = (words[:, part] >> np.uint64(11)).astype(np.float64) * 2.0**-53
            values[part] = np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)
        return values.reshape(tuple(shape))

    def integers(self, low: int, high: int, shape: Sequence[int]) -> Array:
        """The next draw: integers in [low, high). Their bias, below (high − low) / 2⁶⁴, is out of reach of any test.

        Raises:
            ArgumentError: there are none.
        """
        if high <= low:
            raise ArgumentError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
        words = self.words(int(np.prod(shape, dtype=np.int64))) % np.uint64(high - low)
        return (words.astype(np.int64) + low).reshape(tuple(shape))


default_generator = Generator()
_local = threading.local()


def current_generator() -> Generator:
    """What draws when no generator is named: the innermost of `using` in this thread, else the default one."""
    generator: Generator | None = getattr(_local, "generator", None)
    return generator or default_generator


@contextmanager
def using(generator: Generator | None) -> Iterator[None]:
    """Draws inside come from `generator` where none is named; None changes nothing."""
    previous = getattr(_local, "generator", None)
    _local.generator = generator or previous
    try:
        yield
    finally:
        _local.generator = previous


def manual_seed(seed: int) -> Generator:
    """Seeds the default generator, and gives it."""
    return default_generator.manual_seed(seed)


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def seed() -> int:
    """Seeds the default generator by the operating system, and gives the seed."""
    return default_generator.seed()


def get_rng_state() -> tuple[int, int]:
    """The state of the default generator: its seed and how many draws were made."""
    return default_generator.get_state()


def set_rng_state(new_state: tuple[int, int]) -> None:
    """Has the default generator continue from a state of `get_rng_state`."""
    default_generator.set_state(new_state)


@contextmanager
def fork_rng() -> Iterator[None]:
    """What is drawn inside does not show outside: the default generator goes on as if it had not been."""
    before = default_generator.get_state()
    try:
        yield
    finally:
        default_generator.set_state(before)
