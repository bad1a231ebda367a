"""Operations on an input of half precision with parameters of float32, as mixed precision gives them to normalisation.

The output has x's dtype, and each gradient that of its input; all are computed in float32 and rounded once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from chainrule.engine.dtypes import DType, float32, is_low_precision, widened
from chainrule.engine.ops.op import Gradient, Op

Dtypes = tuple[DType | None, ...] | None
"""Those of the inputs, which the gradients take; None if all are float32, and for an input that is not there."""


class MixedOp(Op):
    """An operation whose output has the dtype of its first input, and whose gradients have those of theirs."""

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        gradients: dict[str, Gradient],
        *,
        saves: Sequence[str] = (),
    ) -> None:
        inputs = [
            parameter.name
            for parameter in inspect.signature(forward).parameters.values()
            if parameter.kind is not parameter.KEYWORD_ONLY
        ]
        converting = {each: _converting(formula, inputs.index(each)) for each, formula in gradients.items()}
        super().__init__(name, _remembering(forward), converting, saves=(*saves, "dtypes"), converts=True)

    def _compute(self, arrays: list[Any], attributes: dict[str, Any]) -> Any:
        y, intermediates = super()._compute(arrays, attributes)
        dtype = arrays[0].dtype
        return (
            y.astype(dtype) if is_low_precision(dtype) and y.dtype != dtype else y,
            {**intermediates, "dtypes": _dtypes(arrays)},
        )


def mixed(name: str, *, saves: Sequence[str] = (), **gradients: Gradient) -> Callable[[Callable[..., Any]], MixedOp]:
    """Declares the decorated forward as such an operation; see `op`."""
    return lambda forward: MixedOp(name, forward, gradients, saves=saves)


def _remembering(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The forward, with the dtypes of its inputs beside its output."""

    @wraps(forward)
    def remembering(*arrays: Any, **attributes: Any) -> tuple[Any, dict[str, Any]]:
        result = forward(*arrays, **attributes)
        y, intermediates = result if type(result) is tuple else (result, {})
        intermediates["dtypes"] = _dtypes(arrays)
        return y, intermediates

    return remembering


def _dtypes(arrays: Sequence[Any]) -> Dtypes:
    for array in arrays:
        if array is not None and array.dtype is not float32:
            return tuple([None if array is None else array.dtype for array in arrays])
    return None


def _converting(formula: Gradient, position: int) -> Gradient:
    """The formula, of arrays in float32, with its result in the dtype of the input at `position`."""

    @wraps(formula)
    def converting(*values: Any) -> Any:
        *known, dtypes = values
        if dtypes is None:
            return formula(*known)
        gradient, dtype = formula(*map(widened, known)), dtypes[position]
        if gradient.dtype == dtype:
            return gradient
        return gradient.astype(dtype) if isinstance(gradient, np.ndarray) else gradient.to(dtype)

    signature = inspect.signature(formula)
    last = inspect.Parameter("dtypes", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    converting.__signature__ = signature.replace(parameters=[*signature.parameters.values(), last])  # type: ignore[attr-defined]
    return converting
