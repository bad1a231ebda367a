"""A partition at work: takes pushes from workers over its links, publishes weights, and reports to the coordinator."""

from __future__ import annotations

import hmac
import logging
import selectors
import socket
import struct
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import chainrule.engine as cr
from chainrule.server.training import faults, policies
from chainrule.server.training.archive import Archive
from chainrule.server.training.contributions import Measured, Push, unpack_sums
from chainrule.server.training.control import Control, connect_control
from chainrule.server.training.errors import LinkError
from chainrule.server.training.layout import make_layout
from chainrule.server.training.limits import allow_descriptors
from chainrule.server.training.memory import Segment, Slot, Weights
from chainrule.server.training.partition import Partition
from chainrule.server.training.plan import Plan
from chainrule.server.training.reduction import Block
from chainrule.server.training.remote import Portals
from chainrule.server.training.stale import StalePartition
from chainrule.server.training.state import EvaluationMetric, TrainingState
from chainrule.server.training.tls import Identity
from chainrule.server.training.waiting import ready
from chainrule.server.training.watching import watched
from chainrule.server.training.wire import (
    CLOCKS,
    END,
    HEADER,
    MAX_GREETING_BYTES,
    MESSAGE,
    PUSH,
    PUSH_BODY,
    SLOT,
    STEP,
    STEP_BODY,
    Connection,
    Endpoint,
    Listener,
    is_of_this_user,
)

REPORT_INTERVAL_S = 0.1
"""Least time between two reports of progress: fast steps are reported in batches."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartitionSpec:
    """What a partition's process needs to begin."""

    job: str
    plan: Plan
    index: int
    """Number of the partition, from 0."""
    state: TrainingState
    """The whole state; the partition takes its share."""
    fence: int
    identity: Identity
    host: str
    """Address to listen on for other machines."""
    coordinator: Endpoint
    evaluations: tuple[EvaluationMetric, ...] = ()
    node_id: str = ""
    """Ray's id of the node it runs on, for the log."""
    local: bool = True
    """Whether a coordinator on the same machine is called without TLS."""


def run_partition(spec: PartitionSpec) -> None:
    """Serve until the coordinator says stop or is gone."""
    cr.set_num_threads(1)
    allow_descriptors()
    who = {"role": "partition", "index": spec.index, "fence": spec.fence}
    try:
        control = connect_control(spec.coordinator, spec.identity, local=spec.local, **who)
    except LinkError:  # the attempt was over before this process had started
        return
    try:
        with control.telling(spec.job, spec.node_id):
            _serve_under(spec, control)
    finally:
        control.close()


def _serve_under(spec: PartitionSpec, control: Control) -> None:
    try:
        with PartitionServer(spec, control) as server:
            server.run()
    except LinkError:  # the coordinator is gone: so is the attempt
        return
    except Exception as error:  # noqa: BLE001 — whatever it was, it is the coordinator who decides
        control.failed(error)


