"""A worker: computes its shards, tick after tick, and hands the results to the partitions. It holds nothing that cannot
be computed again."""

from __future__ import annotations

import logging
import selectors
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import chainrule.engine as cr
from chainrule.server.architecture import CodeArchitecture
from chainrule.server.training import faults
from chainrule.server.training.audit import audited_shards
from chainrule.server.training.compute import Computation, Sink
from chainrule.server.training.contributions import HEAD, WHOLE, Measured, pack_sums
from chainrule.server.training.control import Control, connect_control
from chainrule.server.training.errors import LinkError, RejectedError
from chainrule.server.training.examples import ExampleSource
from chainrule.server.training.fingerprint import fingerprint
from chainrule.server.training.layout import PartitionLayout
from chainrule.server.training.memory import Segment, Slot, Weights
from chainrule.server.training.plan import Plan, Tick
from chainrule.server.training.reduction import Block, blocks_of
from chainrule.server.training.remote import through_gateway
from chainrule.server.training.tls import Identity
from chainrule.server.training.waiting import ready
from chainrule.server.training.wire import (
    CLOCKS,
    END,
    MESSAGE,
    PUSH,
    PUSH_BODY,
    SLOT,
    STEP,
    STEP_BODY,
    Connection,
    Endpoint,
    Frame,
    connect_local,
)

NEVER = 1 << 62
"""The tick after the last."""
CONNECT_TIMEOUT_S = 30.0
"""How long a partition may take to answer a worker that calls it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker's process needs to begin."""

    job: str
    plan: Plan
    lease: int
    """Number of the worker within the attempt; it is not used again."""
    identity: Identity
    coordinator: Endpoint
    examples: ExampleSource
    validation: ExampleSource | None = None
    node: str = ""
    """Which node it runs on, for people."""
    node_id: str = ""
    """Ray's id of that node, for the log."""
    local: bool = True
    """Whether partitions of the same machine are reached through shared memory; else over TLS, as those of others."""


def run_worker(spec: WorkerSpec) -> None:
    """Compute until told to leave, or until the coordinator or a partition is gone."""
    cr.set_num_threads(1)  # the number of threads changes the bits
    try:
        control = connect_control(spec.coordinator, spec.identity, local=spec.local, role="worker", lease=spec.lease)
    except LinkError:  # the attempt was over before this process had started
        return
    try:
        with control.telling(spec.job, spec.node_id):
            _work_under(spec, control)
    finally:
        control.close()


def _work_under(spec: WorkerSpec, control: Control) -> None:
    worker: Worker | None = None
    try:
        worker = Worker(spec, control)
        worker.run()
    except (LinkError, RejectedError):  # the coordinator has seen it too, and decides
        return
    except BaseException as error:  # whatever it was, it is the coordinator who decides
        located = _located(error, spec.plan)
        if not isinstance(located, Exception):  # the process is to end
            raise
        control.failed(located, tick=worker.tick if worker is not None else -1)


def _located(error: BaseException, plan: Plan) -> BaseException:
    """An error with the line of the model's code that it comes from, if it comes from there. What code raises goes no
    further than its process: whoever unpickled an exception of its classes would run what they say."""
    architecture = plan.architecture
    if isinstance(error, cr.CodeError) or not isinstance(architecture, CodeArchitecture):
        return error
    source = architecture.source
    if type(error) in (SystemExit, KeyboardInterrupt) and not source.raises(error):  # of a signal, in the midst of it
        return error
    if not source.place_of(error):
        return error
    located = cr.CodeError(source.told(error))
    located.__cause__ = error
    return located


