"""Containers of modules and of parameters have the manners, the words and the reprs of PyTorch's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

import chainrule.engine as cr
from tests.engine.nn.twins import both, ours, same_error, worded


def _sizes(modules: Any) -> list[int]:
    return [module.out_features for module in modules]


def _layers(m: Any, *sizes: int) -> list[Any]:
    return [m.nn.Linear(1, size) for size in sizes]


def _list(m: Any, *sizes: int) -> Any:
    return m.nn.ModuleList(_layers(m, *sizes))


def _stack(m: Any, *sizes: int) -> Any:
    return m.nn.Sequential(*_layers(m, *sizes))


def _named(m: Any) -> Any:
    return m.nn.Sequential(OrderedDict(a=m.nn.Linear(1, 1), b=m.nn.Linear(1, 2), c=m.nn.Linear(1, 3)))


def _after(container: Any, change: Callable[[Any], object]) -> list[Any]:
    """What is in a container after a change, with the names and the repr."""
    change(container)
    return [_sizes(container), list(container.state_dict()), repr(container)]


def _set(container: Any, index: Any, value: Any) -> None:
    container[index] = value


def _delete(container: Any, index: Any) -> None:
    del container[index]


LISTS: list[Callable[[Any], Any]] = [
    lambda m: _after(_stack(m, 1, 2, 3), lambda s: s.append(m.nn.Linear(1, 4))),
    lambda m: _after(_stack(m, 1, 2, 3), lambda s: s.extend(_layers(m, 4, 5))),
    lambda m: _after(_stack(m, 1, 2, 3), lambda s: s.insert(1, m.nn.Linear(1, 9))),
    lambda m: _after(_stack(m, 1, 2, 3), lambda s: s.insert(-1, m.nn.Linear(1, 9))),
    lambda m: _after(_stack(m, 1, 2, 3), lambda s: s.insert(3, m.nn.Linear(1, 9))),
    lambda m: _after(_stack(m, 1, 2, 3), lambda s: _delete(s, 0)),
    lambda m: _after(_stack(m, 1, 2, 3, 4), lambda s: _delete(s, slice(1, 3))),
    lambda m: _after(_stack(m, 1, 2, 3), lambda s: _set(s, -1, m.nn.Linear(1, 9))),
    lambda m: _after(_stack(m, 1, 2, 3), lambda s: s.pop(1)),
    lambda m: _after(_stack(m, 1, 2, 3), lambda s: s.__imul__(2)),
    lambda m: _after(_stack(m, 1, 2, 3), lambda s: s.__iadd__(_stack(m, 4))),
    lambda m: _after(_stack(m, 1, 2) + _stack(m, 3), len),
    lambda m: _after(_stack(m, 1, 2) * 2, len),
    lambda m: _after(2 * _stack(m, 1, 2), len),
    lambda m: _after(_stack(m, 1, 2, 3)[1:], len),
    lambda m: _after(_stack(m, 1, 2, 3)[::-2], len),
    lambda m: _after(_named(m), lambda s: _set(s, 1, m.nn.Linear(1, 9))),
    lambda m: _after(_named(m)[1:], len),
    lambda m: _after(_named(m), lambda s: _delete(s, 1)),
    lambda m: _after(_named(m), lambda s: s.append(m.nn.Linear(1, 4))),
    lambda m: (_stack(m, 1, 2)[-1].out_features, _stack(m, 1, 2)[1].out_features, len(_stack(m, 1, 2))),
    lambda m: _after(_list(m, 1, 2, 3), lambda s: s.append(m.nn.Linear(1, 4))),
    lambda m: _after(_list(m, 1, 2, 3), lambda s: s.extend(_layers(m, 3, 3, 1))),
    lambda m: _after(_list(m, 1, 2, 3), lambda s: s.insert(1, m.nn.Linear(1, 9))),
    lambda m: _after(_list(m, 1, 2, 3), lambda s: _delete(s, -2)),
    lambda m: _after(_list(m, 1, 2, 3, 4), lambda s: _delete(s, slice(0, 4, 2))),
    lambda m: _after(_list(m, 1, 2, 3), lambda s: _set(s, 0, m.nn.Linear(1, 2))),
    lambda m: _after(_list(m, 1, 2, 3), lambda s: s.pop(0)),
    lambda m: _after(_list(m, 1, 1) + _list(m, 1), len),
    lambda m: _after(_list(m, 1, 1), lambda s: s.__iadd__(_layers(m, 1, 2))),
    lambda m: _after(_list(m, 1, 2, 3)[:2], len),
    lambda m: (_list(m, 1, 2).pop(-1).out_features, len(_list(m))),
    lambda m: repr(m.nn.ModuleList()),
    lambda m: repr(m.nn.Sequential()),
    lambda m: repr(m.nn.ModuleList([_stack(m, 1, 1), _stack(m, 1, 1), _list(m, 2, 2)])),
    lambda m: [name for name in dir(_list(m, 1)) if name.isdigit()],
]


@pytest.mark.torch
@pytest.mark.parametrize("number", range(len(LISTS)))
def test_lists_of_modules_change_as_pytorchs(torch: Any, number: int) -> None:
    mine, theirs = both(torch, LISTS[number])
    assert mine == theirs


def _pairs(m: Any) -> list[tuple[str, Any]]:
    return [("b", m.nn.Linear(1, 2)), ("a", m.nn.Linear(1, 1))]


DICTS: list[Callable[[Any], Any]] = [
    lambda m: repr(m.nn.ModuleDict(dict(_pairs(m)))),
    lambda m: repr(m.nn.ModuleDict(_pairs(m))),
    lambda m: repr(m.nn.ModuleDict(m.nn.ModuleDict(_pairs(m)))),
    lambda m: repr(m.nn.ModuleDict()),
    lambda m: list(m.nn.ModuleDict(_pairs(m)).state_dict()),
    lambda m: list(m.nn.ModuleDict(_pairs(m)).keys()),
    lambda m: [(name, module.out_features) for name, module in m.nn.ModuleDict(_pairs(m)).items()],
    lambda m: _sizes(m.nn.ModuleDict(_pairs(m)).values()),
    lambda m: [*m.nn.ModuleDict(_pairs(m))],
    lambda m: ("a" in m.nn.ModuleDict(_pairs(m)), "c" in m.nn.ModuleDict(_pairs(m)), len(m.nn.ModuleDict(_pairs(m)))),
    lambda m: m.nn.ModuleDict(_pairs(m))["b"].out_features,
    lambda m: _changed(m.nn.ModuleDict(_pairs(m)), lambda d: d.pop("b")),
    lambda m: _changed(m.nn.ModuleDict(_pairs(m)), lambda d: d.clear()),
    lambda m: _changed(m.nn.ModuleDict(_pairs(m)), lambda d: _delete(d, "a")),
    lambda m: _changed(m.nn.ModuleDict(_pairs(m)), lambda d: _set(d, "b", m.nn.Tanh())),
]


def _changed(container: Any, change: Callable[[Any], object]) -> list[Any]:
    change(container)
    return [list(container.keys()), repr(container)]


@pytest.mark.torch
@pytest.mark.parametrize("number", range(len(DICTS)))
def test_dicts_of_modules_are_pytorchs(torch: Any, number: int) -> None:
    mine, theirs = both(torch, DICTS[number])
    assert mine == theirs


def _values(m: Any) -> list[Any]:
    return [m.ones(2, 3), m.nn.Parameter(m.zeros(1)), "text", m.ones(())]


def _parameters(m: Any) -> Any:
    return m.nn.ParameterList(_values(m))


def _parameter_dict(m: Any) -> Any:
    return m.nn.ParameterDict({"b": m.ones(2, 3), "a": m.nn.Parameter(m.zeros(1)), "c": 3})


def _described(container: Any, change: Callable[[Any], object] = len) -> list[Any]:
    change(container)
    names = [name for name, _ in container.named_parameters()]
    return [worded(repr(container)), names, list(container.state_dict()), len(container)]


PARAMETERS: list[Callable[[Any], Any]] = [
    lambda m: _described(_parameters(m)),
    lambda m: _described(m.nn.ParameterList([m.ones(2)])),
    lambda m: _described(m.nn.ParameterList()),
    lambda m: _described(_parameters(m)[1:]),
    lambda m: _described(_parameters(m), lambda p: p.append(m.ones(4))),
    lambda m: _described(_parameters(m), lambda p: p.extend([m.ones(4), 5])),
    lambda m: _described(_parameters(m), lambda p: p.__iadd__([m.ones(4)])),
    lambda m: _described(_parameters(m), lambda p: _set(p, 0, m.ones(7))),
    lambda m: [type(value).__name__ for value in _parameters(m)],
    lambda m: _parameters(m)[-2],
    lambda m: [name for name in dir(_parameters(m)) if name.isdigit()],
    lambda m: _described(_parameter_dict(m)),
    lambda m: _described(m.nn.ParameterDict([("z", m.ones(1)), ("y", m.ones(1))])),
    lambda m: _described(m.nn.ParameterDict(OrderedDict(z=m.ones(1), y=m.ones(1)))),
    lambda m: _described(_parameter_dict(m), lambda p: _set(p, "new", m.ones(1))),
    lambda m: _described(_parameter_dict(m), lambda p: _delete(p, "a")),
    lambda m: _described(_parameter_dict(m), lambda p: p.pop("b")),
    lambda m: _described(_parameter_dict(m), lambda p: p.popitem()),
    lambda m: _described(_parameter_dict(m), lambda p: p.clear()),
    lambda m: _described(_parameter_dict(m), lambda p: p.setdefault("d", m.ones(1))),
    lambda m: _described(_parameter_dict(m), lambda p: p.update(_parameter_dict(m))),
    lambda m: _described(_parameter_dict(m) | m.nn.ParameterDict({"c": m.ones(1), "d": 1})),
    lambda m: _described(_parameter_dict(m), lambda p: p.__ior__(m.nn.ParameterDict({"d": m.ones(1)}))),
    lambda m: _described(_parameter_dict(m).fromkeys(["x", "y"], 1)),
    lambda m: (_parameter_dict(m).get("c"), _parameter_dict(m).get("d"), _parameter_dict(m).get("d", 4)),
    lambda m: ([*_parameter_dict(m)], [*reversed(_parameter_dict(m))], [*_parameter_dict(m).keys()]),
    lambda m: ([key for key, _ in _parameter_dict(m).items()], [*_parameter_dict(m).values()][2]),
    lambda m: ("a" in _parameter_dict(m), "d" in _parameter_dict(m), _parameter_dict(m).copy()["c"]),
]


@pytest.mark.torch
@pytest.mark.parametrize("number", range(len(PARAMETERS)))
def test_containers_of_parameters_are_pytorchs(torch: Any, number: int) -> None:
    mine, theirs = both(torch, PARAMETERS[number])
    assert mine == theirs


REFUSED: list[Callable[[Any], Any]] = [
    lambda m: m.nn.Sequential("a"),
    lambda m: _stack(m, 1)[9],
    lambda m: _set(_stack(m, 1), 9, m.nn.Tanh()),
    lambda m: _set(_stack(m, 1), 0, 3),
    lambda m: _delete(_stack(m, 1), -3),
    lambda m: _stack(m, 1).append(3),
    lambda m: _stack(m, 1).insert(9, m.nn.Tanh()),
    lambda m: _stack(m, 1) + [m.nn.Tanh()],  # noqa: RUF005
    lambda m: _stack(m, 1) * 0,
    lambda m: _stack(m, 1) * 1.5,
    lambda m: _list(m, 1)[9],
    lambda m: _list(m, 1).extend(3),
    lambda m: _list(m, 1).append("a"),
    lambda m: _list(m, 1)(1),
    lambda m: m.nn.ModuleDict(3),
    lambda m: m.nn.ModuleDict([3]),
    lambda m: m.nn.ModuleDict([("a", m.nn.Tanh(), 3)]),
    lambda m: m.nn.ModuleDict({"a.b": m.nn.Tanh()}),
    lambda m: m.nn.ModuleDict({"a": 3}),
    lambda m: m.nn.ParameterList(3),
    lambda m: m.nn.ParameterList(m.ones(2)),
    lambda m: _parameters(m)[9],
    lambda m: _parameters(m)(1),
    lambda m: m.nn.ParameterDict([3]),
    lambda m: m.nn.ParameterDict([("a", 1, 2)]),
    lambda m: _parameter_dict(m)["missing"],
    lambda m: _parameter_dict(m)(1),
]


@pytest.mark.torch
@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_wrong_use_is_refused_in_pytorchs_words(torch: Any, number: int) -> None:
    same_error(torch, REFUSED[number])


def test_what_is_no_module_is_not_inserted() -> None:
    with pytest.raises(cr.DTypeError, match="module should be of type"):
        ours.nn.Sequential().insert(0, 3)
    with pytest.raises(cr.DTypeError, match="not a string"):
        _parameter_dict(ours)[3] = 1
    assert 3 not in _parameter_dict(ours)
    with pytest.raises(cr.DTypeError, match=r"ParameterDict.update should be called with an iterable of key/value"):
        ours.nn.ParameterDict(3)
    with pytest.raises(KeyError):
        ours.nn.ModuleDict()["a"]
    with pytest.raises(KeyError):
        ours.nn.ParameterDict().popitem()


def test_a_sequential_of_any_mapping_keeps_its_names() -> None:
    stack = ours.nn.Sequential({"a": ours.nn.Linear(1, 2), "b": ours.nn.Linear(2, 3)})
    assert list(stack.state_dict()) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    assert stack(cr.ones(4, 1)).shape == (4, 3)
    assert stack.b is stack[1]


def test_a_list_can_be_extended_by_itself() -> None:
    for container in (_stack(ours, 1, 2), _list(ours, 1, 2)):
        assert _sizes(container.extend(container)) == [1, 2, 1, 2]


def test_repeated_modules_share_their_parameters() -> None:
    layer = ours.nn.Linear(1, 1)
    stack = ours.nn.Sequential(layer) * 3
    assert all(module is layer for module in stack)
    assert len(list(stack.parameters())) == 2


def test_parameters_in_containers_are_learnt() -> None:
    parameters = ours.nn.ParameterList([cr.ones(2), cr.ones(2)])
    named = ours.nn.ParameterDict({"scale": cr.ones(2)})
    ((parameters[0] + parameters[1]) * named["scale"]).sum().backward()
    assert [p.grad.tolist() for p in (*parameters, named["scale"])] == [[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]]
