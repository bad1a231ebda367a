"""The families of models: a name and a configuration decide an architecture."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args, get_origin, get_type_hints

from chainrule.engine import nn
from chainrule.engine.errors import ConfigError, UnknownFamilyError
from chainrule.engine.random import Generator, using

MAX_CLASSES = 1_000_000
"""Most classes that a family tells apart."""

_attribute = "_chainrule_family"


@dataclass(frozen=True, slots=True)
class Family:
    """A named architecture with settings."""

    name: str
    """By which clients ask for it."""
    description: str
    """In a few words."""
    config: type[Any]
    """A frozen dataclass: its fields are the settings, with their defaults and bounds; its `num_parameters` counts the
    parameters of the model, from the settings alone."""

    def num_parameters(self, config: Mapping[str, object] | None = None) -> int:
        """How many values the parameters of a model have. Nothing is built; `config` is as for `build`.

        Raises:
            ConfigError: as `build` does.
        """
        count: int = parse_config(self.config, config or {}).num_parameters
        return count


_families: dict[str, Family] = {}
_makers: dict[str, Callable[[Any], nn.Module]] = {}


def register(name: str, description: str, config: type[Any], make: Callable[[Any], nn.Module]) -> None:
    """Adds a family, whose models `make` makes of a `config`."""
    _families[name] = Family(name, description, config)
    _makers[name] = make


def families() -> dict[str, Family]:
    """The families by name."""
    return dict(_families)


def family(name: str) -> Family:
    """The family of this name.

    Raises:
        UnknownFamilyError: there is none.
    """
    if name not in _families:
        raise UnknownFamilyError(name, sorted(_families))
    return _families[name]


def build(name: str, config: Mapping[str, object] | None = None, *, generator: Generator | None = None) -> nn.Module:
    """A model of a family, with parameters drawn from `generator` (the default one, if None).

    Args:
        name: the family.
        config: its settings; what is left out has its default. Values may come from JSON: lists stand for tuples,
            10.0 for 10.
        generator: the same seed gives the same weights.

    Raises:
        UnknownFamilyError: no such family.
        ConfigError: an unknown setting, a wrong type, or a value out of range; `field` names it.
    """
    settings = parse_config(family(name).config, config or {})
    with using(generator):
        model = _makers[name](settings)
    setattr(model, _attribute, (name, asdict(settings)))
    return model


def family_of(module: nn.Module) -> tuple[str, dict[str, object]]:
    """The family a model was built from, and its settings.

    Raises:
        ConfigError: it was built another way.
    """
    found = getattr(module, _attribute, None)
    if found is None:
        raise ConfigError(
            "module",
            type(module).__name__,
            f"not built from a family; use models.build(name, config), with a name of: {', '.join(sorted(_families))}",
        )
    name, config = found
    return name, dict(config)


def parse_config(config: type[Any], values: Mapping[str, object]) -> Any:
    """The dataclass `config` with these values.

    Raises:
        ConfigError: an unknown field, a wrong type, or a value that the dataclass refuses.
    """
    hints = get_type_hints(config)
    known = [field.name for field in fields(config)]
    parsed = {}
    for field, value in values.items():
        if field not in known:
            raise ConfigError(field, value, f"there is no such setting; there are: {', '.join(known)}")
        parsed[field] = _parse(field, value, hints[field])
    return config(**parsed)


def require_within(field: str, value: float, lowest: float, highest: float) -> None:
    """Raises ConfigError if the value is below the lowest, above the highest, or not a number."""
    if not value >= lowest:
        raise ConfigError(field, value, f"must be at least {lowest}")
    if value > highest:
        raise ConfigError(field, value, f"must be at most {highest:,}")


def _parse(field: str, value: object, kind: Any) -> object:
    """The value as `kind`: int, float, bool, str, or a tuple or None-or of them."""
    if get_origin(kind) is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ConfigError(field, value, f"expected a list of {get_args(kind)[0].__name__}, got {_name(value)}")
        return tuple(_parse(field, part, get_args(kind)[0]) for part in value)
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        (kind,) = (choice for choice in get_args(kind) if choice is not type(None))
        return _parse(field, value, kind)
    if isinstance(value, bool) is (kind is bool):
        if isinstance(value, kind):
            return value
        if kind is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if kind is float and isinstance(value, int):
            return float(value)
    raise ConfigError(field, value, f"expected {kind.__name__}, got {_name(value)}")


def _name(value: object) -> str:
    return "None" if value is None else type(value).__name__
