"""What may become a parameter, a buffer or a child of a module, and under which name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chainrule.engine.errors import ChainruleError, ConfigError, DTypeError
from chainrule.engine.nn.parameter import Parameter
from chainrule.engine.tensor import Tensor

if TYPE_CHECKING:
    from chainrule.engine.nn.module import Module


class RegistrationError(ChainruleError, KeyError):
    """A name that a parameter, buffer or module cannot have."""


class ModuleAttributeError(ChainruleError, AttributeError):
    """A module does not have what was asked of it, or cannot hold it yet."""


def check_parameter(module: Module, name: str, value: object) -> None:
    """Raises what PyTorch's `register_parameter` raises; None passes, for a parameter that is not used."""
    if "_parameters" not in module.__dict__:
        raise ModuleAttributeError("cannot assign parameter before Module.__init__() call")
    check_name("parameter", module, name, name in module._parameters)
    if value is None:
        return
    if not isinstance(value, Parameter):
        raise DTypeError(
            f"cannot assign '{type(value).__name__}' object to parameter '{name}' (nn.Parameter or None required)"
        )
    if value.grad_fn is not None:
        raise ConfigError(
            "param",
            value,
            f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created explicitly. To "
            f"express '{name}' as a function of another Tensor, compute the value in the forward() method.",
        )


def check_buffer(module: Module, name: str, value: object) -> None:
    """Raises what PyTorch's `register_buffer` raises; None passes, for a buffer that is not used."""
    if "_buffers" not in module.__dict__:
        raise ModuleAttributeError("cannot assign buffer before Module.__init__() call")
    check_name("buffer", module, name, name in module._buffers)
    if value is not None and not isinstance(value, Tensor):
        raise DTypeError(f"cannot assign '{type(value).__name__}' object to buffer '{name}' (Tensor or None required)")


def check_name(kind: str, module: Module, name: object, known: bool) -> None:
    """Raises unless `name` can name something of this kind; `known`: whether the module has it as such already."""
    if not isinstance(name, str):
        raise DTypeError(f"{kind} name should be a string. Got {type(name).__name__}")
    if kind == "module" and not known and hasattr(module, name):
        raise RegistrationError(f"attribute '{name}' already exists")
    if "." in name:
        raise RegistrationError(f'{kind} name can\'t contain "."' + (f", got: {name}" if kind == "module" else ""))
    if name == "":
        raise RegistrationError(f'{kind} name can\'t be empty string ""')
    if not known and hasattr(module, name):
        raise RegistrationError(f"attribute '{name}' already exists")
