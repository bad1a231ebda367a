"""What happens around a module's forward: the hooks that see, and may replace, what goes in and what comes out."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from chainrule.engine.errors import AutogradError, UnsupportedError
from chainrule.engine.hooks import RemovableHandle
from chainrule.engine.nn.backward_hooks import Crossing

if TYPE_CHECKING:
    from chainrule.engine.nn.module import Module

Function = Callable[..., Any]


class CallHook(NamedTuple):
    """A hook of a module's call.

    Attributes:
        kind: when it is called.
        function: what is called.
        with_kwargs: whether it is given the keyword arguments too.
        always_call: whether it is called though the forward raised an error.
    """

    kind: Literal["forward_pre", "forward", "backward_pre", "backward"]
    function: Function
    with_kwargs: bool = False
    always_call: bool = False


class Hooked:
    """What has the hooks of a module; each method that registers one gives the handle that removes it."""

    _call_hooks: OrderedDict[int, CallHook]
    _state_dict_pre_hooks: OrderedDict[int, Function]
    _state_dict_hooks: OrderedDict[int, Function]
    _load_state_dict_pre_hooks: OrderedDict[int, Function]
    _load_state_dict_post_hooks: OrderedDict[int, Function]

    def __init__(self) -> None:
        self.__dict__.update(
            _call_hooks=OrderedDict(),
            _state_dict_pre_hooks=OrderedDict(),
            _state_dict_hooks=OrderedDict(),
            _load_state_dict_pre_hooks=OrderedDict(),
            _load_state_dict_post_hooks=OrderedDict(),
        )

    def register_forward_pre_hook(
        self, hook: Function, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Calls hook(module, args) before each forward; what it returns, a value or a tuple, replaces `args`.

        Args:
            prepend: before the hooks that are there.
            with_kwargs: calls hook(module, args, kwargs), which returns None or the pair that replaces both.
        """
        return _add(self._call_hooks, CallHook("forward_pre", hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Function, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Calls hook(module, args, output) after each forward; what it returns, if not None, replaces the output.

        Args:
            prepend: before the hooks that are there.
            with_kwargs: calls hook(module, args, kwargs, output).
            always_call: also if the forward raised an error; the output is then None.
        """
        return _add(self._call_hooks, CallHook("forward", hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(self, hook: Function, prepend: bool = False) -> RemovableHandle:
        """Calls hook(module, grad_output) once the gradients of the output are there; a tuple replaces them."""
        return _add(self._call_hooks, CallHook("backward_pre", hook), prepend)

    def register_full_backward_hook(self, hook: Function, prepend: bool = False) -> RemovableHandle:
        """Calls hook(module, grad_input, grad_output) once the gradients of the inputs are there.

        A tuple that it returns replaces `grad_input`. Both are tuples with None where an argument or output is no
        Tensor; a Tensor without a gradient has zeros among the inputs, and None among the outputs.
        """
        return _add(self._call_hooks, CallHook("backward", hook), prepend)

    def register_backward_hook(self, hook: Function) -> RemovableHandle:  # noqa: ARG002
        """Not supported: PyTorch's predecessor of `register_full_backward_hook`, which it deprecates."""
        raise UnsupportedError("register_backward_hook is not supported; use register_full_backward_hook")

    def register_state_dict_pre_hook(self, hook: Function) -> RemovableHandle:
        """Calls hook(module, prefix, keep_vars) before the module's state is collected."""
        return _add(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Function) -> RemovableHandle:
        """Calls hook(module, state_dict, prefix, local_metadata) once the state is collected, to modify it in place."""
        return _add(self._state_dict_hooks, hook)

    def register_load_state_dict_pre_hook(self, hook: Function) -> RemovableHandle:
        """Calls, before the module's own state is taken from a state_dict,

        hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        """
        return _add(self._load_state_dict_pre_hooks, hook)

    def register_load_state_dict_post_hook(self, hook: Function) -> RemovableHandle:
        """Calls hook(module, incompatible_keys) after loading; it may modify the keys in place."""
        return _add(self._load_state_dict_post_hooks, hook)


def _add(hooks: OrderedDict[int, Any], hook: object, prepend: bool = False) -> RemovableHandle:
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


def call(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The module's forward with its hooks around it."""
    run = _Call(module, args, kwargs)
    try:
        return run()
    except Exception:
        run.after_error()
        raise


class _Call:
    """One call of a module, and how far it has come."""

    def __init__(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.module = module
        self.args = args
        self.kwargs = kwargs
        self.result: Any = None
        self.hooks = list(module._call_hooks.items())  # a hook may remove itself
        self.called: set[int] = set()

    def __call__(self) -> Any:
        for _, hook in self.hooks:
            if hook.kind == "forward_pre":
                self.before_forward(hook)
        crossing = self.crossing()
        if crossing is not None:
            self.args = crossing.inputs(self.args)
        self.result = self.module.forward(*self.args, **self.kwargs)
        for number, hook in self.hooks:
            if hook.kind == "forward":
                self.called.add(number)
                self.after_forward(hook)
        return self.result if crossing is None else crossing.outputs(self.result)

    def crossing(self) -> Crossing | None:
        """What watches the way back, if a hook wants to see it."""
        before = [hook.function for _, hook in self.hooks if hook.kind == "backward_pre"]
        after = [hook.function for _, hook in self.hooks if hook.kind == "backward"]
        return Crossing(self.module, before, after) if before or after else None

    def before_forward(self, hook: CallHook) -> None:
        if not hook.with_kwargs:
            replaced = hook.function(self.module, self.args)
            if replaced is not None:
                self.args = replaced if isinstance(replaced, tuple) else (replaced,)
            return
        replaced = hook.function(self.module, self.args, self.kwargs)
        if replaced is None:
            return
        if not (isinstance(replaced, tuple) and len(replaced) == 2):
            raise AutogradError(
                f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {replaced}."
            )
        self.args, self.kwargs = replaced

    def after_forward(self, hook: CallHook) -> None:
        given = (self.args, self.kwargs) if hook.with_kwargs else (self.args,)
        replaced = hook.function(self.module, *given, self.result)
        if replaced is not None:
            self.result = replaced

    def after_error(self) -> None:
        """Calls the hooks that are always called and were not; the error on its way is more telling than theirs."""
        for number, hook in self.hooks:
            if hook.kind == "forward" and hook.always_call and number not in self.called:
                try:
                    self.after_forward(hook)
                except Exception as error:  # noqa: BLE001 - told below, beside the one on its way
                    warnings.warn(
                        "module forward hook with ``always_call=True`` raised an exception that was silenced as "
                        f"another error was raised in forward: {error}",
                        stacklevel=2,
                    )
