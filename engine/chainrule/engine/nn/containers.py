"""Modules made of modules, with the manners of a list or of a dict."""

from __future__ import annotations

import operator
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from itertools import chain, groupby
from typing import Any, Self, overload

from chainrule.engine.errors import ConfigError, DTypeError
from chainrule.engine.nn import fusing
from chainrule.engine.nn.module import Module, layout


class _Ordered(Module):
    """Modules in order, under names of their own or numbered from 0."""

    def _list(self) -> list[Module]:
        return [module for module in self._modules.values() if module is not None]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._list())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Module | Self:
        if isinstance(index, slice):
            return self._part(list(self._modules.items())[index])
        module = self._modules[self._name(index)]
        assert module is not None
        return module

    def _part(self, named: list[tuple[str, Module | None]]) -> Self:
        """A container of this kind of some of the modules."""
        raise NotImplementedError

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._name(index), module)

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)
        for name in names[index] if isinstance(index, slice) else [self._name(index)]:
            delattr(self, name)
        self._renumber(list(self._modules.values()))

    def _name(self, index: int) -> str:
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"index {position} is out of range")
        return list(self._modules)[position]

    def _renumber(self, modules: Iterable[Module | None]) -> None:
        self._modules = {str(number): module for number, module in enumerate(modules)}

    def append(self, module: Module) -> Self:
        """Adds a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Adds modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def pop(self, index: int | slice) -> Module:
        """Takes a module out, or several as a container."""
        taken: Module = self[index]
        del self[index]
        return taken


class Sequential(_Ordered):
    """Each module applied to what the one before it computed; made of modules, or of a mapping that names them."""

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named: Iterable[tuple[str, Any]] = modules[0].items()
        else:
            named = ((str(position), module) for position, module in enumerate(modules))
        for name, module in named:
            self.add_module(name, module)

    def forward(self, input: Any) -> Any:
        return fusing.run(tuple(self), input)

    def _part(self, named: list[tuple[str, Module | None]]) -> Self:
        return type(self)(dict(named))  # type: ignore[arg-type]  # the names are kept: a slice may begin with "2"

    def insert(self, index: int, module: Module) -> Self:
        """Inserts a module before the one at `index`."""
        if not isinstance(module, Module):
            raise DTypeError(f"module should be of type: {Module}")
        if not -len(self) <= index <= len(self):
            raise IndexError(f"Index out of range: {index}")
        modules = self._list()
        modules.insert(index, module)
        self._renumber(modules)
        return self

    def __add__(self, other: Sequential) -> Sequential:
        return Sequential(*self, *self._checked(other))

    def __iadd__(self, other: Sequential) -> Self:
        return self.extend(self._checked(other))

    def _checked(self, other: object) -> Sequential:
        if not isinstance(other, Sequential):
            raise ConfigError(
                "other",
                other,
                f"add operator supports only objects of Sequential class, but {type(other)} is given.",
            )
        return other

    def __mul__(self, times: int) -> Sequential:
        return Sequential(*(self._list() * self._count(times)))

    __rmul__ = __mul__

    def __imul__(self, times: int) -> Self:
        return self.extend(self._list() * (self._count(times) - 1))

    def _count(self, times: object) -> int:
        if not isinstance(times, int):
            raise DTypeError(f"unsupported operand type(s) for *: {type(self)} and {type(times)}")
        if times <= 0:
            raise ConfigError("times", times, f"Non-positive multiplication factor {times} for {type(self)}")
        return times


class ModuleList(_Ordered):
    """A list of modules, for a forward that the user writes."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def _part(self, named: list[tuple[str, Module | None]]) -> Self:
        return type(self)([module for _, module in named if module is not None])

    def extend(self, modules: Iterable[Module]) -> Self:
        """Adds modules at the end."""
        if not isinstance(modules, Iterable):
            raise DTypeError(f"ModuleList.extend should be called with an iterable, but got {type(modules).__name__}")
        return super().extend(modules)

    def insert(self, index: int, module: Module) -> None:
        """Inserts a module before the one at `index`."""
        modules = self._list()
        modules.insert(index, module)
        self._renumber(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList(chain(self, other))

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

    def __repr__(self) -> str:
        blocks, first = [], 0
        for text, same in groupby(map(repr, self)):
            count = len(list(same))
            name = f"({first}-{first + count - 1}): {count} x " if count > 1 else f"({first}): "
            blocks.append((name + text).replace("\n", "\n  "))
            first += count
        return layout(self._get_name(), "", blocks)


class ModuleDict(Module):
    """Modules by name, for a forward that the user writes."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Module:
        module = self._modules[key]
        assert module is not None
        return module

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def clear(self) -> None:
        """Takes all modules out."""
        self._modules.clear()

    def pop(self, key: str) -> Module:
        """Takes a module out."""
        module = self[key]
        del self[key]
        return module

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._modules.keys()

    def items(self) -> ItemsView[str, Module | None]:
        """The names with the modules."""
        return self._modules.items()

    def values(self) -> ValuesView[Module | None]:
        """The modules."""
        return self._modules.values()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Adds modules, or puts them in place of those of the same name."""
        for key, module in pairs("ModuleDict", modules):
            self[key] = module


def pairs(kind: str, given: Any) -> list[tuple[str, Any]]:
    """The names and values of a mapping, or of an iterable of pairs.

    Raises:
        DTypeError, ConfigError: it is neither.
    """
    if isinstance(given, Mapping | Module):
        return list(given.items())
    if not isinstance(given, Iterable):
        raise DTypeError(
            f"{kind}.update should be called with an iterable of key/value pairs, but got {type(given).__name__}"
        )
    listed = [tuple(pair) if isinstance(pair, Iterable) else pair for pair in given]
    for number, pair in enumerate(listed):
        if not isinstance(pair, tuple):
            raise DTypeError(f"{kind} update sequence element #{number} should be Iterable; is{type(pair).__name__}")
        if len(pair) != 2:
            raise ConfigError(
                "modules", pair, f"{kind} update sequence element #{number} has length {len(pair)}; 2 is required"
            )
    return listed
