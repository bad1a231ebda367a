"""A file takes of the service no more memory than its limits say, protobuf's included."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("share", [10, pytest.param(1, marks=pytest.mark.whole)])
def test_files_that_make_the_most_of_a_limit_stay_below_it(share: int) -> None:
    """At a tenth of the service's limits, and at all of them."""
    command = [sys.executable, "-m", "tests.server.graph_memory", str(share)]
    root = Path(__file__).parents[2]
    printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    measured = json.loads(printed)
    assert {outcome for _, _, _, outcome in measured} == {"loaded"}
    assert [kind for kind, taken, allowed, _ in measured if taken > allowed] == []
