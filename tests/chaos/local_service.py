"""A service without Ray, in a process of its own: real gRPC, store, blobs and training, which can be made to end by
SIGKILL at a given write.

    python tests/chaos/local_service.py DATA_DIR ADDRESS_FILE [STORE_URL]
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

sys.path.insert(0, str(Path(__file__).parents[2]))

from chainrule.server.blobs import store as blob_store
from chainrule.server.blobs import uploads
from chainrule.server.cluster import RayCluster
from chainrule.server.cluster.driver import Node
from chainrule.server.config import ServerConfig
from chainrule.server.records import JobState
from chainrule.server.service import Service
from chainrule.server.store.database import Database
from chainrule.server.store.jobs import JobTables
from chainrule.server.training import faults
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.coordinator import Coordinator
from chainrule.server.training.events import Event
from chainrule.server.training.local import LocalPlacement

CPUS = 4.0
SLOW = json.dumps([{"point": "worker.compute", "action": "sleep", "seconds": 0.05}])
"""Makes steps long enough for something to happen in them."""
KILL_AT = "KILL_AT"
"""Environment variable: the point to end at, as JSON."""
SEEN = "SEEN"
"""Environment variable: a file to which each kind of write is added when it is made."""


# --- where it ends ---------------------------------------------------------------------------------------------

Moment = Literal["before", "after"]


@dataclass(frozen=True)
class Point:
    """A write, and whether the process ends just before it counts or just after."""

    write: str
    """A method of the store, with the state of the job if it moves one, as "transition RUNNING"; or "blob"."""
    moment: Moment
    occurrence: int = 1

    def __str__(self) -> str:
        return f"{self.moment} {self.write}" + (f" {self.occurrence}" if self.occurrence > 1 else "")

    def environment(self) -> dict[str, str]:
        return {KILL_AT: json.dumps(vars(self))}


class Killer:
    """Counts writes, and ends the process at one of them."""

    def __init__(self, point: Point | None, seen: Path | None) -> None:
        self._point = point
        self._seen = seen
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._moved = threading.local()

    @contextmanager
    def write(self, kind: str) -> Iterator[None]:
        """Around what makes a write count."""
        with self._lock:
            self._counts[kind] += 1
            is_it = self._point is not None and (kind, self._counts[kind]) == (
                self._point.write,
                self._point.occurrence,
            )
            if self._seen is not None and self._counts[kind] == 1:
                with self._seen.open("a") as file:
                    print(kind, file=file)
        if is_it and self._point is not None and self._point.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        yield
        if is_it:
            os.kill(os.getpid(), signal.SIGKILL)

    def arm(self) -> None:
        """Have all writes to the store and of blobs go through here."""
        open_transaction, move = Database._write, JobTables._move

        @contextmanager
        def transaction(database: Database, caller: str, **options: Any) -> Iterator[Any]:
            self._moved.to = ""
            opened = open_transaction(database, **options)
            with opened as db:
                yield db
                kind = f"{caller} {self._moved.to}".strip()
                counting = self.write(kind)
                counting.__enter__()
            counting.__exit__(None, None, None)

        def _write(database: Database, **options: Any) -> Any:
            return transaction(database, sys._getframe(1).f_code.co_name, **options)

        def _move(tables: JobTables, db: Any, row: Any, to: JobState, *arguments: Any, **options: Any) -> Any:
            self._moved.to = to.value
            return move(tables, db, row, to, *arguments, **options)

        Database._write = _write  # type: ignore[assignment, method-assign]
        JobTables._move = _move  # type: ignore[assignment, method-assign]
        for module in (blob_store, uploads):
            self._wrap_publish(module)

    def _wrap_publish(self, module: Any) -> None:
        publish = module.publish

        def counted(temporary: Path, target: Path) -> None:
            with self.write("blob"):
                publish(temporary, target)

        module.publish = counted


# --- what it runs on -------------------------------------------------------------------------------------------


class OneMachine:
    """In place of a Ray cluster: training in processes of this machine."""

    address = "this machine"
    owned = False

    async def total_cpus(self) -> float:
        return CPUS

    async def free_cpus(self) -> float:
        return CPUS

    async def nodes(self) -> list[Node]:
        return []

    async def launch(self, spec: AttemptSpec) -> LocalAttempt:
        return LocalAttempt(spec)


class LocalAttempt:
    """A coordinator in this process, its workers and partitions in others."""

    def __init__(self, spec: AttemptSpec) -> None:
        placement = LocalPlacement(spec, start="forkserver", environment=lambda _: {faults.VARIABLE: SLOW})
        self._coordinator = Coordinator(spec, placement)
        self._running = asyncio.create_task(self._coordinator.run())

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        return await self._coordinator.events(after, timeout_s)

    async def scale(self, workers: int) -> None:
        await self._coordinator.scale(workers)

    async def pause(self) -> None:
        await self._coordinator.pause()

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


async def serve(data_dir: Path, address_file: Path, store_url: str | None) -> None:
    """Serve until the process is ended."""
    machine = OneMachine()
    config = ServerConfig(data_dir=data_dir, port=0, store_url=store_url)
    async with Service(config, cast(RayCluster, machine), machine) as service:
        temporary = address_file.with_suffix(".new")
        temporary.write_text(service.address)
        os.replace(temporary, address_file)
        await asyncio.Event().wait()


def main() -> None:
    point, seen = os.environ.pop(KILL_AT, None), os.environ.pop(SEEN, None)
    Killer(Point(**json.loads(point)) if point else None, Path(seen) if seen else None).arm()
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None))


if __name__ == "__main__":
    main()
