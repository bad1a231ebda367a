"""The choice of kernels, made once at import from `CHAINRULE_KERNELS`, and the report of it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from chainrule.engine import memory, threads
from chainrule.engine.errors import ConfigError
from chainrule.engine.kernels import onednn, reference

_choices = ("onednn", "reference")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """Which kernels compute, on what."""

    name: str
    """The kernels: `onednn`, which leaves to numpy what it does not have, or `reference`, numpy alone."""
    numpy: str
    """The version of numpy."""
    blas: str
    """The library behind numpy's matrix products, with its version and the CPU it chose code for."""
    num_threads: int
    """Threads it may use."""
    onednn: str | None = None
    """The version of oneDNN, if it computes."""
    isa: str | None = None
    """The instruction set that oneDNN uses, if it computes: what the CPU has, less what the environment forbids."""

    def __str__(self) -> str:
        threads = "1 thread" if self.num_threads == 1 else f"{self.num_threads} threads"
        name = self.name if self.onednn is None else f"{self.name} {self.onednn} ({self.isa})"
        return f"{name} kernels: numpy {self.numpy}, {self.blas}, {threads}"


def _choose() -> str:
    """The kernels asked for; unless any are, oneDNN's where there is one.

    Raises:
        ConfigError: there are no such kernels, or not here.
    """
    name = os.environ.get("CHAINRULE_KERNELS") or None
    if name not in (None, *_choices):
        raise ConfigError(
            "CHAINRULE_KERNELS", name, f"there are no such kernels; unset it or choose one of: {', '.join(_choices)}"
        )
    if name == "reference":
        return name
    try:
        onednn.load()
    except onednn.LibraryError as error:
        if name is not None:
            raise ConfigError(
                "CHAINRULE_KERNELS", name, f"{error}; install {onednn.DISTRIBUTION} or oneDNN 3, or unset it"
            ) from error
        _log.info("no oneDNN, so numpy computes: %s", error)
        return "reference"
    return "onednn"


memory.keep_freed_memory()
_name = _choose()
_kernels: ModuleType = onednn if _name == "onednn" else reference

add = _kernels.add
relu = reference.relu
relu_gradient = reference.relu_gradient
conv2d = _kernels.conv2d
conv2d_input = _kernels.conv2d_input
conv2d_weight = _kernels.conv2d_weight
max_pool2d = _kernels.max_pool2d
unpool = _kernels.unpool
pick = reference.pick
avg_pool2d = _kernels.avg_pool2d
avg_unpool = _kernels.avg_unpool
batch_norm = _kernels.batch_norm
batch_norm_fixed = _kernels.batch_norm_fixed
batch_norm_gradients = _kernels.batch_norm_gradients
batch_norm_relu = _kernels.batch_norm_relu
gelu = _kernels.gelu
gelu_gradient = _kernels.gelu_gradient
gelu_tanh = _kernels.gelu_tanh
gelu_tanh_gradient = _kernels.gelu_tanh_gradient
layer_norm = _kernels.layer_norm
layer_norm_gradients = _kernels.layer_norm_gradients
softmax = _kernels.softmax
softmax_gradient = _kernels.softmax_gradient
safe_softmax = _kernels.safe_softmax
log_softmax = reference.log_softmax
log_softmax_gradient = _kernels.log_softmax_gradient
mm = _kernels.mm
linear = _kernels.linear


def info() -> KernelInfo:
    """Which kernels were chosen, and what they run on."""
    library = onednn.load() if _name == "onednn" else None
    return KernelInfo(
        name=_name,
        numpy=np.__version__,
        blas=threads.blas_description(),
        num_threads=threads.get_num_threads(),
        onednn=None if library is None else library.version_text,
        isa=None if library is None else library.instruction_set,
    )
