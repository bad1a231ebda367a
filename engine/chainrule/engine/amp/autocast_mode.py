"""The regions of mixed precision, and how operations of users behave in them."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial, wraps
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import DType, as_dtype, bfloat16, float16, float64, is_floating
from chainrule.engine.errors import ArgumentError, DTypeError
from chainrule.engine.functions.autocast import (
    autocast_decrement_nesting,
    autocast_increment_nesting,
    clear_autocast_cache,
    default_dtypes,
    get_autocast_dtype,
    is_autocast_cache_enabled,
    is_autocast_enabled,
    set_autocast_cache_enabled,
    set_autocast_dtype,
    set_autocast_enabled,
)
from chainrule.engine.ops.elementwise import cast

P = ParamSpec("P")
R = TypeVar("R")

supported_dtypes = (bfloat16, float16)


def is_autocast_available(device_type: str) -> bool:
    """Whether PyTorch has autocast for devices of this type; there is the CPU.

    Raises:
        DTypeError: no name.
    """
    if not isinstance(device_type, str):
        raise DTypeError(
            "_is_autocast_available(): argument 'device_type' (position 1) must be str, not "
            f"{type(device_type).__name__}"
        )
    return device_type.partition(":")[0] in default_dtypes


class _Entered(threading.local):
    """What was set when this thread entered the regions it is inside of."""

    def __init__(self) -> None:
        self.before: list[tuple[str, bool, DType, bool]] = []


_entered = _Entered()


class autocast:  # noqa: N801 - PyTorch's name
    """Mixed precision inside a `with` block, or inside every call of the function it decorates.

    Products of matrices, convolutions and attention compute in `dtype`, losses in float32, `cat` and `stack` in the
    widest dtype they are given, and everything else in the dtypes it is given. Parameters stay float32, and so do their
    gradients. The forward pass and the loss belong inside, `backward` and the optimizer's step outside.

        with cr.autocast("cpu"):
            loss = F.cross_entropy(model(x), target)
        loss.backward()

    The setting is one of the thread's. Regions may lie inside each other; `enabled=False` computes an inner one in the
    dtypes that are given. A parameter is converted once in a region, and again after it was written to.

    Args:
        device_type: "cpu". Others are known by name and have no effect; "cuda" warns.
        dtype: bfloat16 or float16; None: what `get_autocast_dtype` says, bfloat16 on the CPU. Others warn, and have no
            effect.
        enabled: whether there is a region.
        cache_enabled: whether a parameter is converted once; None: what `is_autocast_cache_enabled` says.

    Attributes:
        device: the device's type.
        fast_dtype: the dtype of the products.

    Raises:
        ArgumentError: `device_type` is no name of a device.
    """

    def __init__(
        self,
        device_type: str,
        dtype: DType | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        _check_device_type(device_type)
        self.device = device_type
        self.fast_dtype = get_autocast_dtype(device_type) if dtype is None else as_dtype(dtype)
        self._cache_enabled = is_autocast_cache_enabled() if cache_enabled is None else bool(cache_enabled)
        if enabled and device_type == "cuda":
            warnings.warn("CUDA is not available or torch_xla is imported. Disabling autocast.", stacklevel=2)
            enabled = False
        elif enabled and self.fast_dtype not in supported_dtypes:
            name = device_type.upper()
            warnings.warn(
                f"In {name} autocast, but the target dtype is not supported. Disabling autocast.\n"
                f"{name} Autocast only supports dtypes of {', '.join(map(str, supported_dtypes))} currently.",
                stacklevel=2,
            )
            enabled = False
        self._enabled = bool(enabled)

    def __enter__(self) -> Self:
        device = self.device
        _entered.before.append(
            (device, is_autocast_enabled(device), get_autocast_dtype(device), is_autocast_cache_enabled())
        )
        set_autocast_enabled(device, self._enabled)
        set_autocast_dtype(device, self.fast_dtype)
        set_autocast_cache_enabled(self._cache_enabled)
        autocast_increment_nesting()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if autocast_decrement_nesting() == 0:
            clear_autocast_cache()
        device, enabled, dtype, caches = _entered.before.pop()
        set_autocast_enabled(device, enabled)
        set_autocast_dtype(device, dtype)
        set_autocast_cache_enabled(caches)

    def __call__(self, func: Callable[P, R]) -> Callable[P, R]:
        if not callable(func):
            raise DTypeError(
                f"autocast()(func) requires a callable, but got {type(func).__name__}. Did you mean to use autocast as "
                "a context manager? For example:\n    with torch.autocast(device_type=...):\n        "
                "output = model(input)"
            )

        @wraps(func)
        def decorated(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return func(*args, **kwargs)

        return decorated


def _check_device_type(device_type: object) -> None:
    if not isinstance(device_type, str):
        raise ArgumentError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")


# ---- For autograd.Function ----


def custom_fwd(
    fwd: Callable[..., Any] | None = None, *, device_type: str, cast_inputs: DType | None = None
) -> Callable[..., Any]:
    """Decorates the `forward` of a Function, so that it says what to do in a region of mixed precision.

    Args:
        fwd: the forward, whose first argument is `ctx`.
        device_type: the region's.
        cast_inputs: inside a region floating tensors, but those of float64, are converted to this dtype, and the
            forward is computed as if it were outside; None: it is computed as what is around it.

    Raises:
        ArgumentError: `device_type` is no name of a device.
    """
    _check_device_type(device_type)
    if fwd is None:
        return partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @wraps(fwd)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        ctx, inside = args[0], is_autocast_enabled(device_type)
        ctx._dtype = get_autocast_dtype(device_type)
        ctx._fwd_used_autocast = inside and cast_inputs is None
        if cast_inputs is None or not inside:
            return fwd(*args, **kwargs)
        with autocast(device_type, enabled=False):
            return fwd(*_cast(args, cast_inputs), **_cast(kwargs, cast_inputs))

    return decorated


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str) -> Callable[..., Any]:
    """Decorates the `backward` of a Function whose forward has `custom_fwd`: it is computed as that was.

    Raises:
        ArgumentError: `device_type` is no name of a device.
    """
    _check_device_type(device_type)
    if bwd is None:
        return partial(custom_bwd, device_type=device_type)

    @wraps(bwd)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        with autocast(device_type, enabled=args[0]._fwd_used_autocast, dtype=args[0]._dtype):
            return bwd(*args, **kwargs)

    return decorated


def _cast(value: Any, dtype: DType) -> Any:
    """A tensor in another dtype; of a container its elements."""
    if isinstance(value, Variable):
        array = value.data
        return cast(value, dtype=dtype) if is_floating(array.dtype) and array.dtype not in (float64, dtype) else value
    if isinstance(value, str | bytes | np.ndarray):
        return value
    if isinstance(value, Mapping):
        return {_cast(key, dtype): _cast(each, dtype) for key, each in value.items()}
    if isinstance(value, Iterable):
        converted = (_cast(each, dtype) for each in value)
        return type(value)(converted) if isinstance(value, list | tuple) else converted
    return value
