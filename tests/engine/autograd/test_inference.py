"""Tensors made in inference mode, and modes without parentheses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import chainrule.engine as cr


def test_what_is_made_inside_can_not_be_part_of_a_graph_later() -> None:
    w = cr.ones(2, requires_grad=True)
    with cr.inference_mode():
        x = cr.ones(2)
        y = x * w
    assert x.is_inference()
    assert y.is_inference()
    assert not y.requires_grad
    assert (y + w).requires_grad  # nothing is saved
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        y * w
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode"):
        x.add_(1)
    with pytest.raises(RuntimeError, match="inference tensor outside InferenceMode"):
        x.requires_grad_()
    with pytest.raises(RuntimeError, match="do not track version counter"):
        x._version  # noqa: B018
    assert (x.clone() * w).requires_grad


def test_inside_they_are_ordinary() -> None:
    with cr.inference_mode():
        x = cr.zeros(4)
        x[1:].add_(2)
        x *= 3
        assert x.tolist() == [0.0, 6.0, 6.0, 6.0]
        assert x[1:].is_inference()
        with cr.inference_mode(False):
            assert cr.is_grad_enabled()
            assert not cr.ones(1).is_inference()
        assert cr.is_inference_mode_enabled()
    assert not cr.is_inference_mode_enabled()


def test_a_view_of_an_ordinary_tensor_stays_ordinary() -> None:
    x = cr.ones(2, requires_grad=True)
    with cr.inference_mode():
        part = x[0]
    assert not part.is_inference()


def test_modes_decorate_with_and_without_parentheses() -> None:
    @cr.no_grad
    def bare() -> bool:
        return cr.is_grad_enabled()

    @cr.no_grad()
    def called() -> bool:
        return cr.is_grad_enabled()

    @cr.inference_mode
    def inference() -> tuple[bool, bool]:
        return cr.is_grad_enabled(), cr.is_inference_mode_enabled()

    @cr.no_grad()
    @cr.enable_grad
    def inner() -> bool:
        return cr.is_grad_enabled()

    assert (bare(), called(), inference(), inner()) == (False, False, (False, True), True)
    assert cr.is_grad_enabled()


def test_a_decorated_generator_has_the_mode_while_it_runs_only() -> None:
    @cr.no_grad()
    def steps() -> Iterator[bool]:
        try:
            yield cr.is_grad_enabled()
            yield cr.is_grad_enabled()
        finally:
            seen.append(cr.is_grad_enabled())

    seen: list[bool] = []
    for enabled in steps():
        assert not enabled
        assert cr.is_grad_enabled()
    generator = steps()
    next(generator)
    generator.close()  # type: ignore[attr-defined]
    assert seen == [False, False]


@pytest.mark.torch
def test_enabling_does_not_record_within_inference_mode(torch: Any) -> None:
    found = []
    for m in (cr, torch):
        x = m.ones(2, requires_grad=True)
        kept = x * 3
        with m.inference_mode(), m.enable_grad():
            y = x * 2
            part = x[:1]
            x.add_(1)
            kept.add_(1)
            facts = [y.requires_grad, y.grad_fn is None, y.is_inference(), part.requires_grad, m.is_grad_enabled()]
            with m.inference_mode(False):
                facts.append((x * 2).requires_grad)
        found.append((facts, x.tolist(), kept._version, kept.grad_fn.name()))
    assert found[0] == found[1]
    assert found[0][0] == [False, True, True, True, True, True]
