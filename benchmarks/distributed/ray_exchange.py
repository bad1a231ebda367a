"""One synchronous exchange over Ray actor calls, for comparison: `python -m benchmarks.distributed.ray_exchange`.

A parameter server as one would write it with Ray: an actor waits for the gradients of both workers, adds them up,
updates the weights, and answers with the weights in the object store. Writes milliseconds by size, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.distributed.works import LEARNING_RATE, MOMENTUM
from chainrule.engine.optim import sgd_update
from chainrule.server.cluster import settings

WORKERS = 2


class Server:
    """Owns the weights."""

    def __init__(self, size: int) -> None:
        self._weights = np.zeros(size, np.float32)
        self._momentum = np.zeros(size, np.float32)
        self._gradients: list[Any] = []
        self._published = asyncio.Event()
        self._answer: list[Any] = []

    async def exchange(self, gradient: Any) -> list[Any]:
        """The next weights, as a reference, once all gradients have come."""
        published = self._published
        self._gradients.append(gradient)
        if len(self._gradients) == WORKERS:
            import ray

            total = self._gradients[0] + self._gradients[1]
            sgd_update(self._weights, total, self._momentum, lr=LEARNING_RATE, momentum=MOMENTUM)
            self._gradients, self._published = [], asyncio.Event()
            self._answer = [ray.put(self._weights)]
            published.set()
        await published.wait()
        return self._answer


class Worker:
    """Sends gradients and waits for weights."""

    def run(self, server: Any, size: int, exchanges: int) -> list[float]:
        """What each exchange takes, in milliseconds."""
        import ray

        gradient = np.ones(size, np.float32)
        times_ms = []
        for _ in range(exchanges):
            start = time.perf_counter()
            [answer] = ray.get(server.exchange.remote(gradient))
            weights = ray.get(answer)
            times_ms.append((time.perf_counter() - start) * 1e3)
            del answer, weights
        return times_ms


def measure(sizes: dict[int, int]) -> dict[int, float]:
    """The median milliseconds of an exchange of so many parameters, by their number; `sizes` says how many are
    measured of each, after a tenth as many to warm up."""
    import ray

    found = {}
    for size, exchanges in sizes.items():
        server = ray.remote(num_cpus=0)(Server).remote(size)
        workers = [ray.remote(num_cpus=1)(Worker).remote() for _ in range(WORKERS)]
        total = exchanges + exchanges // 10 + 1
        times = ray.get([worker.run.remote(server, size, total) for worker in workers])
        found[size] = statistics.median(times[0][-exchanges:])
        for actor in (server, *workers):
            ray.kill(actor)
    return found


def main() -> None:
    """Measures what the first argument says: a JSON object of exchanges by number of parameters."""
    sizes = {int(size): exchanges for size, exchanges in json.loads(sys.argv[1]).items()}
    with tempfile.TemporaryDirectory(prefix="cr-") as folder:  # short: Ray's sockets lie far below
        os.environ |= settings.of_our_own(settings.make_token(Path(folder)))
        import ray

        ray.init(
            address="local",
            num_cpus=WORKERS,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        try:
            found = measure(sizes)
        finally:
            ray.shutdown()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
