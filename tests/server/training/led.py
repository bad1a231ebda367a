"""A worker at work in a thread, with a test as its coordinator and its partitions."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from array import array
from dataclasses import asdict, dataclass
from typing import Any

from chainrule.server.training.contributions import Measured
from chainrule.server.training.door import pumped
from chainrule.server.training.examples import Examples
from chainrule.server.training.layout import PartitionLayout
from chainrule.server.training.memory import Segment, Slot, Weights
from chainrule.server.training.plan import Plan
from chainrule.server.training.reduction import Block
from chainrule.server.training.remote import Portals
from chainrule.server.training.state import TrainingState
from chainrule.server.training.tls import server_context
from chainrule.server.training.wire import (
    CLOCKS,
    PUSH,
    PUSH_BODY,
    SLOT,
    STEP,
    STEP_BODY,
    Connection,
    Frame,
    Listener,
)
from chainrule.server.training.worker import WorkerSpec, run_worker
from tests.server.training.bench import LIMIT_S, layout_of, tiny_images
from tests.server.training.runs import initial_state
from tests.server.training.stand_ins import IDENTITY

FENCE = 5
LEASE = 3


@dataclass(frozen=True)
class Pushed:
    """What a worker has sent of a block."""

    tick: int
    block: Block
    part: int
    slot: int
    measured: Measured
    memory: bytes


class Led:
    """A worker in a thread."""

    def __init__(self, plan: Plan, *, examples: Examples | None = None, local: bool = True, **fields: Any) -> None:
        self.plan = plan
        self.listener = Listener(IDENTITY, host="127.0.0.1", name="test/coordinator")
        self.listener.local.settimeout(LIMIT_S)
        self.listener.remote.settimeout(LIMIT_S)
        spec = WorkerSpec(
            job="jobs/test",
            plan=plan,
            lease=LEASE,
            identity=IDENTITY,
            coordinator=self.listener.endpoint,
            examples=examples or tiny_images(plan.num_examples),
            node="a node",
            local=local,
            **fields,
        )
        self.thread = threading.Thread(target=run_worker, args=(spec,))
        self.thread.start()
        accepted, _ = (self.listener.local if local else self.listener.remote).accept()
        accepted.settimeout(LIMIT_S)
        self.control = Connection(accepted if local else pumped(secured(accepted)))
        self.control.socket.settimeout(LIMIT_S)
        state = initial_state(plan)
        self.partitions = [FakePartition(layout, state, local=local) for layout in layout_of(plan).partitions]

    @property
    def partition(self) -> FakePartition:
        """The only one."""
        [found] = self.partitions
        return found

    def until(self, kind: str, **facts: Any) -> dict[str, Any]:
        """The next message of a kind with these facts."""
        until_s = time.monotonic() + LIMIT_S
        while time.monotonic() < until_s:
            message = self.control.next().message
            if message["type"] == kind and all(message[key] == value for key, value in facts.items()):
                return message
        raise TimeoutError(f"no {kind} with {facts} came")

    def tell(self, **message: Any) -> None:
        self.control.message(**message)

    def introduce(self, *, fence: int = FENCE, suspects: tuple[int, ...] = ()) -> None:
        """Tell it where the partitions are, and let it in there."""
        endpoints = [asdict(partition.listener.endpoint) for partition in self.partitions]
        self.tell(type="partitions", fence=fence, endpoints=endpoints, suspects=suspects)
        for partition in self.partitions:
            partition.let_in(fence)
        self.until("joined", fence=fence)

    def assign(self, *shards: int, auditors: dict[int, int] | None = None) -> None:
        self.tell(type="assign", shards=shards, auditors=auditors or {})

    def announce(self, tick: int, step: int) -> None:
        """New weights, of all partitions."""
        for partition in self.partitions:
            partition.announce(tick, step)

    def leave(self) -> None:
        """Have it leave."""
        self.tell(type="leave")
        self.thread.join(LIMIT_S)
        assert not self.thread.is_alive()

    def close(self) -> None:
        for partition in self.partitions:
            partition.close()
        self.control.close()
        self.listener.close()
        self.thread.join(LIMIT_S)
        assert not self.thread.is_alive()


class FakePartition:
    """What a worker sees of a partition; it takes everything in and computes nothing."""

    def __init__(self, layout: PartitionLayout, state: TrainingState, *, local: bool) -> None:
        self.layout = layout
        self.listener = Listener(IDENTITY, host="127.0.0.1", name=f"test/{layout.index}")
        self.listener.local.settimeout(LIMIT_S)
        self.portals = None if local else Portals(self.listener, layout)
        if self.portals is not None:
            self.portals.start()
        segment = Segment.make("test", Weights.size(layout))
        self.segment = segment
        self.weights = Weights(segment, layout)
        self.link: Connection | None = None
        self.slots: dict[int, Slot] = {}
        for name, value in state.weights().items():
            for arrays in (*self.weights.moving, self.weights.constants):
                if name in arrays:
                    arrays[name][...] = value

    def let_in(self, fence: int) -> None:
        accepted, _ = self.listener.local.accept()
        accepted.settimeout(LIMIT_S)
        self.link, self.slots = Connection(accepted), {}
        assert self.link.next().message == {"token": IDENTITY.token, "fence": fence, "lease": LEASE}
        self.link.send(SLOT, descriptor=self.segment.descriptor)

    def announce(self, tick: int, step: int, *, holds: bool = True) -> None:
        """New weights; they have been overwritten already unless it `holds` them."""
        assert self.link is not None
        self.weights.versions[step % 2] = step if holds else step + 2
        self.link.send(STEP, STEP_BODY.pack(tick, step))

    def announce_clocks(self, *clocks: int) -> None:
        assert self.link is not None
        self.link.send(CLOCKS, array("Q", clocks).tobytes())

    def next(self) -> Frame:
        """What the worker says next, but for memory, which is kept."""
        assert self.link is not None
        while (frame := self.link.next()).kind == SLOT:
            assert frame.descriptor is not None
            slot = Slot.of(frame.descriptor, self.layout)
            slot.close()
            self.slots[int.from_bytes(frame.body, "little")] = slot
        return frame

    def pushed(self) -> Pushed:
        """The push that comes next."""
        frame = self.next()
        assert frame.kind == PUSH
        tick, start, size, number, part, *counts = PUSH_BODY.unpack(frame.body)
        assert int(self.slots[number].tick[0]) == tick
        return Pushed(tick, Block(start, size), part, number, Measured(*counts), bytes(self.slots[number].memory))

    def has_heard_all(self) -> bool:
        """Whether a worker that has left has said nothing more."""
        assert self.link is not None
        self.link.socket.setblocking(False)
        return self.link.read() == []

    def hang_up(self) -> None:
        if self.link is not None:
            self.link.close()
            self.link = None

    def close(self) -> None:
        self.hang_up()
        if self.portals is not None:
            self.portals.close()
        self.listener.close()
        self.segment.close()


def secured(plain: socket.socket) -> ssl.SSLSocket:
    """The listening end of a connection over TLS."""
    found = server_context(IDENTITY).wrap_socket(plain, server_side=True)
    found.settimeout(None)
    return found
