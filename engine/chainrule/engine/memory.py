"""How the process keeps the memory of arrays that are gone: for those of the next step, which are as large."""

from __future__ import annotations

import ctypes
import os

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # of malloc.h
_own_settings = ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Has glibc's malloc keep what is freed, rather than hand it back to the system; whether it does now.

    By default it maps each large array anew, and the system clears every page of it when it is first written to: a
    tenth of a training step on large images. So the process stays as large as it has been; `malloc_trim(0)` of the C
    library gives back what is free. An allocator that the environment has settings for is left alone:
    MALLOC_MMAP_MAX_=65536 is glibc's default. One that takes the place of glibc's, as jemalloc by LD_PRELOAD, does not
    heed it.
    """
    if any(name in os.environ for name in _own_settings):
        return False
    try:
        libc = ctypes.CDLL(None)
        _, mallopt = libc.gnu_get_libc_version, libc.mallopt
    except (AttributeError, OSError, TypeError):  # no glibc: macOS, musl, Windows
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
