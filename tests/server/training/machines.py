"""A partition's side of its links to other machines, and workers of one machine that call it, all in this process."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from chainrule.server.training.errors import LinkError
from chainrule.server.training.memory import WRITING, Segment, Weights
from chainrule.server.training.remote import Portals, through_gateway
from chainrule.server.training.tls import Identity, make_identity
from chainrule.server.training.wire import SLOT, STEP, STEP_BODY, Connection, Frame, Listener
from tests.server.training.bench import LIMIT_S, layout_of
from tests.server.training.runs import small_plan

IDENTITY = make_identity("chainrule-machines")
[LAYOUT] = layout_of(small_plan(family_config={"width": 64}, trainable=("*weight",))).partitions
NOISE_BYTES = 20_000
"""What a few handshakes and frames take; weights are many times that."""


class Station:
    """The partition's side; workers call it through a relay that counts what comes down to them."""

    def __init__(self) -> None:
        self.listener = Listener(IDENTITY, host="127.0.0.1", name="test/0")
        self.listener.local.settimeout(LIMIT_S)
        self.portals = Portals(self.listener, LAYOUT)
        self.portals.start()
        self.relay = Relay(self.listener.endpoint.port)
        self.endpoint = replace(self.listener.endpoint, port=self.relay.port)
        self.segment = Segment.make("test", Weights.size(LAYOUT))
        self.weights = Weights(self.segment, LAYOUT)
        self.weights.versions[:] = WRITING
        for name, array in self.weights.constants.items():
            array[...] = np.random.default_rng(len(name)).normal(size=array.shape)
        self.members: list[Member] = []

    def call(self, identity: Identity = IDENTITY, **how: Any) -> Member:
        """A worker that calls, and that the partition has not answered yet."""
        member = Member(through_gateway(self.endpoint, identity, LAYOUT, **how))
        accepted, _ = self.listener.local.accept()
        accepted.settimeout(LIMIT_S)
        member.partition = Connection(accepted)
        self.members.append(member)
        return member

    def join(self, **how: Any) -> Member:
        """A worker that is wanted, and has the memory."""
        member = self.call(**how)
        member.partition.send(SLOT, descriptor=self.segment.descriptor)
        member.take_memory()
        return member

    def join_again(self) -> Member:
        """A worker whose link has ended: it tries again if it comes upon a copy that is just going, too."""
        until_s = time.monotonic() + LIMIT_S
        while True:
            try:
                return self.join()
            except LinkError:
                assert time.monotonic() < until_s

    def write(self, step: int) -> None:
        """Weights of a step, drawn at random."""
        self.weights.versions[step % 2] = WRITING
        for array in self.weights.arrays(step).values():
            array[...] = np.random.default_rng(step).normal(size=array.shape)
        self.weights.versions[step % 2] = step

    def publish(self, step: int, *members: Member) -> None:
        """Write the weights of a step, and tell workers."""
        self.write(step)
        for member in members:
            member.announce(step, step)

    def close(self) -> None:
        for member in self.members:
            member.close()
        self.portals.close()
        self.relay.close()
        for thread in link_threads():
            thread.join(LIMIT_S)
        self.listener.close()
        self.segment.close()


class Member:
    """A worker's end of a link, and the partition's end of the same."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(LIMIT_S)
        self.worker = Connection(connected)
        self.partition: Connection
        self.seen: Weights
        self.inode = 0
        """What tells one piece of shared memory from another."""

    def take_memory(self) -> None:
        frame = self.worker.next()
        assert frame.kind == SLOT
        assert frame.descriptor is not None
        self.inode = os.fstat(frame.descriptor).st_ino
        segment = Segment.of(frame.descriptor)
        segment.close()
        self.seen = Weights(segment, LAYOUT)

    def announce(self, tick: int, step: int) -> None:
        self.partition.send(STEP, STEP_BODY.pack(tick, step))

    def until(self, tick: int, step: int, weights: Weights) -> None:
        """The next that it is told is this step, and it has the weights of it."""
        assert self.worker.next() == Frame(STEP, STEP_BODY.pack(tick, step))
        assert self.seen.holds(step)
        for name, array in weights.arrays(step).items():
            assert self.seen.arrays(step)[name].tobytes() == array.tobytes(), name

    def is_hung_up_on(self) -> bool:
        try:
            while True:
                self.worker.next()
        except LinkError as error:
            return not isinstance(error.__cause__, TimeoutError)

    def close(self) -> None:
        self.worker.close()
        self.partition.close()


class Relay:
    """Hands on what comes over TCP, and counts what goes to those who call."""

    def __init__(self, port: int) -> None:
        self.down_bytes = 0
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(LIMIT_S)
        self._listening.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LIMIT_S)
        for each in self._open:
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                for source, target in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=self._hand_on, args=(source, target, target is near)))
                    self._threads[-1].start()

    def _hand_on(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if counts:
                    self.down_bytes += len(data)
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def link_threads() -> list[threading.Thread]:
    """Those of all gateways and portals."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(("door", "portal", "gateway"))]
