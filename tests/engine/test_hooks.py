"""A handle takes its hook away, and keeps nothing alive."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections import OrderedDict
from typing import Any

from chainrule.engine.hooks import RemovableHandle


class Owner:
    def __init__(self) -> None:
        self.hooks: OrderedDict[int, Any] = OrderedDict()
        self.flags: OrderedDict[int, bool] = OrderedDict()
        self.handles: list[RemovableHandle] = []

    def register(self, hook: Any) -> RemovableHandle:
        handle = RemovableHandle(self.hooks, self.flags)
        self.hooks[handle.id] = hook
        self.flags[handle.id] = True
        return handle


def test_removing_takes_the_hook_and_what_is_kept_of_it_away_once() -> None:
    owner = Owner()
    first, second = owner.register("first"), owner.register("second")
    assert first.id < second.id
    first.remove()
    first.remove()
    assert list(owner.hooks.values()) == ["second"]
    assert list(owner.flags) == [second.id]


def test_the_end_of_a_with_removes_the_hook() -> None:
    owner = Owner()
    with owner.register("hook") as handle:
        assert list(owner.hooks) == [handle.id]
    assert not owner.hooks
    assert not owner.flags


def test_a_handle_keeps_the_hooks_not_alive() -> None:
    owner = Owner()
    handle = owner.register("hook")
    reference = weakref.ref(owner.hooks)
    del owner
    gc.collect()
    assert reference() is None
    handle.remove()


def test_a_copied_handle_removes_the_copied_hook() -> None:
    owner = Owner()
    owner.handles.append(owner.register("hook"))
    for duplicate in (copy.deepcopy(owner), pickle.loads(pickle.dumps(owner))):
        (handle,) = duplicate.handles
        handle.remove()
        assert not duplicate.hooks
        assert list(owner.hooks.values()) == ["hook"]
        assert duplicate.register("new").id > handle.id
    owner.handles[0].remove()
    assert not owner.hooks


def test_a_handle_pickled_after_its_hooks_went_is_harmless() -> None:
    handle = Owner().register("hook")
    gc.collect()
    pickle.loads(pickle.dumps(handle)).remove()
