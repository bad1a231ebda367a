"""How many threads compute: those of numpy's matrix products and those of oneDNN alike."""

from __future__ import annotations

import os
from functools import cache

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from chainrule.engine.errors import ConfigError

chosen: int | None = None
"""What `set_num_threads` was last given. OpenMP takes it for the thread that says it alone: others have to follow."""
choices = 0
"""How often it was given one."""


@cache
def _controller() -> ThreadpoolController:
    """The libraries that were loaded when this was first asked: numpy's BLAS, and the OpenMP of oneDNN."""
    return ThreadpoolController().select(user_api=["blas", "openmp"])


def set_num_threads(num_threads: int) -> None:
    """Lets kernels use `num_threads` threads from now on, in the whole process.

    To be called in the main thread: from another, numpy's OpenBLAS does not take the number, only oneDNN does.

    The number of threads is part of what makes results the same bits: it decides the order of some sums.

    Raises:
        ConfigError: `num_threads` is no positive integer.
    """
    if not isinstance(num_threads, int) or isinstance(num_threads, bool) or num_threads < 1:
        raise ConfigError("num_threads", num_threads, "set_num_threads expects a positive integer")
    global chosen, choices
    chosen = num_threads
    choices += 1
    for library in _controller().lib_controllers:
        library.set_num_threads(num_threads)


def follow() -> int | None:
    """Has OpenMP use as many threads for the calling one as were chosen in any; that number."""
    number = chosen
    if number is not None:
        for library in _controller().lib_controllers:
            if library.user_api == "openmp":
                library.set_num_threads(number)
    return number


def get_num_threads() -> int:
    """How many threads kernels may use."""
    follow()
    return max((library.num_threads for library in _controller().lib_controllers), default=os.cpu_count() or 1)


def blas_description() -> str:
    """The BLAS library in words: `openblas 0.3.31 (SkylakeX)`."""
    described = [
        f"{library['internal_api']} {library['version']} ({library.get('architecture') or 'generic'})"
        for library in _controller().select(user_api="blas").info()
    ]
    return ", ".join(described) or "an unknown BLAS"
