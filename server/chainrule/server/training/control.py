"""A part's line to its coordinator: messages both ways, and a sign of life a few times a second."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from chainrule.server.training.door import pumped
from chainrule.server.training.errors import CorruptionError, LinkError, NonFiniteError
from chainrule.server.training.logs import MAX_WAITING, LogBuffer, collected, tidy, to_values
from chainrule.server.training.memory import Segment
from chainrule.server.training.tls import Identity
from chainrule.server.training.wire import BLOB, SLOT, Connection, Endpoint, connect_local, connect_remote

PIECE_BYTES = 1024**2
"""Size of the pieces in which bytes go to the coordinator."""
BEAT_INTERVAL_S = 0.25
"""Time between two signs of life."""

logger = logging.getLogger(__name__)


class Control:
    """The connection, for use from several threads of a part.

    Args:
        local: Whether it is within this machine, and can carry descriptors of shared memory.
    """

    def __init__(self, connection: Connection, *, local: bool) -> None:
        self.connection = connection
        self._local = local
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._describe: Callable[[], dict[str, Any]] | None = None
        self._said_s = time.monotonic()
        self._logs: LogBuffer | None = None
        self._node = ""

    def message(self, **fields: Any) -> None:
        """Raises LinkError if the coordinator is gone."""
        with self._lock:
            self.connection.message(**fields)
        self._said_s = time.monotonic()

    def message_with(self, memory: Segment, size: int, **fields: Any) -> None:
        """A message and the first bytes of shared memory, which belong to it: within a machine, the memory itself; else
        its content piece by piece, with signs of life between them. From one thread at a time. Raises LinkError."""
        self.message(**fields, blob_bytes=size)
        left = memory.memory[:size]
        if left and self._local:
            with self._lock:
                self.connection.send(SLOT, descriptor=memory.descriptor)
            return
        while left:
            with self._lock:
                self.connection.send(BLOB, left[:PIECE_BYTES])
            left = left[PIECE_BYTES:]
            if time.monotonic() - self._said_s >= BEAT_INTERVAL_S:  # the other thread may not get its turn
                self._beat()

    def failed(self, error: BaseException, **facts: int) -> None:
        """Say what went wrong; a coordinator that is gone need not know."""
        logger.error("this process fails", exc_info=error)
        try:
            self._tell_all_logs()  # while somebody listens
            self.message(type="failed", **describe_failure(error), **facts)
        except LinkError:
            return

    @contextmanager
    def telling(self, job: str, node: str) -> Iterator[None]:
        """Tell the coordinator what is logged in this process: with the signs of life, and the rest in the end.

        Args:
            job: Whose part this is.
            node: Ray's id of the node it runs on.
        """
        self._logs, self._node = LogBuffer(about=job), node
        with collected(self._logs):
            try:
                yield
            finally:
                with suppress(LinkError):
                    self._tell_all_logs()

    def _tell_logs(self) -> bool:
        """Tell what is told at a time, if there is anything."""
        if self._logs is None or not (entries := self._logs.take()):
            return False
        self.message(type="logs", node=self._node, entries=to_values(entries))
        return True

    def _tell_all_logs(self) -> None:
        """Tell all that waits, though not for ever while others go on logging."""
        for _ in range(MAX_WAITING):  # each time at least one
            if not self._tell_logs():
                return

    def beat(self, describe: Callable[[], dict[str, Any]]) -> None:
        """Begin to give signs of life, from a thread of its own, until `close`."""

        def work() -> None:
            while not self._ended.wait(BEAT_INTERVAL_S):
                try:
                    self._tell_logs()
                    self._beat()
                except LinkError:  # whoever reads from the connection sees it too
                    return

        self._describe = describe
        threading.Thread(target=work, name="beat", daemon=True).start()

    def _beat(self) -> None:
        if self._describe is not None:
            self.message(type="beat", **self._describe())

    def close(self) -> None:
        self._ended.set()
        with self._lock:
            self.connection.close()


def connect_control(endpoint: Endpoint, identity: Identity, *, local: bool = True, **hello: Any) -> Control:
    """Call the coordinator and say who this is; over TLS if it is on another machine, or unless `local`. Raises
    LinkError."""
    near = connect_local(endpoint) if local else None
    if near is not None:
        control = Control(Connection(near), local=True)
    else:
        control = Control(Connection(pumped(connect_remote(endpoint, identity))), local=False)
    control.message(type="hello", token=identity.token, **hello)
    return control


def describe_failure(error: BaseException) -> dict[str, str]:
    """What an exception in a part of a job says to the coordinator."""
    if isinstance(error, NonFiniteError):
        reason = "NON_FINITE"
    elif isinstance(error, CorruptionError):
        reason = "SILENT_CORRUPTION"
    else:
        reason = "TRAINING_ERROR"
    text = "".join(traceback.format_exception(error))
    return {"reason": reason, "message": tidy(f"{error}" or type(error).__name__), "traceback": tidy(text)}
