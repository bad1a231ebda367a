"""Programs may ask for deterministic operations, which all are."""

from __future__ import annotations

import chainrule.engine as cr


def test_operations_are_deterministic_whatever_is_asked_for() -> None:
    for mode in (True, False):
        cr.use_deterministic_algorithms(mode, warn_only=True)
        assert cr.are_deterministic_algorithms_enabled()
