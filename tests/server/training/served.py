"""A partition at work in a thread, with a test as its coordinator and its workers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from chainrule.server.training.contributions import WHOLE
from chainrule.server.training.door import pumped
from chainrule.server.training.errors import LinkError
from chainrule.server.training.memory import Segment, Slot, Weights
from chainrule.server.training.plan import Plan
from chainrule.server.training.serving import PartitionSpec, run_partition
from chainrule.server.training.state import TrainingState
from chainrule.server.training.wire import (
    BLOB,
    PUSH,
    PUSH_BODY,
    SLOT,
    STEP,
    STEP_BODY,
    Connection,
    Endpoint,
    Frame,
    Listener,
    connect_local,
)
from tests.server.training.bench import (
    LIMIT_S,
    Result,
    layout_of,
    random_results,
)
from tests.server.training.led import secured
from tests.server.training.runs import initial_state
from tests.server.training.stand_ins import IDENTITY

FENCE = 9


class Served:
    """A partition in a thread, with this as its coordinator."""

    def __init__(
        self, plan: Plan, *, index: int = 0, state: TrainingState | None = None, local: bool = True, **fields: Any
    ) -> None:
        self.plan = plan
        self.layout = layout_of(plan).partitions[index]
        self.listener = Listener(IDENTITY, host="127.0.0.1", name="test/coordinator")
        listening = self.listener.local if local else self.listener.remote
        listening.settimeout(LIMIT_S)
        spec = PartitionSpec(
            job="jobs/test",
            plan=plan,
            index=index,
            state=state or initial_state(plan),
            fence=FENCE,
            identity=IDENTITY,
            host="127.0.0.1",
            coordinator=self.listener.endpoint,
            local=local,
            **fields,
        )
        self.thread = threading.Thread(target=run_partition, args=(spec,))
        self.thread.start()
        accepted, _ = listening.accept()
        accepted.settimeout(LIMIT_S)
        self.control = Connection(accepted if local else pumped(secured(accepted)))
        self.control.socket.settimeout(LIMIT_S)
        self.messages: list[dict[str, Any]] = []
        """All that it has said, but signs of life and reports without news."""
        self.snapshots: list[Segment] = []
        """The memory that it has handed over, as often as it was."""
        self.workers: list[Worker] = []
        assert self.until("hello")["token"] == IDENTITY.token
        self.endpoint = Endpoint(**self.until("ready")["endpoint"])

    def until(self, kind: str, **facts: Any) -> dict[str, Any]:
        """The next message of a kind with these facts; its bytes, if any, are under "blob"."""
        until_s = time.monotonic() + LIMIT_S
        while time.monotonic() < until_s:
            message = self.control.next().message
            if size := message.pop("blob_bytes", 0):
                message["blob"] = self._content(size)
            self._remember(message)
            if message["type"] == kind and all(message[key] == value for key, value in facts.items()):
                return message
        raise TimeoutError(f"no {kind} with {facts} came, but {[message['type'] for message in self.messages]}")

    def _content(self, size: int) -> bytes:
        """The bytes that belong to a message: memory that is handed over, or in pieces; signs of life go between."""
        content = bytearray()
        while len(content) < size:
            frame = self.control.next()
            if frame.descriptor is not None:
                memory = Segment.of(frame.descriptor)
                memory.close()
                self.snapshots.append(memory)
                return bytes(memory.memory[:size])
            if frame.kind == BLOB:
                content += frame.body
            else:
                self._remember(frame.message)
        return bytes(content)

    def _remember(self, message: dict[str, Any]) -> None:
        is_news = message.get("metrics") or message.get("evaluations") or message.get("skipped")
        if message["type"] != "beat" and (message["type"] != "progress" or is_news):
            self.messages.append(message)

    def heard(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    def tell(self, **message: Any) -> None:
        self.control.message(**message)

    def worker(self, lease: int = 1, **hello: Any) -> Worker:
        """A worker that says who it is."""
        connected = connect_local(self.endpoint)
        assert connected is not None
        found = Worker(connected, self)
        found.connection.message(**{"token": IDENTITY.token, "fence": FENCE, "lease": lease, **hello})
        return found

    def heard_all(self) -> None:
        """Until it has heard what was told."""
        witness = self.worker(lease=99).link()
        self.tell(type="revoke", lease=99)
        assert witness.hung_up_on()

    def stop(self) -> None:
        """Have it end, and take in what it says until then."""
        self.tell(type="stop")
        self.thread.join(LIMIT_S)
        with pytest.raises(LinkError):
            self.until("the end")

    def close(self) -> None:
        for worker in self.workers:
            worker.connection.close()
        self.control.close()
        self.listener.close()
        self.thread.join(LIMIT_S)
        assert not self.thread.is_alive()


class Worker:
    """A worker's end of a link to a partition."""

    def __init__(self, connected: socket.socket, served: Served) -> None:
        connected.settimeout(LIMIT_S)
        self.connection = Connection(connected)
        self.layout = served.layout
        self.slots: list[Slot] = []
        self.weights: Weights
        served.workers.append(self)

    def link(self) -> Worker:
        """Take the memory, and see the first weights announced."""
        frame = self.connection.next()
        assert frame.kind == SLOT
        assert frame.descriptor is not None
        segment = Segment.of(frame.descriptor)
        segment.close()
        self.weights = Weights(segment, self.layout)
        return self

    def next(self) -> Frame:
        return self.connection.next()

    def until_step(self, tick: int, step: int) -> None:
        frame = self.next()
        assert (frame.kind, *STEP_BODY.unpack(frame.body)) == (STEP, tick, step)
        assert self.weights.holds(step)

    def push(self, result: Result, *, tick: int, part: int = WHOLE) -> None:
        number = result.block.start
        while len(self.slots) <= number:
            slot = Slot.make("test", self.layout)
            self.connection.send(SLOT, len(self.slots).to_bytes(2, "little"), descriptor=slot.segment.descriptor)
            slot.close()
            self.slots.append(slot)
        self.slots[number].begin(tick)
        self.slots[number].memory[:] = result.memory
        measured = result.measured
        body = (tick, result.block.start, result.block.size, number, part)
        counts = (measured.loss, measured.num_correct, measured.num_predictions)
        self.connection.send(PUSH, PUSH_BODY.pack(*body, *counts))

    def train(self, steps: Sequence[int]) -> None:
        """Push all shards of these steps, as for so many ticks."""
        for step in steps:
            for result in random_results(self.layout, 4, seed=step):
                self.push(result, tick=step)
            self.until_step(step + 1, step + 1)

    def hung_up_on(self) -> bool:
        try:
            while True:
                self.next()
        except LinkError:
            return True
