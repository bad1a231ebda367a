"""The Module: parameters, buffers and modules found by the attributes they are assigned to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Self, TypeVar

import numpy as np

from chainrule.engine.autograd.mode import no_grad
from chainrule.engine.autograd.variable import set_grad
from chainrule.engine.dtypes import as_dtype
from chainrule.engine.errors import ConfigError, DTypeError, StateDictError, UnsupportedError
from chainrule.engine.nn import conversion, hooks, state
from chainrule.engine.nn.hooks import Hooked
from chainrule.engine.nn.parameter import Buffer, Parameter
from chainrule.engine.nn.registration import ModuleAttributeError, check_buffer, check_name, check_parameter
from chainrule.engine.nn.state import IncompatibleKeys as IncompatibleKeys
from chainrule.engine.tensor import Tensor
from chainrule.engine.watching import call_module, watchers

T = TypeVar("T", bound=Tensor)


class Module(Hooked):
    """The base of every layer and network.

    Attributes:
        training: whether layers that behave differently while training do so.
    """

    training: bool
    _version: int = 1  # of what the state_dict holds; hooks find it in the metadata
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _non_persistent_buffers_set: set[str]
    _modules: dict[str, Module | None]

    def __init__(self) -> None:
        fields: dict[str, Any] = {"training": True, "_parameters": {}, "_buffers": {}, "_modules": {}}
        self.__dict__.update(fields, _non_persistent_buffers_set=set())
        super().__init__()

    def forward(self, *args: Any) -> Any:
        """What calling the module computes; each kind of module defines it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if watchers:
            return call_module(self, lambda: hooks.call(self, args, kwargs))
        if not self._call_hooks:
            return self.forward(*args, **kwargs)
        return hooks.call(self, args, kwargs)

    def _fused(self, following: Module, *args: Any) -> Any:  # noqa: ARG002
        """following(self(*args)) where both can be computed at once; else None. See `nn.fusing`."""
        return None

    # ---- Registration ----

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Makes `param` the parameter of this name; None keeps the name for one that is not used.

        Raises:
            RegistrationError: the name is empty, has a dot, or is another attribute's.
            DTypeError: something that is no Parameter, or a name that is no string.
        """
        check_parameter(self, name, param)
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Makes `tensor` part of the module's state without being learnt; `persistent`: and of its state_dict.

        Raises:
            RegistrationError: the name is empty, has a dot, or is another attribute's.
            DTypeError: something that is no Tensor, or a name that is no string.
        """
        check_buffer(self, name, tensor)
        self._buffers[name] = tensor
        (self._non_persistent_buffers_set.discard if persistent else self._non_persistent_buffers_set.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Makes `module` the child of this name.

        Raises:
            RegistrationError: the name is empty, has a dot, or is another attribute's.
            DTypeError: something that is no Module, or a name that is no string.
        """
        if module is not None and not isinstance(module, Module):
            raise DTypeError(f"{type(module).__name__} is not a Module subclass")
        check_name("module", self, name, name in self._modules)
        self._modules[name] = module

    register_module = add_module

    def __setattr__(self, name: str, value: Any) -> None:
        fields = self.__dict__
        if "_parameters" not in fields:
            if isinstance(value, Parameter | Module):
                kind = "parameters" if isinstance(value, Parameter) else "module"
                raise ModuleAttributeError(f"cannot assign {kind} before Module.__init__() call")
            object.__setattr__(self, name, value)
        elif isinstance(value, Parameter):
            self._forget(name, fields, self._buffers, self._modules)
            self.register_parameter(name, value)
        elif name in self._parameters:
            self._only_none(value, f"parameter '{name}' (nn.Parameter")
            self._parameters[name] = None
        elif isinstance(value, Module):
            self._forget(name, fields, self._parameters, self._buffers)
            self._modules[name] = value
        elif name in self._modules:
            self._only_none(value, f"child module '{name}' (nn.Module")
            self._modules[name] = None
        elif isinstance(value, Buffer):
            self.register_buffer(name, value, value.persistent)
        elif name in self._buffers:
            if not isinstance(value, Tensor):
                self._only_none(value, f"buffer '{name}' (nn.Buffer, Tensor")
            self._buffers[name] = value
        else:
            object.__setattr__(self, name, value)

    @staticmethod
    def _only_none(value: object, place: str) -> None:
        if value is not None:
            raise DTypeError(f"cannot assign '{type(value).__name__}' as {place} or None expected)")

    def _forget(self, name: str, *places: MutableMapping[str, Any]) -> None:
        for place in places:
            place.pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    # Found only where the instance has no such attribute of its own.
    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__
        if "_modules" in fields:  # the last that `__init__` makes
            for registry in (fields["_parameters"], fields["_buffers"], fields["_modules"]):
                if name in registry:
                    return registry[name]
        raise ModuleAttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        if any(name in registry for registry in (self._parameters, self._buffers, self._modules)):
            self._forget(name, self._parameters, self._buffers, self._modules)
        else:
            object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {*super().__dir__(), *self._parameters, *self._buffers, *self._modules}
        return sorted(name for name in names if not name[0].isdigit())

    # ---- What is in it ----

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly inside, each once, with their names."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The modules directly inside."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all inside, with the path to it; `remove_duplicate`: each once, and none of `memo`."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all inside."""
        return (module for _, module in self.named_modules(remove_duplicate=remove_duplicate))

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters with the path to each; `recurse`: those of the modules inside too."""
        return self._named(lambda module: module._parameters, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The buffers with the path to each; `recurse`: those of the modules inside too."""
        return self._named(lambda module: module._buffers, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _named(
        self, of: Callable[[Module], Mapping[str, T | None]], prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, T]]:
        seen: set[int] = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, value in of(module).items():
                if value is not None and id(value) not in seen:
                    if remove_duplicate:
                        seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    # ---- What is at a path ----

    def get_submodule(self, target: str) -> Module:
        """The module at a path such as `layer1.0`; the empty path is this module itself.

        Raises:
            ModuleAttributeError: there is none.
        """
        module = self
        for name in target.split(".") if target else ():
            found = module._at(name)
            if not isinstance(found, Module):
                raise ModuleAttributeError(f"`{name}` is not an nn.Module")
            module = found
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Puts `module` at a path, in place of the one there; `strict`: there has to be one.

        Raises:
            ModuleAttributeError: the path leads nowhere, or to something that is no module.
            ConfigError: an empty path, or something that is no Module.
        """
        if not target:
            raise ConfigError("target", target, "Cannot set the submodule without a target name!")
        if not isinstance(module, Module):
            raise ConfigError("module", module, f"`module` is not an nn.Module, found {type(module)}")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if (strict or hasattr(parent, name)) and not isinstance(parent._at(name), Module):
            raise ModuleAttributeError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a path such as `layer1.0.weight`.

        Raises:
            ModuleAttributeError: there is none.
        """
        path, _, name = target.rpartition(".")
        found = self.get_submodule(path)._at(name)
        if not isinstance(found, Parameter):
            raise ModuleAttributeError(f"`{name}` is not an nn.Parameter")
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a path such as `layer1.0.running_mean`.

        Raises:
            ModuleAttributeError: there is none.
        """
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        found = module._at(name)
        if name not in module._buffers:
            raise ModuleAttributeError(f"`{name}` is not a buffer")
        assert isinstance(found, Tensor)
        return found

    def _at(self, name: str) -> object:
        if not hasattr(self, name):
            raise ModuleAttributeError(f"{type(self).__name__} has no attribute `{name}`")
        found: object = getattr(self, name)
        return found

    # ---- State ----

    def state_dict(
        self, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """Parameters and persistent buffers by path; they share the module's memory.

        Args:
            destination: where they are added; None: a new OrderedDict.
            prefix: put before each path.
            keep_vars: the parameters and buffers themselves rather than detached.
        """
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()  # type: ignore[attr-defined]
        metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = metadata
        for hook in self._state_dict_pre_hooks.values():
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._state_dict_hooks.values():
            if hook(self, destination, prefix, metadata) is not None:
                raise StateDictError("state_dict post-hook must return None")
        return destination

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copies the values of `state_dict` into parameters and buffers of the same path.

        Everything is compared before anything is copied, so that a failed load changes nothing; only if a hook of
        `register_load_state_dict_post_hook` is to see what was loaded are keys still missing afterwards.

        Args:
            state_dict: tensors or arrays by path.
            strict: whether every path must be on both sides.
            assign: puts the tensors of `state_dict` themselves in place of the module's.

        Raises:
            StateDictError: a path is missing or unexpected (if strict), or a shape differs.
        """
        return state.load(self, state_dict, strict, assign)

    def get_extra_state(self) -> Any:
        """What else belongs in the state_dict; a module that has such a thing defines this and `set_extra_state`."""
        raise UnsupportedError(f"{type(self).__name__} has no extra state; define get_extra_state to give it one")

    def set_extra_state(self, state: Any) -> None:  # noqa: ARG002
        """Takes back what `get_extra_state` gave."""
        raise UnsupportedError(f"{type(self).__name__} has no extra state; define set_extra_state to give it one")

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Adds what is this module's own; a module that stores its state in another form extends it."""
        state.save(self, destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Takes what is this module's own; a module that stores its state in another form extends it.

        What is taken is copied once all of the model fits, not yet when this returns.
        """
        for hook in self._load_state_dict_pre_hooks.values():
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        state.load_own(self, state_dict, prefix, local_metadata, missing_keys, unexpected_keys, error_msgs)

    def _overrides(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(Module, name)

    # ---- Dtypes and devices ----

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Converts the floating parameters and buffers, in place: `to(dtype)`, `to(tensor)`, `to("cpu", dtype)`.

        Args:
            memory_format: how the elements of four-dimensional ones shall lie in memory, e.g. `channels_last`.

        Raises:
            UnsupportedError: a device other than the CPU, or a memory format that is not supported.
            DTypeError: a dtype that is not floating.
        """
        return self._apply(conversion.parse_to(*args, **kwargs))

    def float(self) -> Self:
        """Converts floating parameters and buffers to float32."""
        return self.to(np.float32)

    def double(self) -> Self:
        """Converts floating parameters and buffers to float64."""
        return self.to(np.float64)

    def half(self) -> Self:
        """Converts floating parameters and buffers to float16."""
        return self.to(np.float16)

    def bfloat16(self) -> Self:
        """Converts floating parameters and buffers to bfloat16."""
        return self.to("bfloat16")

    def type(self, dst_type: Any) -> Self:
        """Converts all parameters and buffers, also those of integers."""
        dtype = as_dtype(dst_type)
        return self._apply(lambda tensor: tensor.to(dtype))

    def cpu(self) -> Self:
        """The module itself: it is on the CPU."""
        return self

    def to_empty(self, *, device: object, recurse: bool = True) -> Self:
        """Gives parameters and buffers new memory with no values in particular."""
        conversion.check_device(device)
        return self._apply(lambda tensor: Tensor.wrap(np.empty_like(tensor.data)), recurse)

    cuda = conversion.unsupported_device("cuda")
    ipu = conversion.unsupported_device("ipu")
    mtia = conversion.unsupported_device("mtia")
    xpu = conversion.unsupported_device("xpu")

    def share_memory(self) -> Self:
        """Not supported: arrays are the process's own."""
        raise UnsupportedError(
            f"{type(self).__name__}.share_memory(): tensors live in one process; pickle the module, or send its "
            "state_dict()"
        )

    def compile(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Not supported: there is no compiler."""
        raise UnsupportedError(f"{type(self).__name__}.compile(): there is no compiler; call the module as it is")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Gives every parameter and its gradient the values of `fn`, and puts those of buffers in their place."""
        for module in self.children() if recurse else ():
            module._apply(fn, recurse)
        with no_grad():
            for parameter in self._parameters.values():
                if parameter is not None:
                    converted = fn(parameter)
                    if parameter.requires_grad and not converted.is_floating_point():
                        raise DTypeError(f"a parameter that requires a gradient cannot become {converted.dtype}")
                    parameter.data = converted.data
                    if parameter.grad is not None:
                        parameter.grad = Tensor.wrap(fn(parameter.grad).data)
            for name, buffer in self._buffers.items():
                if buffer is not None:
                    self._buffers[name] = fn(buffer)
        return self

    # ---- Training ----

    def train(self, mode: bool = True) -> Self:
        """Puts this module and all inside in training mode, or out of it."""
        if not isinstance(mode, bool):
            raise ConfigError("mode", mode, "training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Self:
        """Puts this module and all inside out of training mode."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Sets whether the parameters require gradients."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients of the parameters, or sets them to 0."""
        zero_grads(self.parameters(), set_to_none)

    def apply(self, fn: Callable[[Module], object]) -> Self:
        """Calls `fn` on every module inside, and then on this one."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # ---- How it prints ----

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """The settings in the module's repr."""
        return ""

    def __repr__(self) -> str:
        children = [f"({name}): {_indent(repr(module))}" for name, module in self._modules.items()]
        return layout(self._get_name(), self.extra_repr(), children)


def layout(name: str, extra: str, children: Sequence[str]) -> str:
    """A module's repr: on one line if its settings are all there is to say and fit on one."""
    lines = [*(extra.split("\n") if extra else ()), *children]
    if not children and len(lines) < 2:
        return f"{name}({extra})"
    return f"{name}(\n  " + "\n  ".join(lines) + "\n)"


def zero_grads(parameters: Iterable[Tensor], set_to_none: bool) -> None:
    """Forgets the gradients of the parameters, or sets them to 0."""
    for parameter in parameters:
        if set_to_none:
            set_grad(parameter, None)
        elif parameter.grad is not None:
            parameter.grad = parameter.grad.detach().zero_()


def _indent(text: str) -> str:
    return text.replace("\n", "\n  ")