class _Link:
    """A worker's connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lease: int | None = None
        self.slots: dict[int, Slot] = {}

    def push(self, body: bytes) -> Push:
        """What a frame says. Raises struct.error or KeyError if it is not one of ours."""
        tick, start, size, slot, part, loss, right, predictions = PUSH_BODY.unpack_from(body)
        assert self.lease is not None
        measured = Measured(loss, right, predictions, unpack_sums(body[PUSH_BODY.size :]))
        return Push(tick, self.lease, Block(start, size), part, measured, self.slots[slot].memory, self.slots[slot])

    def close(self) -> None:
        self.connection.close()


class PartitionServer:
    """The loop of a partition; a context manager."""

    def __init__(self, spec: PartitionSpec, control: Control) -> None:
        self._spec = spec
        self._control = control
        plan = spec.plan
        layouts = make_layout(plan, plan.architecture.outline()).partitions
        self._layout = layouts[spec.index]
        self._alone = len(layouts) == 1
        self._segment = Segment.make(f"chainrule {spec.job} weights {spec.index}", Weights.size(self._layout))
        kind = StalePartition if plan.config.staleness else Partition
        self._partition = kind(plan, self._layout, spec.state, Weights(self._segment, self._layout))
        self._history = list(spec.evaluations)
        self._archive = Archive(control, f"chainrule {spec.job}", spec.index)
        self._listener = Listener(spec.identity, host=spec.host, name=f"{spec.job}/{spec.fence}/{spec.index}")
        self._portals = Portals(self._listener, self._layout)
        self._selector = selectors.DefaultSelector()
        self._links: dict[int, _Link] = {}
        self._revoked: set[int] = set()
        self._credit = True
        self._held: Callable[[], None] | None = None
        self._later: list[tuple[_Link, Push]] = []  # what came while it was held
        self._pausing = False
        self._over = False
        self._stopped = False
        self._reported_at = 0.0
        self._reported_tick = -1

    def __enter__(self) -> PartitionServer:
        self._selector.register(self._control.connection, selectors.EVENT_READ, self._on_control)
        self._selector.register(self._listener.local, selectors.EVENT_READ, self._on_connect)
        self._portals.start()
        self._archive.start()
        self._control.beat(dict)
        self._control.message(type="ready", endpoint=asdict(self._listener.endpoint))
        count = sum(place.size for place in self._layout.parameters.values())
        logger.info("has %d trained parameters, after step %d, fence %d", count, self._partition.step, self._spec.fence)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(LinkError):
            self._report()  # the steps before one that failed
        for link in list(self._links.values()):
            self._drop(link)
        self._portals.close()
        self._listener.close()
        self._archive.close()
        self._selector.close()
        self._segment.close()

    def run(self) -> None:
        """Serve until told to stop. Raises what makes the job fail."""
        if self._partition.finished:
            self._finish()
        while not self._stopped:
            for key, _ in ready(self._selector, REPORT_INTERVAL_S):
                key.data(key.fileobj)
            if time.monotonic() - self._reported_at >= REPORT_INTERVAL_S:
                self._report()

    # --- links -------------------------------------------------------------------------------------------------

    def _on_connect(self, listening: socket.socket) -> None:
        try:
            connected, _ = listening.accept()
        except OSError:  # it has gone again, or there are no descriptors for it at the moment
            return
        if not is_of_this_user(connected):
            connected.close()
            return
        link = _Link(Connection(connected))
        link.connection.max_body_bytes = MAX_GREETING_BYTES  # all frames are small: what is large lies in the memory
        self._links[connected.fileno()] = link
        self._selector.register(connected, selectors.EVENT_READ, lambda _: self._on_frames(link))

    def _on_frames(self, link: _Link) -> None:
        pushes = []
        try:
            for frame in link.connection.read():
                if frame.kind == PUSH and link.lease is not None:
                    pushes.append(link.push(frame.body))
                elif frame.kind == SLOT and link.lease is not None and frame.descriptor is not None:
                    slot = Slot.of(frame.descriptor, self._layout)
                    slot.close()  # the memory stays as long as it is mapped
                    link.slots[int.from_bytes(frame.body, "little")] = slot
                elif frame.kind == MESSAGE and link.lease is not None:
                    self._publish_to(link)  # it asks which weights there are
                elif frame.kind == MESSAGE:
                    self._greet(link, frame.message)
                else:
                    raise LinkError("a worker must say who it is first")
        except (LinkError, ValueError, TypeError, KeyError, struct.error):  # it is gone, or not one of ours
            self._drop(link)
        for push in pushes:
            self._on_push(link, push)

    def _greet(self, link: _Link, hello: dict[str, Any]) -> None:
        spec = self._spec
        if not hmac.compare_digest(str(hello["token"]).encode(), spec.identity.token.encode()):
            raise LinkError("wrong token")
        if hello["fence"] != spec.fence or hello["lease"] in self._revoked:
            link.connection.message(
                type="rejected", reason=f"fence {hello['fence']} lease {hello['lease']} is over; now {spec.fence}"
            )
            raise LinkError("an old worker")
        link.lease = hello["lease"]
        link.connection.send(SLOT, descriptor=self._segment.descriptor)
        self._publish_to(link)

    def _on_push(self, link: _Link, push: Push) -> None:
        if self._over:
            return
        if self._held is not None:
            if self._partition.clocks:  # it is not sent again
                self._later.append((link, push))
            return
        behind = push.tick < self._partition.tick
        faults.at("partition.push", index=self._spec.index, step=self._partition.step + 1)
        done = self._partition.push(push)
        for dispute in self._partition.disputes:
            self._control.message(type="dispute", dispute=asdict(dispute))
        self._partition.disputes.clear()
        for verdict in self._partition.verdicts:
            self._control.message(type="verdict", verdict=asdict(verdict))
        self._partition.verdicts.clear()
        if not done and (behind or self._partition.clocks):
            self._publish_to(link)  # it may have missed some
        if done:
            self._after_tick()

    def _publish(self) -> None:
        for link in list(self._links.values()):
            if link.lease is not None:
                self._publish_to(link)

    def _publish_to(self, link: _Link) -> None:
        """Tell a worker which weights there are; one that does not read is told when it next pushes."""
        if self._over:
            frame = HEADER.pack(0, END)
        elif self._held is not None:
            return
        else:
            frame = HEADER.pack(STEP_BODY.size, STEP) + STEP_BODY.pack(self._partition.tick, self._partition.version)
            if clocks := self._partition.clocks:
                body = array("Q", clocks).tobytes()
                frame = HEADER.pack(len(body), CLOCKS) + body + frame
        try:
            link.connection.socket.send(frame, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self._drop(link)

    def _drop(self, link: _Link) -> None:
        if (descriptor := link.connection.fileno()) >= 0:
            self._selector.unregister(link.connection.socket)
            self._links.pop(descriptor, None)
        link.close()

    # --- between two ticks -------------------------------------------------------------------------------------

    def _after_tick(self) -> None:
        faults.at("partition.updated", index=self._spec.index, step=self._partition.step)
        partition, plan = self._partition, self._spec.plan
        if plan.tick(partition.tick - 1).evaluates:
            self._history.append(partition.evaluations[-1])
            if policies.stops_early(self._history, plan.config.validation.patience, watched(plan.config)):
                self._over = True
                self._report()
                epoch, step = self._history[-1].epoch, partition.step
                self._archive.put(lambda: self._control.message(type="early_stop", epoch=epoch, step=step))
        else:
            final = partition.step == plan.total_steps
            due = policies.checkpoint_due(plan, partition.step)
            receipt = policies.receipt_due(plan, partition.step)
            wanted = final or not self._alone or (plan.num_validation > 0 and plan.ends_epoch(partition.step))
            if self._pausing:
                self._pause()
                return
            if due and wanted and not self._credit:
                self._held = lambda: self._go_on(snapshot=True, receipt=receipt)
                return
            self._archive_now(snapshot=due and self._credit, receipt=receipt)
        self._go_on(snapshot=False, receipt=False)

    def _go_on(self, *, snapshot: bool, receipt: bool) -> None:
        self._held = None
        self._archive_now(snapshot=snapshot, receipt=receipt)
        if self._partition.finished and not self._over:
            self._finish()
        self._publish()
        later, self._later = self._later, []
        for link, push in later:
            self._on_push(link, push)
        while self._held is None and not self._over and self._partition.goes_on():
            self._after_tick()

    def _finish(self) -> None:
        self._over = True
        self._report()
        logger.info("all %d steps are done", self._partition.step)
        self._archive.put(lambda: self._control.message(type="done", step=self._partition.step))

    def _archive_now(self, *, snapshot: bool, receipt: bool) -> None:
        if not snapshot and not receipt:
            return
        if snapshot:
            self._report()  # whoever begins there again does not measure the steps before once more
            self._credit = False
        self._archive.take(self._partition.state_here(), snapshot=snapshot, receipt=receipt)

    def _pause(self) -> None:
        """Stand after this step: take a checkpoint and publish nothing."""
        self._held = lambda: None
        self._report()
        step = self._partition.step
        self._archive_now(snapshot=True, receipt=policies.receipt_due(self._spec.plan, step))
        self._archive.put(lambda: self._control.message(type="held", step=step))

    # --- the coordinator ---------------------------------------------------------------------------------------

    def _on_control(self, _: Any) -> None:
        for frame in self._control.connection.read():
            message = frame.message
            match message["type"]:
                case "revoke":
                    self._revoked.add(message["lease"])
                    for link in [link for link in self._links.values() if link.lease == message["lease"]]:
                        self._drop(link)
                case "watch":
                    blocks = [Block(**block) for block in message["blocks"]]
                    self._partition.watch(message["tick"], blocks, report=message["report"])
                case "credit":
                    self._credit = True
                    self._archive.stored(message["step"])
                    if self._held is not None and not self._pausing:
                        self._held()
                case "pause":
                    self._pausing = True
                    between = self._alone and not self._over and self._partition.untouched
                    if between or self._held is not None:
                        self._pause()
                case "snapshot":
                    self._pausing = True  # where this partition is a step behind, it stands after that
                    if message["step"] == self._partition.step:
                        self._pause()
                case "stop":
                    self._stopped = True

    def _report(self) -> None:
        self._reported_at = time.monotonic()
        partition = self._partition
        stalled = partition.tick == self._reported_tick
        self._reported_tick = partition.tick
        self._control.message(
            type="progress",
            tick=partition.tick,
            step=partition.step,
            metrics=[asdict(metric) for metric in partition.metrics],
            evaluations=[asdict(metric) for metric in partition.evaluations],
            skipped=partition.skipped,
            missing=partition.missing if stalled and not self._over and self._held is None else [],
        )
        partition.metrics, partition.evaluations, partition.skipped = [], [], []
