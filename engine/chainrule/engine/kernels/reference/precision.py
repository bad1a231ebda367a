"""Half precision in numpy: computed in float32, and rounded once."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from chainrule.engine.dtypes import is_low_precision, widened

_P = ParamSpec("_P")
_R = TypeVar("_R")


def in_float32(kernel: Callable[_P, _R]) -> Callable[_P, _R]:
    """The kernel, for arrays of half precision, too: its result, or the first of several, has the first's dtype."""

    @wraps(kernel)
    def computed(*arguments: _P.args, **settings: _P.kwargs) -> _R:
        dtype = cast(Any, arguments[0]).dtype
        if not is_low_precision(dtype):
            return kernel(*arguments, **settings)
        result: Any = kernel(*cast(Any, map(widened, arguments)), **settings)
        return cast(_R, (result[0].astype(dtype), *result[1:]) if isinstance(result, tuple) else result.astype(dtype))

    return computed
