"""Waiting for what comes in: awake for a moment, since to be woken up costs more than a small step, then asleep."""

from __future__ import annotations

import os
import selectors
import time

AWAKE_S = 0.0003
"""How long to look again and again, giving the core to whoever wants it, before going to sleep."""


def ready(selector: selectors.BaseSelector, timeout_s: float | None) -> list[tuple[selectors.SelectorKey, int]]:
    """What a selector has, waiting up to `timeout_s` seconds for it (None: for ever)."""
    found = selector.select(0)
    if found or timeout_s == 0:
        return found
    until = time.perf_counter() + AWAKE_S
    while time.perf_counter() < until:
        os.sched_yield()
        if found := selector.select(0):
            return found
    return selector.select(timeout_s)
