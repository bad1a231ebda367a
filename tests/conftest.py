"""Settings of the whole test session."""

from __future__ import annotations

import gc
import os
import signal

# One thread of arithmetic for each process, said before numpy is imported. `make test` runs two sessions side by side,
# and threads that wait for each other's cores spin: small networks trained ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long, unless it is asked for. Where tests run side by side (-n 2 --dist loadgroup), those of
    a file stay together, and all that need the session's cluster, of which there is one."""
    for item in items:
        folder = item.path.parent
        needs_cluster = "integration" in folder.parts
        item.add_marker(pytest.mark.xdist_group("cluster" if needs_cluster else str(item.path)))
    if "whole" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("whole")]
    items[:] = [item for item in items if not item.get_closest_marker("whole")]
    config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish() -> None:
    """What is there now, modules and thousands of tests, stays: a collection need not go through it again each time."""
    gc.collect()
    gc.freeze()
