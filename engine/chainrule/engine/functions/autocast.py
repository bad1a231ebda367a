"""Autocast: which functions compute in lower precision inside its regions, and what becomes of their arguments.

A function that is on one of three lists asks for `active`, and inside a region has its arguments converted:

    lowered     to the region's dtype: convolutions, products, attention, prelu
    raised      to float32: losses, prod, trace, reflecting and replicating margins, max_unpool
    promoted    to the widest of them: cat, stack, index_copy

The lists are those of PyTorch's CPU; see `amp`. Everything else computes in the dtypes it is given. Integers, bools and
float64 stay as they are. Gradients are computed by operations, which know nothing of this, so in the same dtypes.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any, NamedTuple

import numpy as np

from chainrule.engine.autograd.mode import state as recording_state
from chainrule.engine.autograd.variable import Variable, no_version
from chainrule.engine.dtypes import Array, DType, bfloat16, float16, float32, float64, is_floating
from chainrule.engine.errors import ArgumentError, DTypeError
from chainrule.engine.ops.elementwise import cast

__all__ = [
    "autocast_decrement_nesting",
    "autocast_increment_nesting",
    "clear_autocast_cache",
    "get_autocast_dtype",
    "is_autocast_cache_enabled",
    "is_autocast_enabled",
    "set_autocast_cache_enabled",
    "set_autocast_dtype",
    "set_autocast_enabled",
]

default_dtypes: dict[str, DType] = {
    "cpu": bfloat16,
    "cuda": float16,
    "hpu": bfloat16,
    "ipu": float16,
    "maia": bfloat16,
    "mps": float16,
    "mtia": float16,
    "xla": bfloat16,
    "xpu": float16,
}
"""PyTorch's devices that have autocast. There is only the CPU; what is set for another has no effect."""

active: set[int] = set()
"""The threads that are inside a region: empty nearly always, so that a function's question costs next to nothing."""


class _Cast(NamedTuple):
    """A parameter in lower precision, and what it was made from."""

    parameter: weakref.ref[Any]
    array: Array
    version: int
    recorded: bool
    lowered: Any


class _State(threading.local):
    """What one thread has set."""

    def __init__(self) -> None:
        self.enabled = dict.fromkeys(default_dtypes, False)
        self.dtypes = dict(default_dtypes)
        self.caches = True
        self.nesting = 0
        self.casts: dict[int, _Cast] = {}


state = _State()


# ---- What is set ----


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Whether this thread is inside a region of `device_type`, by default, as in PyTorch, of "cuda".

    Raises:
        ArgumentError: there is no such device.
    """
    return state.enabled[_device("is_autocast_enabled", "cuda" if device_type is None else device_type)]


def get_autocast_dtype(device_type: str) -> DType:
    """The lower precision of `device_type`: on the CPU bfloat16, unless something else is set.

    Raises:
        ArgumentError: there is no such device.
    """
    return state.dtypes[_device("get_autocast_dtype", device_type)]


def is_autocast_cache_enabled() -> bool:
    """Whether parameters are converted once in a region."""
    return state.caches


def set_autocast_enabled(device_type: str | bool, enabled: bool | None = None) -> None:
    """Turns autocast on or off for this thread; `autocast` does so for a block. A bool alone is meant for "cuda".

    Raises:
        ArgumentError: there is no such device.
    """
    if enabled is None:
        device_type, enabled = "cuda", device_type  # type: ignore[assignment]
    if not isinstance(enabled, bool):
        raise DTypeError(f"set_autocast_enabled(): argument 'enabled' (position 2) must be bool, not {_kind(enabled)}")
    device = _device("set_autocast_enabled", device_type)
    state.enabled[device] = enabled
    if device == "cpu":
        (active.add if enabled else active.discard)(threading.get_ident())


def set_autocast_dtype(device_type: str, dtype: DType) -> None:
    """Sets the lower precision of `device_type` for this thread.

    Raises:
        ArgumentError: there is no such device.
        DTypeError: no dtype.
    """
    if not isinstance(dtype, np.dtype):
        raise DTypeError(f"set_autocast_dtype(): argument 'dtype' (position 2) must be torch.dtype, not {_kind(dtype)}")
    state.dtypes[_device("set_autocast_dtype", device_type)] = dtype


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Sets whether this thread converts parameters once in a region.

    Raises:
        DTypeError: no bool.
    """
    if not isinstance(enabled, bool):
        raise DTypeError(f"enabled must be a bool (got {_kind(enabled)})")
    state.caches = enabled


