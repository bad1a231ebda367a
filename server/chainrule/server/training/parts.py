"""The parts of an attempt as its coordinator sees them, and who starts their processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from chainrule.server.training.serving import PartitionSpec
from chainrule.server.training.switchboard import Line
from chainrule.server.training.tls import Identity
from chainrule.server.training.wire import Endpoint

Ended = Callable[[str], None]
"""Called in the event loop once a process has ended, with why."""
LAST_WORDS_S = 0.5
"""How long what a process has said may still be on its way when it has ended: why it failed, say. Its line tells at
once, and in order, that it is gone; this is for one that had none, or whose machine is gone without a word."""


class Placement(Protocol):
    """Where the processes of an attempt run. To start one does not wait for it: it calls the coordinator when it is
    there, which may take as long as the cluster has no room."""

    host: str
    """Address of this process that those of other machines reach."""

    async def start_partition(self, spec: PartitionSpec, ended: Ended) -> None: ...

    async def start_worker(self, lease: int, identity: Identity, coordinator: Endpoint, ended: Ended) -> None: ...

    async def end_partitions(self) -> None:
        """End all partitions, at once."""

    async def end_worker(self, lease: int) -> None:
        """End a worker, at once."""

    async def stop(self) -> None:
        """End everything that was started."""


@dataclass
class PartitionPart:
    """A partition of the present fence."""

    index: int
    line: Line
    endpoint: Endpoint
    seen_s: float
    """When it was last heard of."""
    moved_s: float
    """When it last reported from its loop, not by a sign of life."""


@dataclass
class WorkerPart:
    """A worker, from when it is asked for until it is gone."""

    lease: int
    asked_s: float
    """When it was asked for."""
    line: Line | None = None
    """Its line, once it has called."""
    node: str = ""
    fingerprint: dict[str, str] = field(default_factory=dict)
    joined: bool = False
    """Whether it is linked to all partitions of the present fence."""
    leaving: bool = False
    seen_s: float = 0.0
    tick: int = -1
    working: bool = False
    shards: tuple[int, ...] = ()
    unlinked: int = 0
    """How often in a row it has failed to reach a partition."""
    speculated: int = 0
    """Ticks in a row for which others had to compute its shards."""

    def tell(self, **message: Any) -> None:
        """Say something to it, if it has called."""
        if self.line is not None:
            self.line.send(**message)

    @property
    def name(self) -> str:
        return f"worker {self.lease}" + (f" on {self.node}" if self.node else "")
