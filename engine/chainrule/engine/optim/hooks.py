"""What may be called around the steps of an optimizer, and around saving and loading its state."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Any

from chainrule.engine.errors import ChainruleError
from chainrule.engine.hooks import RemovableHandle

Hook = Callable[..., Any]


class HookError(ChainruleError, RuntimeError):
    """A hook gave what it may not give."""


class Hooked:
    """Keeps hooks by occasion. They are called in the order they were registered in.

    Each `register_…` gives a handle whose `remove()` takes the hook away. Hooks are not copied and not pickled with
    the optimizer, as in PyTorch.

    Attributes:
        scheduled: whether a scheduler of the learning rate watches the steps.
        stepped: whether a step was taken since.
    """

    scheduled = False
    stepped = False
    _stepping = False

    def __init__(self) -> None:
        self._hooks: dict[str, OrderedDict[int, Hook]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in vars(cls):
            cls.step = _with_hooks(vars(cls)["step"])  # type: ignore[attr-defined]

    def register_step_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Calls `hook(optimizer, args, kwargs)` before each step.

        `args` are those of `step`, the optimizer first. The hook may give `(args, kwargs)` to use instead.
        """
        return self._register("before step", hook)

    def register_step_post_hook(self, hook: Hook) -> RemovableHandle:
        """Calls `hook(optimizer, args, kwargs)` after each step."""
        return self._register("after step", hook)

    def register_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(optimizer)` before `state_dict`; `prepend` puts it before those there are."""
        return self._register("before state_dict", hook, prepend)

    def register_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(optimizer, state_dict)` after `state_dict`; it may give another to use instead."""
        return self._register("after state_dict", hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(optimizer, state_dict)` before `load_state_dict`; it may give another to use instead."""
        return self._register("before load_state_dict", hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Calls `hook(optimizer)` after `load_state_dict`."""
        return self._register("after load_state_dict", hook, prepend)

    def _register(self, occasion: str, hook: Hook, prepend: bool = False) -> RemovableHandle:
        hooks = self._hooks.setdefault(occasion, OrderedDict())
        handle = RemovableHandle(hooks)
        hooks[handle.id] = hook
        if prepend:
            hooks.move_to_end(handle.id, last=False)
        return handle

    def _hooks_of(self, occasion: str) -> list[Hook]:
        """A copy: a hook may remove itself."""
        return list(self._hooks.get(occasion, {}).values())

    def _replaced(self, occasion: str, state_dict: dict[str, Any]) -> dict[str, Any]:
        """What the hooks of an occasion make of a state_dict."""
        for hook in self._hooks_of(occasion):
            result = hook(self, state_dict)
            state_dict = state_dict if result is None else result
        return state_dict


def _with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` with the hooks around it; a step that calls the one it overrides has them once.

    Raises:
        HookError: a hook before the step gives something other than None or (args, kwargs).
    """

    @wraps(step)
    def hooked(self: Hooked, *args: Any, **kwargs: Any) -> Any:
        if self._stepping:
            return step(self, *args, **kwargs)
        self._stepping = self.stepped = True
        try:
            given: tuple[Any, ...] = (self, *args)
            for hook in self._hooks_of("before step"):
                replaced = hook(self, given, kwargs)
                if replaced is None:
                    continue
                if not isinstance(replaced, tuple) or len(replaced) != 2:
                    raise HookError(
                        f"{hook} must return None or a tuple of (new_args, new_kwargs), but got {replaced}."
                    )
                given, kwargs = replaced
            result = step(*given, **kwargs)
            for hook in self._hooks_of("after step"):
                hook(self, given, kwargs)
            return result
        finally:
            self._stepping = False

    return hooked
