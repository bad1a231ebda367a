"""The service's side of a predictor: starts the process, hands it batches, and notices its end."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from chainrule.server.predictions.messages import READY, Asked, Result, pack_batch, unpack_answered
from chainrule.server.predictions.network import NetworkSpec
from chainrule.server.predictions.predictor import PredictorSettings
from chainrule.server.training.errors import LinkError
from chainrule.server.training.wire import HEADER, MESSAGE, Connection

START_TIMEOUT_S = 60.0
"""How long a predictor may take to start and to import."""
COMPUTE_TIMEOUT_S = 600.0
"""How long a batch may take, loading its network included, before the predictor is ended."""
END_TIMEOUT_S = 5.0
"""How long one that is told to end may take before it is killed."""
PREDICTOR = (sys.executable, "-c", "from chainrule.server.predictions.predictor import main; main()")
"""Command that a predictor is started with; the number of its socket and its settings follow."""

logger = logging.getLogger(__name__)


class LostPredictorError(Exception):
    """A predictor has ended, and what it computed is lost; or it did not start."""


Done = Callable[["tuple[Result, ...] | LostPredictorError"], None]
"""What is told of a batch: what came of each request, or that the predictor has ended at it."""


class PredictorLike(Protocol):
    """What computes one batch at a time."""

    @property
    def held(self) -> frozenset[str]:
        """Keys of the networks that it has loaded."""

    def submit(self, network: NetworkSpec, requests: Sequence[Asked], done: Done) -> None:
        """Compute a batch. `done` is called with what comes of it, by the event loop, unless this is closed before."""

    async def close(self) -> None:
        """End it."""


class PredictorProcess:
    """A predictor in a process of its own. `started` makes one."""

    def __init__(self, process: subprocess.Popen[bytes], ours: socket.socket) -> None:
        self._process = process
        self._connection = Connection(ours)
        self._when_lost: Callable[[PredictorLike], None] = _nobody
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._done: Done | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self._has_ended = False
        self.held: frozenset[str] = frozenset()
        self._loop.add_reader(ours, self._readable)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @classmethod
    async def started(
        cls,
        settings: PredictorSettings,
        when_lost: Callable[[PredictorLike], None],
        *,
        command: Sequence[str] = PREDICTOR,
    ) -> PredictorProcess:
        """Start one and wait until it is ready.

        Args:
            when_lost: called with it once it has ended without being told to.

        Raises LostPredictorError.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            try:
                process = await asyncio.to_thread(_start, (*command, str(theirs.fileno()), settings.to_json()), theirs)
            except BaseException as error:
                ours.close()
                if isinstance(error, OSError):
                    raise LostPredictorError(f"a predictor could not be started: {error}") from error
                raise
        made = cls(process, ours)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await made._ready
        except TimeoutError as error:
            await made.close()
            raise LostPredictorError(f"a predictor was not ready within {START_TIMEOUT_S:g} s") from error
        except BaseException:
            await made.close()
            raise
        made._when_lost = when_lost
        logger.info("a predictor has started, process %d", made.pid)
        return made

    def submit(self, network: NetworkSpec, requests: Sequence[Asked], done: Done) -> None:
        """As `PredictorLike` says; one batch at a time."""
        if self._has_ended:
            self._loop.call_soon(done, LostPredictorError("the predictor has ended"))
            return
        self._done = done
        self._timer = self._loop.call_later(COMPUTE_TIMEOUT_S, self._too_late)
        body = pack_batch(network, requests, is_held=network.key in self.held)
        header = HEADER.pack(len(body), MESSAGE)
        try:
            sent = self._connection.socket.sendmsg((header, body))
        except BlockingIOError:
            sent = 0
        except OSError:  # it has ended, as `_readable` finds out, too
            return
        if sent < len(header) + len(body):
            self._sending = self._loop.create_task(self._send(memoryview(header + body)[sent:]))

    async def close(self) -> None:
        """Have it end, or end it."""
        self._when_lost, self._done = _nobody, None
        self._ended("it was told to end")
        try:
            await asyncio.to_thread(self._process.wait, END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    async def _send(self, rest: memoryview) -> None:
        with suppress(OSError):  # it has ended, as `_readable` finds out, too
            await self._loop.sock_sendall(self._connection.socket, rest)

    def _readable(self) -> None:
        try:
            frames = self._connection.read()
        except LinkError:
            self._ended("it has ended")
            return
        for frame in frames:
            if frame.body == READY:
                self._ready.set_result(None)
                continue
            answered = unpack_answered(frame.body)
            if answered.held is not None:
                self.held = answered.held
            self._tell(answered.results)

    def _too_late(self) -> None:
        logger.warning("a predictor has computed a batch for longer than %g s; it is ended", COMPUTE_TIMEOUT_S)
        self._process.kill()

    def _tell(self, outcome: tuple[Result, ...] | LostPredictorError) -> None:
        done, self._done = self._done, None
        if self._timer is not None:
            self._timer.cancel()
        if done is not None:
            done(outcome)

    def _ended(self, why: str) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        self._loop.remove_reader(self._connection.socket)
        with suppress(OSError):  # the other side was quicker
            self._connection.socket.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        if self._sending is not None:
            self._sending.cancel()
        if not self._ready.done():
            self._ready.set_exception(LostPredictorError(f"the predictor is gone: {why}"))
            self._ready.exception()  # is raised where it is waited for, if it is
        if self._done is not None:
            self._tell(LostPredictorError(f"the predictor is gone: {why}"))
        else:
            self._when_lost(self)


def _nobody(_predictor: PredictorLike) -> None:
    """Nobody is told."""


def _start(command: Sequence[str], theirs: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=2,  # with our log; ours is for people
        process_group=0,  # Ctrl-C is for the service alone
    )
