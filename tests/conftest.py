"""Settings of the whole test session."""

from __future__ import annotations

import os
import signal

import hypothesis
import pytest

# Ray reads these when it is first imported, which some test does before the session's cluster starts.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

# A run that is told to stop takes down what it has started, as one that is interrupted does.
signal.signal(signal.SIGTERM, signal.default_int_handler)

# The same examples every time, none of them remembered in the working tree, and no time limit for any of them.
hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "whole: takes long; left out unless -m names it, as `make chaos` does")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless it is asked for."""
    if "whole" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("whole")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
