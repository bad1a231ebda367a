"""How a module's state is collected into a state_dict, and how it is taken from one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from chainrule.engine.autograd.mode import no_grad
from chainrule.engine.errors import DTypeError, StateDictError
from chainrule.engine.nn.parameter import Parameter
from chainrule.engine.tensor import Tensor

if TYPE_CHECKING:
    from chainrule.engine.nn.module import Module

EXTRA_STATE = "_extra_state"  # the key of what `get_extra_state` gives
Copies = list[tuple[str, Callable[[], object]]]  # by path, what puts a value in its place


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` did not find, and did not use."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


# ---- Out of a module ----


def own_state(module: Module) -> dict[str, Tensor]:
    """The parameters and persistent buffers of this module itself, by name."""
    kept = {name: b for name, b in module._buffers.items() if name not in module._non_persistent_buffers_set}
    return {name: value for name, value in (*module._parameters.items(), *kept.items()) if value is not None}


def save(module: Module, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
    """Adds the state of this module itself to `destination`."""
    for name, value in own_state(module).items():
        destination[prefix + name] = value if keep_vars else value.detach()
    if module._overrides("get_extra_state"):
        destination[prefix + EXTRA_STATE] = module.get_extra_state()


# ---- Into a module ----


def load(module: Module, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """What `Module.load_state_dict` does: first everything is compared, then everything is copied."""
    if not isinstance(state_dict, Mapping):
        raise DTypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    metadata: Mapping[str, Any] = getattr(state_dict, "_metadata", None) or {}
    missing: list[str] = []
    unexpected: list[str] = []
    errors: list[str] = []
    copies: Copies = []
    visited: list[Module] = []  # children before parents

    def visit(module: Module, state: dict[str, Any], prefix: str) -> None:
        local = {**metadata.get(prefix[:-1], {}), "copies": copies, "assign_to_params_buffers": assign}
        module._load_from_state_dict(state, prefix, local, True, missing, unexpected, errors)
        for name, child in module._modules.items():
            if child is not None:
                path = f"{prefix}{name}."
                visit(child, {key: value for key, value in state.items() if key.startswith(path)}, path)
        visited.append(module)

    visit(module, OrderedDict(state_dict), "")
    keys = IncompatibleKeys(missing, unexpected)
    hooks = [(visited_module, hook) for visited_module in visited for hook in _post_hooks(visited_module)]
    if not errors and (hooks or not (strict and (missing or unexpected))):
        _copy(copies, errors)
    for visited_module, hook in hooks:
        if hook(visited_module, keys) is not None:
            raise StateDictError(
                "Hooks registered with register_load_state_dict_post_hook are not expected to return new values; "
                "modify incompatible_keys in place"
            )
    if strict:
        errors[:0] = _key_errors(keys)
    if errors:
        raise StateDictError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t" + "\n\t".join(errors))
    return keys


def load_own(
    module: Module,
    state_dict: Mapping[str, Any],
    prefix: str,
    local_metadata: Mapping[str, Any],
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Compares the state of this module itself with `state_dict`, and notes, or makes, the copies."""
    copies: Copies = local_metadata.get("copies", [])
    already = len(copies)
    own = own_state(module)
    for name, value in own.items():
        key = prefix + name
        if key not in state_dict:
            missing_keys.append(key)
            continue
        given = state_dict[key]
        if not isinstance(given, Tensor | np.ndarray | np.generic):
            error_msgs.append(
                f'While copying the parameter named "{key}", expected Tensor or array from checkpoint but received '
                f"{type(given)}"
            )
            continue
        source = given if isinstance(given, Tensor) else Tensor.wrap(np.asarray(given))
        if value.ndim == 0 and tuple(source.shape) == (1,):
            source = source[0]
        if tuple(source.shape) != tuple(value.shape):
            error_msgs.append(
                f"size mismatch for {key}: copying a param with shape {tuple(source.shape)} from checkpoint, "
                f"the shape in current model is {tuple(value.shape)}."
            )
        elif local_metadata.get("assign_to_params_buffers", False):
            copies.append((key, partial(_assign, module, name, value, source)))
        else:
            copies.append((key, partial(value.copy_, source)))
    _load_extra_state(module, state_dict, prefix, copies, missing_keys, unexpected_keys)
    unexpected_keys.extend(_unexpected(module, state_dict, prefix, own))
    if "copies" not in local_metadata:
        _copy(copies[already:], error_msgs)


def _load_extra_state(
    module: Module,
    state_dict: Mapping[str, Any],
    prefix: str,
    copies: Copies,
    missing_keys: list[str],
    unexpected_keys: list[str],
) -> None:
    key = prefix + EXTRA_STATE
    wanted = module._overrides("set_extra_state")
    if wanted and key in state_dict:
        copies.append((key, partial(module.set_extra_state, state_dict[key])))
    elif wanted:
        missing_keys.append(key)
    elif key in state_dict:
        unexpected_keys.append(key)


def _unexpected(module: Module, state_dict: Mapping[str, Any], prefix: str, own: Mapping[str, Tensor]) -> list[str]:
    """The keys under `prefix` that lead neither into a child nor to something of the module's own."""
    keys = []
    for key in state_dict:
        if key.startswith(prefix) and key != prefix + EXTRA_STATE:
            first, dot, _ = key[len(prefix) :].partition(".")
            if first not in (module._modules if dot else own):
                keys.append(key)
    return keys


def _assign(module: Module, name: str, value: Tensor, source: Tensor) -> None:
    if isinstance(value, Parameter):
        source = source if isinstance(source, Parameter) else Parameter(source, requires_grad=value.requires_grad)
        source.requires_grad_(value.requires_grad)
    setattr(module, name, source)


def _copy(copies: Copies, errors: list[str]) -> None:
    with no_grad():
        for key, copy in copies:
            try:
                copy()
            except Exception as error:  # noqa: BLE001 - raised below, with the others
                errors.append(f'While copying the parameter named "{key}", an exception occurred : {error.args}.')


def _post_hooks(module: Module) -> list[Callable[[Module, IncompatibleKeys], object]]:
    return list(module._load_state_dict_post_hooks.values())


def _key_errors(keys: IncompatibleKeys) -> list[str]:
    named = (("Missing", keys.missing_keys), ("Unexpected", keys.unexpected_keys))
    return [f"{word} key(s) in state_dict: {_quoted(names)}. " for word, names in named if names]


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
