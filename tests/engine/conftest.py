"""What the tests of the engine share."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def torch() -> Any:
    """PyTorch; the test is skipped where it is not installed."""
    return pytest.importorskip("torch")