class Worker:
    """The loop of a worker."""

    def __init__(self, spec: WorkerSpec, control: Control) -> None:
        self._spec = spec
        self._control = control
        self._computation = Computation(spec.plan, spec.examples, spec.validation)
        self._selector = selectors.DefaultSelector()
        self._links: list[_Link] = []
        self._fence = -1
        self._shards: tuple[int, ...] = ()
        self._auditors: dict[int, int] = {}
        self._suspects: frozenset[int] = frozenset()  # ticks that are audited as a whole
        self._extra: dict[int, set[int]] = {}  # shards of others, by tick
        self._late: set[int] = set()  # ticks for which others were asked, too
        self._again: list[tuple[int, int]] = []  # ticks and shards to compute once more
        self.tick = -1
        """What it computes, or has computed last."""
        self._done: set[int] = set()
        self._confirmed: set[int] = set()
        self._sent: dict[int, int] = {}  # last tick of each shard, where they are not at the same
        self._slots: dict[int, int] = {}
        self._sinks: list[Sink] = []
        self._used = 0
        self._working = False
        self._leaving = False

    def run(self) -> None:
        """Raises LinkError once the other side is gone, or whatever the computation raises."""
        spec = self._spec
        self._selector.register(self._control.connection, selectors.EVENT_READ, self._control)
        found = fingerprint()
        self._control.message(type="ready", node=spec.node, fingerprint=found)
        logger.info("ready, with %s and %s threads", found["kernels"], found["threads"])
        self._control.beat(self._describe)
        while not self._leaving:
            self._listen(None)
            while self._work():
                self._listen(0)

    # --- what comes in -----------------------------------------------------------------------------------------

    def _listen(self, timeout_s: float | None) -> None:
        for key, _ in ready(self._selector, timeout_s):
            if key.data is self._control:
                for frame in self._control.connection.read():
                    self._on_control(frame.message)
            elif key.data in self._links:  # else it was left meanwhile
                self._on_link(key.data)

    def _on_control(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "partitions":
                self._connect([Endpoint(**endpoint) for endpoint in message["endpoints"]], message["fence"])
                self._suspects = frozenset(message["suspects"])
            case "assign":
                self._shards = tuple(message["shards"])
                self._auditors = {int(shard): lease for shard, lease in message["auditors"].items()}
            case "compute":
                self._extra.setdefault(message["tick"], set()).update(message["shards"])
            case "late":
                self._late.add(message["tick"])
            case "again":
                self._again.append((message["tick"], message["shard"]))
            case "leave":
                self._leaving = True

    def _on_link(self, link: _Link) -> None:
        try:
            link.take(link.connection.read())
        except LinkError:
            self._part()
            self._control.message(type="unlinked", fence=self._fence)  # who says where to turn to, or that it is over

    def _part(self) -> None:
        """Leave the partitions."""
        for link in self._links:
            self._selector.unregister(link.connection.socket)
            link.connection.close()
        self._links = []

    def _connect(self, endpoints: list[Endpoint], fence: int) -> None:
        """Turn to the partitions of the attempt's present life."""
        self._part()
        self._fence = fence
        links: list[_Link] = []
        try:
            for layout, endpoint in zip(self._computation.layout.partitions, endpoints, strict=True):
                links.append(_connected(self._spec, layout, endpoint, fence))
        except (LinkError, RejectedError):  # it may be another's already: the coordinator knows
            for link in links:
                link.connection.close()
            self._control.message(type="unlinked", fence=fence)
            return
        self._links = links
        self._computation.attach([link.weights for link in self._links])
        self.tick, self._sinks, self._extra, self._again = -1, [], {}, []
        self._sent, self._slots = {}, {}
        for link in self._links:
            self._selector.register(link.connection.socket, selectors.EVENT_READ, link)
        self._control.message(type="joined", fence=fence)
        logger.info("linked to %d partitions of fence %d", len(links), fence)

    # --- computing ---------------------------------------------------------------------------------------------

    def _work(self) -> bool:
        """Compute a block of the tick that is due, if this worker has any left; whether there was one."""
        number = min((link.tick for link in self._links), default=-1)
        if not 0 <= number < self._spec.plan.total_ticks:
            return False
        if number != self.tick:
            # What was sent late may still be compared: it stays for another tick.
            self._used = self._used if self.tick in self._late else 0
            self.tick, self._late = number, set()
            self._done, self._confirmed = set(), set()
            self._extra = {tick: shards for tick, shards in self._extra.items() if tick >= number}
            self._again = [(tick, shard) for tick, shard in self._again if tick >= number]
        if self._spec.plan.config.staleness:
            return self._work_ahead()
        tick = self._spec.plan.tick(number)
        audited = audited_shards(self._spec.plan, tick, suspects=self._suspects)
        block = self._next_block(tick, audited)
        if block is not None:
            self._compute(tick, block, whole=block.start in audited and block.size == 1)
        return block is not None

    def _work_ahead(self) -> bool:
        """Compute a shard that is not too far ahead of the slowest, the one furthest behind first."""
        [link] = self._links
        plan = self._spec.plan
        limit = min(min(link.clocks) + plan.config.staleness, plan.total_ticks - 1)
        mine = {*self._shards, *self._extra.get(self.tick, ())}
        due = [(link.clocks[k], k) for k in mine if self._sent.get(k, -1) < link.clocks[k] <= limit]
        if not due:
            return False
        number, shard = min(due)
        self._sent[shard] = number
        self._used = self._slots.setdefault(shard, len(self._slots))
        self._compute(plan.tick(number), Block(shard), whole=True)
        return True

    def _next_block(self, tick: Tick, audited: frozenset[int]) -> Block | None:
        """What is left of this worker's part in a tick: blocks of shards, then audited shards one by one, then those
        that are another's and wait for a second result."""
        occupied = self._spec.plan.occupied_shards(tick)
        shards = {s for s in (*self._shards, *self._extra.get(tick.number, ())) if s < occupied} - self._done
        if plain := blocks_of(shards - audited):
            block = plain[0]
        elif shards:
            block = Block(min(shards))
        else:
            return self._next_confirmation(tick, audited)
        self._done.update(range(block.start, block.start + block.size))
        return block

    def _next_confirmation(self, tick: Tick, audited: frozenset[int]) -> Block | None:
        mine = {s for s in audited if self._auditors.get(s) == self._spec.lease} - self._confirmed
        if mine:
            shard = min(mine)
            self._confirmed.add(shard)
            return Block(shard)
        for request in self._again:
            if request[0] == tick.number:
                self._again.remove(request)
                return Block(request[1])
        return None

    def _compute(self, tick: Tick, block: Block, *, whole: bool) -> None:
        computation = self._computation
        slot, sink = self._next_sink()
        heads: list[Measured] = []

        def send(partition: int, part: int, measured: Measured) -> None:
            if part in (HEAD, WHOLE):
                heads.append(measured)
            if not whole:
                self._push(partition, tick, block, slot, part, measured)

        self._working = True
        computation.load(self._spec.plan.version(tick))
        for link in self._links:
            link.slots[slot].begin(tick.number)
        faults.at("worker.compute", lease=self._spec.lease, step=tick.step + 1)
        computation.block(tick, block, sink, send)
        if whole:  # two results are compared as a whole, and what is not waited for is applied as a whole
            for partition in range(len(self._links)):
                self._push(partition, tick, block, slot, WHOLE, heads[0])
        self._working = False
        faults.at("worker.pushed", lease=self._spec.lease, step=tick.step + 1)

    def _push(self, partition: int, tick: Tick, block: Block, slot: int, part: int, measured: Measured) -> None:
        link = self._links[partition]
        if not self._computation.holds(
            self._spec.plan.version(tick)
        ):  # it was overtaken, and has computed with half new weights
            link.send(MESSAGE, b'{"type": "tick"}')
            return
        faults.at("worker.push", link.slots[slot].memory, lease=self._spec.lease, step=tick.step + 1, part=part)
        body = PUSH_BODY.pack(
            tick.number, block.start, block.size, slot, part,
            measured.loss, measured.num_correct, measured.num_predictions,
        )  # fmt: skip
        link.send(PUSH, body + pack_sums(measured.sums) if part in (HEAD, WHOLE) else body)

    def _next_sink(self) -> tuple[int, Sink]:
        """Memory for another block of this tick; that of the tick before is free again."""
        slot = self._used
        while slot >= len(self._sinks):
            number = len(self._sinks)
            self._sinks.append(self._computation.sink([link.make_slot(number, self._spec) for link in self._links]))
        self._used += 1
        return slot, self._sinks[slot]

    def _describe(self) -> dict[str, Any]:
        """What a sign of life says."""
        return {"tick": self.tick, "working": self._working}


class _Link:
    """A worker's connection to a partition: weights come in, pushes go out."""

    def __init__(self, connection: Connection, layout: PartitionLayout, weights: Weights) -> None:
        self.connection = connection
        self.weights = weights
        self.slots: list[Slot] = []
        self.tick = -1
        self.clocks: Sequence[int] = ()
        self._layout = layout

    def take(self, frames: Sequence[Frame]) -> None:
        """Learn which weights there are."""
        for frame in frames:
            if frame.kind == STEP:
                self.tick, _ = STEP_BODY.unpack(frame.body)
            elif frame.kind == CLOCKS:
                self.clocks = array("Q", frame.body)
            elif frame.kind == END:
                self.tick = NEVER

    def send(self, kind: int, *parts: bytes, descriptor: int | None = None) -> None:
        """Send a frame, unless the partition is gone: that shows in what comes in."""
        with suppress(LinkError):
            self.connection.send(kind, *parts, descriptor=descriptor)

    def make_slot(self, number: int, spec: WorkerSpec) -> memoryview:
        """A push region that the partition can read."""
        slot = Slot.make(f"chainrule {spec.job} push {spec.lease}/{number}", self._layout)
        self.send(SLOT, number.to_bytes(2, "little"), descriptor=slot.segment.descriptor)
        slot.close()
        self.slots.append(slot)
        return slot.memory


def _connected(spec: WorkerSpec, layout: PartitionLayout, endpoint: Endpoint, fence: int) -> _Link:
    """A link to a partition. Raises LinkError, or RejectedError if the partition does not want this worker."""
    local = connect_local(endpoint) if spec.local else None
    if local is None:
        # Weights that change in place come with each answer to a push, as they are then: everybody has their own.
        local = through_gateway(endpoint, spec.identity, layout, shared=not spec.plan.config.staleness)
    connection = Connection(local)
    connection.socket.settimeout(CONNECT_TIMEOUT_S)
    connection.message(token=spec.identity.token, fence=fence, lease=spec.lease)
    first = connection.next()
    if first.kind == MESSAGE:
        raise RejectedError(f"a partition refuses worker {spec.lease}: {first.message.get('reason')}")
    if first.descriptor is None:
        raise LinkError("a partition sent no memory")
    connection.socket.settimeout(None)
    segment = Segment.of(first.descriptor)
    segment.close()
    link = _Link(connection, layout, Weights(segment, layout))
    link.take(connection.pending())
    return link
