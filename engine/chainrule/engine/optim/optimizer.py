"""What optimizers share: groups of parameters with their settings, and a state for each parameter."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from chainrule.engine.dtypes import Array
from chainrule.engine.errors import ConfigError, DTypeError, StateDictError
from chainrule.engine.nn.module import zero_grads
from chainrule.engine.tensor import Tensor

Group = dict[str, Any]


class Optimizer:
    """Updates parameters by their gradients.

    Attributes:
        param_groups: dicts of `params` and their settings, which may be changed between steps.
        state: for each parameter what the optimizer remembers of it.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[Mapping[str, Any]], defaults: Group) -> None:
        if isinstance(params, Tensor):
            raise DTypeError("params argument given to the optimizer should be an iterable of Tensors or dicts")
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        self.check_group(defaults)
        listed = list(params)
        if not listed:
            raise ConfigError("params", [], "optimizer got an empty parameter list")
        for group in listed if isinstance(listed[0], Mapping) else [{"params": listed}]:
            assert isinstance(group, Mapping)
            self.add_param_group(group)

    def check_group(self, group: Group) -> None:
        """Raises ConfigError if a setting is out of range; each kind of optimizer defines it."""

    def update(self, parameter: Tensor, gradient: Array, state: dict[str, Any], group: Group) -> None:
        """Takes a step of one parameter; each kind of optimizer defines it."""
        raise NotImplementedError

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Adds parameters with settings of their own; the rest are the optimizer's.

        Raises:
            ConfigError: a parameter is in a group already, or a setting is out of range.
            DTypeError: something that is no Tensor.
        """
        members = param_group["params"]
        members = [members] if isinstance(members, Tensor) else list(members)
        known = {id(parameter) for parameter in self._parameters()}
        for parameter in members:
            if not isinstance(parameter, Tensor):
                raise DTypeError(f"optimizer can only optimize Tensors, but one of the params is {type(parameter)}")
            if not parameter.is_leaf:
                raise ConfigError("params", parameter, "can't optimize a non-leaf Tensor")
            if id(parameter) in known:
                raise ConfigError("params", parameter, "some parameters appear in more than one parameter group")
            known.add(id(parameter))
        group = {**self.defaults, **param_group, "params": members}
        self.check_group(group)
        self.param_groups.append(group)

    def step(self) -> None:
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad.data, self.state.setdefault(parameter, {}), group)
                    parameter.counter.value += 1

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients, or sets them to 0."""
        zero_grads(self._parameters(), set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The state and the settings, with parameters named by their position."""
        numbers = {id(parameter): number for number, parameter in enumerate(self._parameters())}
        groups = [
            {
                **{key: value for key, value in group.items() if key != "params"},
                "params": [numbers[id(p)] for p in group["params"]],
            }
            for group in self.param_groups
        ]
        return {
            "state": {numbers[id(parameter)]: dict(state) for parameter, state in self.state.items() if state},
            "param_groups": groups,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over a copy of the state and the settings of `state_dict`.

        Raises:
            StateDictError: its groups do not have the sizes of this optimizer's.
        """
        groups = state_dict["param_groups"]
        if len(groups) != len(self.param_groups):
            raise StateDictError(
                f"loaded state dict has a different number of parameter groups: {len(groups)}, "
                f"not {len(self.param_groups)}"
            )
        for loaded, own in zip(groups, self.param_groups, strict=True):
            if len(loaded["params"]) != len(own["params"]):
                raise StateDictError(
                    "loaded state dict contains a parameter group that doesn't match the size of "
                    f"optimizer's group: {len(loaded['params'])}, not {len(own['params'])}"
                )
        by_number: dict[int, Tensor] = {}
        for loaded, own in zip(groups, self.param_groups, strict=True):
            by_number.update(zip(loaded["params"], own["params"], strict=True))
            own.update({key: value for key, value in loaded.items() if key != "params"})
        self.state = {by_number[number]: copy.deepcopy(state) for number, state in state_dict["state"].items()}

    def _parameters(self) -> Iterator[Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines.extend(f"    {key}: {value}" for key, value in sorted(group.items()) if key != "params")
        return "\n".join([*lines, ")"])
