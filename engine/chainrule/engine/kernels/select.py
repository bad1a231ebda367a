"""The choice of kernels, made once at import from `CHAINRULE_KERNELS`, and the report of it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from chainrule.engine import threads
from chainrule.engine.errors import ConfigError
from chainrule.engine.kernels import reference

_choices = ("reference",)


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """Which kernels compute, on what."""

    name: str
    """The kernels: `reference`."""
    numpy: str
    """The version of numpy."""
    blas: str
    """The library behind numpy's matrix products, with its version and the CPU it chose code for."""
    num_threads: int
    """Threads it may use."""

    def __str__(self) -> str:
        threads = "1 thread" if self.num_threads == 1 else f"{self.num_threads} threads"
        return f"{self.name} kernels: numpy {self.numpy}, {self.blas}, {threads}"


def _choose() -> str:
    name = os.environ.get("CHAINRULE_KERNELS") or "reference"
    if name not in _choices:
        why = "not built into this version" if name == "onednn" else "there are no such kernels"
        raise ConfigError("CHAINRULE_KERNELS", name, f"{why}; unset it or choose one of: {', '.join(_choices)}")
    return name


_name = _choose()

conv2d = reference.conv2d
conv2d_input = reference.conv2d_input
conv2d_weight = reference.conv2d_weight
max_pool2d = reference.max_pool2d
unpool = reference.unpool
pick = reference.pick
avg_pool2d = reference.avg_pool2d
avg_unpool = reference.avg_unpool
batch_moments = reference.batch_moments


def info() -> KernelInfo:
    """Which kernels were chosen, and what they run on."""
    return KernelInfo(
        name=_name, numpy=np.__version__, blas=threads.blas_description(), num_threads=threads.get_num_threads()
    )