def clear_autocast_cache() -> None:
    """Forgets the parameters that this thread has converted."""
    state.casts.clear()


def autocast_increment_nesting() -> int:
    """Counts one region more that this thread is inside of, and gives their number."""
    state.nesting += 1
    return state.nesting


def autocast_decrement_nesting() -> int:
    """Counts one region less, and gives their number."""
    state.nesting -= 1
    return state.nesting


def _device(function: str, name: object) -> str:
    if not isinstance(name, str):
        raise DTypeError(f"{function}(): argument 'device_type' (position 1) must be str, not {_kind(name)}")
    kind = name.partition(":")[0]
    if kind not in default_dtypes:
        known = ", ".join(default_dtypes)
        raise ArgumentError(f"Expected one of {known} device type at start of device string: {name}")
    return kind


def _kind(value: object) -> str:
    return type(value).__name__


# ---- What becomes of arguments; None and what is no tensor stays as it is ----


def is_active() -> bool:
    """Whether this thread is inside a region of the CPU."""
    return state.enabled["cpu"]


def lowered(*values: Any) -> tuple[Any, ...]:
    """The tensors in the region's dtype."""
    return _converted(values, state.dtypes["cpu"])


def raised(*values: Any) -> tuple[Any, ...]:
    """The tensors in float32."""
    return _converted(values, float32)


def promoted(*values: Any) -> tuple[Any, ...]:
    """The tensors in float32 if one of them is, else in the region's dtype.

    Raises:
        ArgumentError: there is another half precision among them.
    """
    widest = lower = state.dtypes["cpu"]
    if state.enabled["cpu"]:
        for dtype in [x.data.dtype for x in values if _is_eligible(x)]:
            if dtype == float32:
                widest = float32
            elif widest != float32 and dtype != lower:
                raise ArgumentError("Unexpected floating ScalarType in at::autocast::prioritize")
    return _converted(values, widest)


def _converted(values: tuple[Any, ...], dtype: DType) -> tuple[Any, ...]:
    if not state.enabled["cpu"]:  # it is another thread that is inside a region
        return values
    return tuple([_cast(x, dtype) if isinstance(x, Variable) and x.data.dtype is not dtype else x for x in values])


def _is_eligible(x: Any) -> bool:
    return isinstance(x, Variable) and is_floating(x.data.dtype) and x.data.dtype != float64


def _cast(x: Any, dtype: DType) -> Any:
    """The conversion, recorded; of a parameter the same as long as it has not been written to."""
    if not _is_eligible(x) or x.data.dtype == dtype:
        return x
    keeps = (
        state.nesting > 0
        and state.caches
        and x._requires_grad
        and x._grad_fn is None
        and x._view is None
        and x.counter is not no_version
        and x.data.dtype == float32
        and dtype == state.dtypes["cpu"]
    )
    if not keeps:
        return cast(x, dtype=dtype)
    recording = recording_state.recording
    known = state.casts.get(id(x))
    if (
        known is not None
        and known.array is x.data
        and known.version == x.counter.value
        and known.lowered.data.dtype == dtype
        and (known.recorded or not recording)  # what was made under no_grad lets no gradient through
        and known.parameter() is x
    ):
        return known.lowered
    made = cast(x, dtype=dtype)
    state.casts[id(x)] = _Cast(weakref.ref(x), x.data, x.counter.value, recording, made)
    return made
