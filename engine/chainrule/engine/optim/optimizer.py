"""What optimizers share: groups of parameters with their settings, and a state for each parameter."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar, overload

import numpy as np

from chainrule.engine.autograd.mode import enable_grad, no_grad
from chainrule.engine.dtypes import Array
from chainrule.engine.errors import ConfigError, DTypeError, StateDictError, UnsupportedError
from chainrule.engine.nn.module import zero_grads
from chainrule.engine.optim.hooks import Hooked
from chainrule.engine.tensor import Tensor

Group = dict[str, Any]
Params = Iterable[Tensor] | Iterable[Mapping[str, Any]] | Iterable[tuple[str, Tensor]]
Loss = TypeVar("Loss")

IMPLEMENTATIONS = ("capturable", "differentiable", "foreach", "fused")


class OptimizerStateError(StateDictError, ValueError):
    """A state_dict does not fit the optimizer it is loaded into."""


class Optimizer(Hooked):
    """Updates parameters by their gradients.

    A kind of optimizer defines `update`, the step of one parameter; or `step` itself, as in PyTorch.

    Args:
        params: parameters, pairs of a name and a parameter as `named_parameters()` gives them, or dicts of either
            under `params` with settings of their own: `{"params": [...], "lr": 0.1}`.
        defaults: the settings of the groups that do not have their own.

    Attributes:
        defaults: as given.
        param_groups: dicts of `params` and their settings, which may be changed between steps.
        state: for each parameter what the optimizer remembers of it.

    Raises:
        ConfigError: no parameters, parameters that cannot be optimized, or a setting out of range.
        DTypeError: something that is no Tensor.
        UnsupportedError: a setting asks for an implementation that this version does not have.
    """

    per_element: ClassVar[tuple[str, ...]] = ()  # what of the state has the shape of its parameter
    fixed: ClassVar[Group] = {}  # settings that no loaded state_dict changes

    def __init__(self, params: Params, defaults: Group) -> None:
        super().__init__()
        if isinstance(params, Tensor):
            raise DTypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, "
                f"but got {type(params).__name__}; put it in a list"
            )
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        self._check(defaults)
        listed: list[Any] = list(params)
        if not listed:
            raise ConfigError("params", [], "optimizer got an empty parameter list")
        for group in listed if isinstance(listed[0], Mapping) else [{"params": listed}]:
            self.add_param_group(group)

    # ---- What each kind defines ----

    def check_group(self, group: Group) -> None:
        """Raises ConfigError if a setting is out of range."""

    def update(self, parameter: Tensor, gradient: Array, group: Group) -> None:
        """Takes a step of one parameter, in place."""
        raise NotImplementedError(f"{type(self).__name__} defines neither update nor step")

    # ---- Steps ----

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], Loss]) -> Loss: ...
    def step(self, closure: Callable[[], Loss] | None = None) -> Loss | None:
        """Updates every parameter that has a gradient.

        Args:
            closure: called first, with gradients enabled; it evaluates the model anew and gives the loss.

        Returns:
            The closure's loss.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self.update(parameter, parameter.grad.data, group)
                        parameter.counter.value += 1
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients, or sets them to 0."""
        zero_grads(self._parameters(), set_to_none)

    # ---- Groups ----

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Adds parameters with settings of their own; the rest are the optimizer's. The dict itself is left as it is.

        Raises:
            ConfigError: a parameter is listed twice or is no leaf, only some have names, or a setting is out of range.
            DTypeError: something that is no Tensor, or no list of them.
        """
        if not isinstance(param_group, Mapping):
            raise DTypeError(f"param_group must be a dict, but got {type(param_group)}")
        group = {**param_group}
        names, group["params"] = _named(param_group["params"])
        if names:
            group["param_names"] = names
        known = {id(parameter) for parameter in self._parameters()}
        mine: set[int] = set()
        for position, parameter in enumerate(group["params"]):
            where = f"params[{position}]"
            if not isinstance(parameter, Tensor):
                raise DTypeError(f"optimizer can only optimize Tensors, but one of the params is {type(parameter)}")
            if not parameter.is_leaf and not getattr(parameter, "retains_grad", False):
                raise ConfigError(where, parameter.shape, "can't optimize a non-leaf Tensor")
            if id(parameter) in known:
                raise ConfigError(where, parameter.shape, "some parameters appear in more than one parameter group")
            if id(parameter) in mine:
                message = "optimizer contains a parameter group with duplicate parameters; list each once"
                raise ConfigError(where, parameter.shape, message)
            mine.add(id(parameter))
        for other in self.param_groups:
            if ("param_names" in other) != ("param_names" in group):
                raise ConfigError(
                    "param_names",
                    group.get("param_names"),
                    "all optimizer param groups should be with/without names. cannot add param group "
                    f"{'with' if 'param_names' in group else 'without'} names to the optimizer",
                )
        for name, default in self.defaults.items():
            group.setdefault(name, default)
        self._check(group)
        self.param_groups.append(group)

    def _check(self, group: Group) -> None:
        """Refuses what no kind of optimizer has, then what this one refuses."""
        _check_implementation(type(self).__name__, group)
        for name in self.defaults:
            parts = group[name] if isinstance(group[name], tuple | list) else [group[name]]
            if any(isinstance(part, Tensor) for part in parts):
                raise UnsupportedError(
                    f"{type(self).__name__}: {name} as a Tensor is not supported by this version; use its item()"
                )
        self.check_group(group)

    def _parameters(self) -> Iterator[Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    # ---- State ----

    def state_dict(self) -> dict[str, Any]:
        """The state and the settings, with parameters named by their position: what PyTorch's has, as Tensors.

        It refers to the state itself: copy it to keep it from the steps to come.
        """
        for hook in self._hooks_of("before state_dict"):
            hook(self)
        numbers = {id(parameter): number for number, parameter in enumerate(self._parameters())}
        groups = [
            {
                **{key: value for key, value in group.items() if key != "params"},
                "params": [numbers[id(p)] for p in group["params"]],
            }
            for group in self.param_groups
        ]
        # What is kept under something other than a parameter goes as it is.
        state = {numbers.get(id(key), key): value for key, value in self.state.items()}
        return self._replaced("after state_dict", {"state": state, "param_groups": groups})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over a copy of the state and the settings of `state_dict`, an optimizer's of ours or of PyTorch's.

        Tensors of the state may be Tensors or anything that numpy makes an array of; all but `step` get the dtype of
        their parameter. Settings that are not in it stay as they are.

        Raises:
            OptimizerStateError: its groups do not have the sizes of this optimizer's, or its state the shapes.
            UnsupportedError: its settings ask for an implementation that this version does not have.
        """
        state_dict = self._replaced("before load_state_dict", {**state_dict})
        groups = copy.deepcopy(state_dict["param_groups"])
        if len(groups) != len(self.param_groups):
            raise OptimizerStateError(
                f"loaded state dict has a different number of parameter groups: {len(groups)}, "
                f"not {len(self.param_groups)}"
            )
        by_number: dict[Any, Tensor] = {}
        for loaded, own in zip(groups, self.param_groups, strict=True):
            if len(loaded["params"]) != len(own["params"]):
                raise OptimizerStateError(
                    "loaded state dict contains a parameter group that doesn't match the size of "
                    f"optimizer's group: {len(loaded['params'])}, not {len(own['params'])}"
                )
            _check_implementation(type(self).__name__, loaded)
            by_number.update(zip(loaded["params"], own["params"], strict=True))
            loaded.update(self.fixed, params=own["params"])
            for name in [*self.defaults, "param_names"]:
                if name in own:
                    loaded.setdefault(name, own[name])
        state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        for number, remembered in state_dict["state"].items():
            parameter = by_number.get(number)
            if parameter is None:
                state[number] = copy.deepcopy(remembered)
            else:
                state[parameter] = self._state_of(number, parameter, remembered)
        self.state, self.param_groups = state, groups
        for hook in self._hooks_of("after load_state_dict"):
            hook(self)

    def _state_of(self, number: object, parameter: Tensor, remembered: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of what is remembered of a parameter, checked and as Tensors."""
        state = {key: _as_state(value, parameter, key) for key, value in remembered.items()}
        for key in self.per_element:
            value = state.get(key)
            if value is not None and value.shape != parameter.shape:
                raise OptimizerStateError(
                    f"loaded state dict has {key} of shape {value.shape} for parameter {number} of shape "
                    f"{parameter.shape}; give the optimizer the parameters in the order they were saved in"
                )
        if "step" in state and not isinstance(state["step"], Tensor):
            state["step"] = Tensor(np.float32(state["step"]))  # a number in files of old versions of PyTorch
        return state

    # ---- Copies ----

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_hooks", "_stepping")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._hooks = {}

    def __repr__(self) -> str:
        blocks = []
        for number, group in enumerate(self.param_groups):
            settings = [f"    {key}: {value}\n" for key, value in sorted(group.items()) if key != "params"]
            blocks.append(f"\nParameter Group {number}\n" + "".join(settings))
        return f"{type(self).__name__} (" + "".join(blocks) + ")"


def elementwise_state(state: dict[str, Any], key: str, parameter: Tensor) -> Array:
    """The array of the parameter's shape that is remembered under `key`; of zeros at first."""
    if state.get(key) is None:
        state[key] = Tensor.wrap(np.zeros_like(parameter.data))
    array: Array = state[key].data
    return array


def count_step(state: dict[str, Any]) -> float:
    """The number of this step, from 1; kept as PyTorch does, in a float32 Tensor."""
    if "step" not in state:
        state["step"] = Tensor.wrap(np.zeros((), np.float32))
    count: Array = state["step"].data
    count += 1
    return float(count)


def check_not_negative(group: Group, name: str, what: str) -> None:
    """Raises ConfigError if a setting is below 0, or no number."""
    if not group[name] >= 0:
        raise ConfigError(name, group[name], f"Invalid {what}: {group[name]}; it must not be negative")


def _named(members: Any) -> tuple[list[str], list[Any]]:
    """The names and the parameters of a group; no names if it has none."""
    if isinstance(members, Tensor):
        return [], [members]
    if isinstance(members, set | frozenset):
        raise DTypeError(
            "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in sets "
            "will change between runs. Please use a list instead."
        )
    listed = list(members)
    names = [member[0] for member in listed if isinstance(member, tuple)]
    if names and len(names) != len(listed):
        raise ConfigError(
            "params", names, "all optimizer params should be with/without names. Some param names are missing"
        )
    return names, [member[1] for member in listed] if names else listed


def _check_implementation(optimizer: str, group: Mapping[str, Any]) -> None:
    for name in IMPLEMENTATIONS:
        if group.get(name):
            raise UnsupportedError(
                f"{optimizer}: {name}={group[name]} is not supported by this version, which has one implementation; "
                f"leave {name} out"
            )


def _as_state(value: Any, parameter: Tensor, key: str) -> Any:
    """A copy of something remembered, with Tensors for arrays and the dtype of the parameter."""
    if isinstance(value, Mapping):
        return {name: _as_state(part, parameter, name) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_as_state(part, parameter, "") for part in value)
    if not isinstance(value, Tensor) and not hasattr(value, "__array__"):
        return copy.deepcopy(value)
    array = np.asarray(value.data if isinstance(value, Tensor) else value).copy(order="K")
    if key != "step" and parameter.is_floating_point():
        array = array.astype(parameter.dtype, copy=False)
    return Tensor(array)
