"""Memory of a server that has nothing to do."""

from __future__ import annotations

import time

from benchmarks.serving.goals import Figure, Goal
from benchmarks.serving.servers import Server, children, resident_mb

GOALS = (Goal("memory", "idle server, without Ray's processes", "MB", 150.0),)
SETTLE_S = 5.0
"""How long it has been idle when it is looked at."""


def measure(server: Server) -> list[Figure]:
    """The memory of the service's process; that of the one that is connected to Ray on its behalf is told, too."""
    time.sleep(SETTLE_S)
    found = resident_mb(server.pid)
    drivers = [resident_mb(child) for child in children(server.pid)]
    detail = f"the process that is connected to Ray has {sum(drivers):.0f} MB, mostly of Ray's library"
    return [Figure(GOALS[0], (found,), (detail,))]
