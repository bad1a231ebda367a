"""The switch that says whether operations are recorded."""

from __future__ import annotations

import threading

import pytest

import chainrule.engine as cr


def recorded() -> bool:
    return (cr.ones(1, requires_grad=True) * 2).requires_grad


def test_no_grad_records_nothing_inside() -> None:
    with cr.no_grad():
        assert not recorded()
        with cr.enable_grad():
            assert recorded()
        assert not cr.is_grad_enabled()
    assert recorded()


def test_the_mode_is_restored_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), cr.no_grad():
        _ = 1 / 0
    assert cr.is_grad_enabled()


def test_modes_decorate_functions() -> None:
    @cr.no_grad()
    def inside(depth: int) -> bool:
        return inside(depth - 1) if depth else recorded()

    assert not inside(3)
    assert recorded()


def test_set_grad_enabled_works_as_a_call_a_block_and_a_decorator() -> None:
    cr.set_grad_enabled(False)
    assert not recorded()
    cr.set_grad_enabled(True)
    assert recorded()
    with cr.set_grad_enabled(False):
        assert not recorded()
    assert recorded()

    decorate = cr.set_grad_enabled(False)(recorded)
    assert recorded()
    assert not decorate()


def test_each_thread_has_its_own_mode() -> None:
    seen = []
    with cr.no_grad():
        thread = threading.Thread(target=lambda: seen.append(recorded()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_one_object_can_be_entered_again_inside_itself() -> None:
    mode = cr.no_grad()
    with mode:
        with mode:
            pass
        assert not recorded()
    assert recorded()
