"""The refusals that functions of several subjects share."""

from __future__ import annotations

from chainrule.engine.dtypes import is_floating, type_name
from chainrule.engine.errors import AutogradError, ConfigError, DTypeError, ShapeError
from chainrule.engine.functions.arguments import require_tensor
from chainrule.engine.functions.in_place import write
from chainrule.engine.tensor import Tensor

__all__ = [
    "FloatingError",
    "RequirementError",
    "SettingError",
    "SizeError",
    "check_constant",
    "require_floating",
    "require_probability",
    "result_of",
]


class SizeError(ShapeError, ValueError):
    """Shapes that do not fit, where PyTorch raises ValueError."""


class SettingError(ConfigError, RuntimeError):
    """A setting that cannot be used, where PyTorch raises RuntimeError."""


class RequirementError(ConfigError, AssertionError):
    """A setting that cannot be used, where PyTorch asserts."""


class FloatingError(DTypeError, NotImplementedError):
    """A function of fractions that was given integers or bools."""


def require_floating(name: str, input: Tensor) -> None:
    """Raises FloatingError unless `input` is a floating tensor; `name` is the one in PyTorch's message."""
    require_tensor(name, input)
    if not is_floating(input.dtype):
        raise FloatingError(
            f"\"{name}\" not implemented for '{type_name(input.dtype)}'; convert the tensor with .float()"
        )


def require_probability(p: float) -> None:
    """Raises ConfigError unless 0 ≤ p ≤ 1."""
    if not 0 <= p <= 1:
        raise ConfigError("p", p, f"dropout probability has to be between 0 and 1, but got {p}")


def check_constant(function: str, argument: str, value: Tensor | None) -> None:
    """Raises AutogradError if an argument that has no gradient requires one."""
    if value is not None and value.requires_grad:
        raise AutogradError(
            f"The function '{function}' is not differentiable with respect to argument '{argument}'. This input "
            "cannot have requires_grad True."
        )


def result_of(name: str, input: Tensor, y: Tensor, inplace: bool) -> Tensor:
    """`y`, written into `input` first where `inplace` asks for it; `name` is the function's. Its memory is its own."""
    return write(input, f"{name}_", y, fresh=True) if inplace else y
