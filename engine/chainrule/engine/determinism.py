"""Whether operations may be nondeterministic, which programs set before they begin: here none is."""

from __future__ import annotations


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Has no effect: for one version, instruction set and number of threads, results always have the same bits."""


def are_deterministic_algorithms_enabled() -> bool:
    """True, whatever was set."""
    return True
