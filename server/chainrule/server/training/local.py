"""Training without a cluster: the parts of an attempt as processes of this machine. For tests and measurements."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from chainrule.server.architecture import CodeArchitecture
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.parts import Ended
from chainrule.server.training.serving import PartitionSpec, run_partition
from chainrule.server.training.tls import Identity
from chainrule.server.training.wire import Endpoint
from chainrule.server.training.worker import WorkerSpec, run_worker

END_TIMEOUT_S = 10.0
"""How long a killed process may take to be gone."""


@dataclass
class LocalPlacement:
    """Starts each part in a process of its own."""

    spec: AttemptSpec
    links: str = "memory"
    """How workers reach partitions: "memory", or "tls", as from another machine."""
    environment: Callable[[str], dict[str, str]] = field(default=lambda _: {})
    """Environment variables for a part: "worker 3", "partition 0"."""
    host: str = "127.0.0.1"
    start: Literal["spawn", "forkserver"] = "spawn"
    """Whether a process is started anew or forked from one that has imported what it needs. The second is ten times as
    fast, but then the environment comes too late for what is read at import."""

    def __post_init__(self) -> None:
        self.workers: dict[int, BaseProcess] = {}
        """Processes by lease."""
        self.partitions: dict[int, BaseProcess] = {}
        """Processes by number."""
        self._watches: set[asyncio.Task[None]] = set()
        self._context = SpawnContext() if self.start == "spawn" else ForkServerContext()
        self._context.set_forkserver_preload([run_partition.__module__, run_worker.__module__])

    async def start_partition(self, spec: PartitionSpec, ended: Ended) -> None:
        process = await self._start(f"partition {spec.index}", run_partition, spec, ended)
        self.partitions[spec.index] = process

    async def start_worker(self, lease: int, identity: Identity, coordinator: Endpoint, ended: Ended) -> None:
        spec = WorkerSpec(
            job=self.spec.job,
            plan=self.spec.plan,
            lease=lease,
            identity=identity,
            coordinator=coordinator,
            examples=self.spec.examples,
            validation=self.spec.validation,
            node="this machine",
            local=self.links == "memory",
        )
        self.workers[lease] = await self._start(f"worker {lease}", run_worker, spec, ended)

    async def end_partitions(self) -> None:
        for process in self.partitions.values():
            process.kill()
        self.partitions = {}

    async def end_worker(self, lease: int) -> None:
        if (process := self.workers.pop(lease, None)) is not None:
            process.kill()

    async def stop(self) -> None:
        for process in [*self.workers.values(), *self.partitions.values()]:
            process.kill()
        self.workers, self.partitions = {}, {}
        async with asyncio.timeout(END_TIMEOUT_S):
            await asyncio.gather(*self._watches)

    async def _start(self, part: str, target: Callable[[Any], None], spec: Any, ended: Ended) -> BaseProcess:
        environment = self.environment(part)
        architecture = self.spec.plan.architecture
        if isinstance(spec, WorkerSpec) and isinstance(architecture, CodeArchitecture):
            environment = environment | architecture.environment
        process: BaseProcess = self._context.Process(target=_run, args=(environment, target, spec), daemon=True)
        at_start = environment if self.start == "spawn" else {}  # a server of forks would keep them
        await asyncio.to_thread(_start, process, at_start)
        watch = asyncio.create_task(self._watch(process, ended))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        return process

    async def _watch(self, process: BaseProcess, ended: Ended) -> None:
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, done.set)
        try:
            await done.wait()
        finally:
            loop.remove_reader(process.sentinel)
        process.join()
        ended(f"exit code {process.exitcode}")


_starting = threading.Lock()


def _start(process: BaseProcess, environment: dict[str, str]) -> None:
    """Start a process that has these variables when it imports its first module."""
    with _starting:
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _run(environment: dict[str, str], target: Callable[[Any], None], spec: Any) -> None:
    os.environ.update(environment)
    from chainrule.server.training import faults

    faults.load()
    target(spec)
