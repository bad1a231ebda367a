"""The errors of chainrule: one root, and under it the engine's, each also the builtin PyTorch raises.

    ChainruleError
    ├── AutogradError       (RuntimeError)         the graph cannot do what was asked of it
    ├── ShapeError          (RuntimeError)         shapes do not fit
    ├── DTypeError          (TypeError and         a dtype, or a thing that is no tensor, where another is needed
    │                        RuntimeError)
    ├── DivisionError       (RuntimeError and      an integer divided by zero
    │                        ZeroDivisionError)
    ├── DimensionError      (IndexError)           a dimension that the tensor does not have
    │   └── BoundsError     (RuntimeError)         an index of gather or scatter that points at nothing
    ├── TargetError         (IndexError)           a class index outside the classes
    ├── StateDictError      (RuntimeError)         a state_dict does not fit its module
    ├── FormatError         (ValueError)           bytes that are not what they claim to be
    ├── ConfigError         (ValueError)           a setting that cannot be used: field, value, message
    ├── ArgumentError       (ValueError and        a value that a function does not take
    │                        RuntimeError)
    ├── CodeError           (RuntimeError)         a source file that makes no network
    ├── UnknownFamilyError  (ValueError)           no such family of models: family, known
    ├── WeightsNotFoundError                       pretrained weights are not where they are looked for: family, path
    │                       (FileNotFoundError)
    └── UnsupportedError    (NotImplementedError)  PyTorch can, this version cannot

A message names the thing, the value and the remedy.
"""

from __future__ import annotations

from collections.abc import Iterable


class ChainruleError(Exception):
    """The root of every error chainrule raises on purpose."""


class AutogradError(ChainruleError, RuntimeError):
    """The graph cannot do what was asked of it."""


class ShapeError(ChainruleError, RuntimeError):
    """Shapes do not fit together."""


class DTypeError(ChainruleError, TypeError, RuntimeError):
    """A dtype that the operation does not take, or a thing that is no tensor."""


class DivisionError(ChainruleError, RuntimeError, ZeroDivisionError):
    """An integer is divided by zero."""


class DimensionError(ChainruleError, IndexError):
    """The tensor does not have this dimension."""


class BoundsError(DimensionError, RuntimeError):
    """An index of gather or scatter points at nothing, which is a RuntimeError in PyTorch."""


class TargetError(ChainruleError, IndexError):
    """A target names a class that is not there."""


class StateDictError(ChainruleError, RuntimeError):
    """A state_dict does not fit the module it is loaded into."""


class FormatError(ChainruleError, ValueError):
    """Bytes are not what they claim to be."""


class ArgumentError(ChainruleError, ValueError, RuntimeError):
    """A value that a function does not take."""


class UnsupportedError(ChainruleError, NotImplementedError):
    """PyTorch has it, this version of chainrule does not."""


class ConfigError(ChainruleError, ValueError):
    """A setting cannot be used.

    Attributes:
        field: the setting's name.
        value: what was given.
        message: what is wrong with it, and what would be right.
    """

    def __init__(self, field: str, value: object, message: str) -> None:
        super().__init__(field, value, message)
        self.field = field
        self.value = value
        self.message = message

    def __str__(self) -> str:
        return f"{self.field}={self.value!r}: {self.message}"


class CodeError(ChainruleError, RuntimeError):
    """A source file does not make the network that it is to make."""


class UnknownFamilyError(ChainruleError, ValueError):
    """No family of models has this name.

    Attributes:
        family: the name that was asked for.
        known: the names there are.
    """

    def __init__(self, family: str, known: Iterable[str]) -> None:
        self.family = family
        self.known = tuple(known)
        super().__init__(family, self.known)

    def __str__(self) -> str:
        return f"there is no model family {self.family!r}; known families: {', '.join(self.known)}"


class WeightsNotFoundError(ChainruleError, FileNotFoundError):
    """There is no file with the pretrained weights of a model.

    Attributes:
        family: the model's.
        path: where it was looked for first.
        remedy: how it gets there.
    """

    def __init__(self, family: str, path: str, remedy: str) -> None:
        super().__init__(f"no pretrained weights of {family} at {path}; {remedy}")
        self.family = family
        self.path = path
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[WeightsNotFoundError], tuple[str, str, str]]:
        return type(self), (self.family, self.path, self.remedy)
