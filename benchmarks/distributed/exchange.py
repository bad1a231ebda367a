"""One synchronous exchange over our links: `python -m benchmarks.distributed.exchange WORK LINKS`.

Coordinator, parameter server and workers are the real ones, but for the computing: gradients that are ready are copied
to where a backward pass would leave them. LINKS is `memory` or `tls`. Writes milliseconds, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

import chainrule.engine as cr
from benchmarks.distributed.orders import Order
from benchmarks.distributed.ours import Run, attempt
from benchmarks.distributed.times import intervals_ms
from benchmarks.distributed.works import Work
from chainrule.server.blobs import BlobStore
from chainrule.server.training.compute import Computation, Send, Sink
from chainrule.server.training.contributions import HEAD, WHOLE, Measured
from chainrule.server.training.control import Control, connect_control
from chainrule.server.training.errors import LinkError
from chainrule.server.training.local import LocalPlacement
from chainrule.server.training.parts import Ended
from chainrule.server.training.plan import Tick
from chainrule.server.training.reduction import Block
from chainrule.server.training.worker import Worker, WorkerSpec, run_worker

GRADIENT = 1e-6
"""Of every parameter."""


def main() -> None:
    """Exchanges and writes what was measured."""
    work, links = Work.from_json(sys.argv[1]), sys.argv[2]
    print(json.dumps(asyncio.run(measure(work, links))), flush=True)


async def measure(work: Work, links: str) -> dict[str, Any]:
    """The parameters that are exchanged, and the median milliseconds from one update of them to the next."""
    order = Order(workers=work.workers)
    spec = attempt(work, order)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(spec, CopyingPlacement(spec, links=links), order, BlobStore(Path(folder, "blobs")))
        await run.follow()
    times_s = [metric.time_s for metric in run.metrics]
    return {
        "parameters": sum(parameter.size for parameter in spec.state.parameters.values()),
        "median_ms": statistics.median(intervals_ms(times_s, work.warmup_steps)),
    }


class CopyingPlacement(LocalPlacement):
    """Starts workers that do not compute."""

    async def _start(self, part: str, target: Callable[[Any], None], spec: Any, ended: Ended) -> BaseProcess:
        return await super()._start(part, run_copying if target is run_worker else target, spec, ended)


def run_copying(spec: WorkerSpec) -> None:
    """As `run_worker`."""
    cr.set_num_threads(1)
    control = connect_control(spec.coordinator, spec.identity, local=spec.local, role="worker", lease=spec.lease)
    with suppress(LinkError):  # the coordinator is gone: the run is over
        CopyingWorker(spec, control).run()
    control.close()


class CopyingWorker(Worker):
    """A worker that has its gradients already."""

    def __init__(self, spec: WorkerSpec, control: Control) -> None:
        super().__init__(spec, control)
        self._computation = Copying(spec.plan, spec.examples)


class Copying(Computation):
    """Copies gradients where others compute them."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._ready: dict[str, Any] = {}

    def block(self, tick: Tick, block: Block, sink: Sink, send: Send) -> None:
        """The gradients of a block, bucket by bucket as in a backward pass."""
        measured = Measured(1.0 / self.plan.config.shards * block.size, 0, len(self.plan.batch(tick.step)))
        if self._is_small:
            self._copy(sink, list(sink.gradients))
            send(0, WHOLE, measured)
            return
        for partition in self.layout.partitions:
            send(partition.index, HEAD, measured)
            for bucket in range(len(partition.buckets)):
                self._copy(sink, [name for name, of in partition.bucket_of.items() if of == bucket])
                send(partition.index, bucket, Measured())

    def _copy(self, sink: Sink, names: list[str]) -> None:
        for name in names:
            if name not in self._ready:
                self._ready[name] = np.full_like(sink.gradients[name], GRADIENT)
            np.copyto(sink.gradients[name], self._ready[name])


if __name__ == "__main__":
    main()
