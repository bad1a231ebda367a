"""Calling a module with other parameters than its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from chainrule.engine.errors import ArgumentError, StateDictError
from chainrule.engine.nn.module import Module
from chainrule.engine.tensor import Tensor

__all__ = ["functional_call"]


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """module(*args, **kwargs), with the given tensors in place of its parameters and buffers of these names.

    Gradients flow into the given tensors. What the call does to given buffers does not reach the module's own.

    Args:
        module: any.
        parameter_and_buffer_dicts: tensors by name, as in `named_parameters`; several mappings count as one.
        args: the arguments of the call, as a tuple, or the one argument.
        kwargs: its keyword arguments.
        tie_weights: a parameter that the module has under several names is replaced under all of them.
        strict: every parameter and buffer has to be given.

    Raises:
        ArgumentError: several mappings, or names of one tied parameter, give different tensors.
        StateDictError: a name is not in the module; or, if `strict`, one of the module's is not given.
    """
    given = _as_one(parameter_and_buffer_dicts)
    own = _own(module)
    _check_names(type(module).__name__, given, own, strict=strict)
    if tie_weights:
        given = _with_ties(given, own)
    with _replaced(module, given, own):
        return module(*(args if isinstance(args, tuple) else () if args is None else (args,)), **(kwargs or {}))


def _as_one(dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    if isinstance(dicts, Mapping):
        return dict(dicts)
    given: dict[str, Tensor] = {}
    for tensors in dicts:
        for name, tensor in tensors.items():
            if given.setdefault(name, tensor) is not tensor:
                raise ArgumentError(f"{name!r} is given twice; name each parameter in one mapping only")
    return given


def _own(module: Module) -> dict[str, Tensor]:
    """The module's parameters and buffers, under all their names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _check_names(kind: str, given: Mapping[str, Tensor], own: Mapping[str, Tensor], *, strict: bool) -> None:
    unexpected = [name for name in given if name not in own]
    missing = [name for name in own if name not in given] if strict else []
    if unexpected or missing:
        named = (("Unexpected key(s): ", unexpected), ("Missing key(s): ", missing))
        told = "".join(f"\n\t{words}{', '.join(names)}." for words, names in named if names)
        raise StateDictError(f"Error(s) in functional_call of {kind}:{told}")


def _with_ties(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is given under one name of a parameter, under all its names."""
    by_own: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in given.items():
        first, other = by_own.setdefault(id(own[name]), (name, tensor))
        if other is not tensor:
            raise ArgumentError(f"{first!r} and {name!r} are one parameter, and two tensors are given for it")
    return {name: by_own[id(tensor)][1] for name, tensor in own.items() if id(tensor) in by_own}


@contextmanager
def _replaced(module: Module, given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Iterator[None]:
    """The module with these tensors, until what it had is put back."""
    places = []
    for name in own:
        path, _, last = name.rpartition(".")
        holder = module.get_submodule(path)
        places.append((holder._parameters if last in holder._parameters else holder._buffers, last, name))
    try:
        for registry, last, name in places:
            if name in given:
                registry[last] = given[name]  # type: ignore[assignment]
        yield
    finally:
        for registry, last, name in places:
            if name in given:
                registry[last] = own[name]  # type: ignore[assignment]
