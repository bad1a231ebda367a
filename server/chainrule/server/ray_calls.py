"""Calls into Ray from the event loop: in threads of their own, each with a deadline.

Ray's calls block, and while its head is stalled they do not return at all. A call that has missed its deadline keeps
its thread until Ray answers or ends; the threads are few and shared with nothing else, so the rest of the service goes
on, and they are daemons, so the process can end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from chainrule.server.errors import ClusterUnreachableError, OutOfMemoryError

RAY_THREADS = 8
"""Calls into Ray that run at the same time; others wait for their turn, within their deadline."""
CLEAN_UP_TIMEOUT_S = 5.0
"""How long one waits for something to be ended on Ray; after that it is left to happen once Ray answers."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


class StoreFullError(OutOfMemoryError):
    """Ray has no room for an object, neither in memory nor on disk. Unlike an outage, this does not pass by itself."""

    reason = "OBJECT_STORE_FULL"


class RayCalls:
    """Threads that call Ray. They live as long as the process: what Ray starts may end with the thread it was started
    by (on Linux, PR_SET_PDEATHSIG)."""

    def __init__(self, threads: int = RAY_THREADS) -> None:
        self._queue: SimpleQueue[_Call[Any]] = SimpleQueue()
        self._asked: dict[Callable[[], Any], asyncio.Future[Any]] = {}
        for index in range(threads):
            threading.Thread(target=_serve, args=(self._queue,), name=f"ray-call-{index}", daemon=True).start()

    async def ask(self, question: Callable[[], T], *, timeout_s: float) -> T:
        """The answer to a question, which is put once however many ask it at the same time, and not a second time
        before it is answered. Raises ClusterUnreachableError."""
        answer = self._asked.get(question)
        if answer is None:
            answer = asyncio.wrap_future(self._put(_Call(question)))
            self._asked[question] = answer
            answer.add_done_callback(lambda done: self._answered(question, done))
        await asyncio.wait([answer], timeout=timeout_s)  # unlike a timeout, it leaves the question to the others
        if not answer.done():
            raise _no_answer(timeout_s)
        result: T = _unwrap(answer)
        return result

    async def run(self, call: Callable[[], T], *, timeout_s: float, undo: Callable[[T], None] | None = None) -> T:
        """The result of a call. If nobody waits any more when it comes, because the deadline has passed or the caller
        was cancelled, `undo` gets it; a call that has not begun by then is left out. Raises ClusterUnreachableError,
        or StoreFullError."""
        pending = _Call(call, undo)
        answer = asyncio.wrap_future(self._put(pending))
        try:
            await asyncio.wait([answer], timeout=timeout_s)
        except asyncio.CancelledError:
            self._abandon(pending, answer)
            raise
        if not answer.done():
            self._abandon(pending, answer)
            raise _no_answer(timeout_s)
        return _unwrap(answer)

    async def finish(self, what: str, call: Callable[[], None], *, timeout_s: float = CLEAN_UP_TIMEOUT_S) -> None:
        """Do something that must be done, even if nobody waits for it any more. Failure and delay are logged: there is
        nothing that the caller could do about them."""
        answer = asyncio.wrap_future(self._put(_Call(lambda: _persist(what, call))))
        await asyncio.wait([answer], timeout=timeout_s)
        if not answer.done():
            logger.warning("Ray does not answer; once it does: %s", what)

    def wait(self, call: Callable[[], T], *, timeout_s: float) -> T:
        """The result of a call, for those that are not on an event loop. Raises TimeoutError."""
        return self._put(_Call(call)).result(timeout_s)

    def _put(self, call: _Call[T]) -> Future[T]:
        self._queue.put(call)
        return call.answer

    def _answered(self, question: Callable[[], Any], answer: asyncio.Future[Any]) -> None:
        del self._asked[question]
        if not answer.cancelled():
            answer.exception()  # whoever still waits raises it; if nobody does, it is of no interest

    def _abandon(self, call: _Call[T], answer: asyncio.Future[T]) -> None:
        undo = call.abandon()
        if not answer.cancel() and not answer.cancelled():
            answer.exception()  # it came at the last moment, and nobody wants it
        if undo is not None:
            self._queue.put(_Call(undo))


class _Call(Generic[T]):
    """A call that waits for its turn, is made, and may be abandoned by its caller at any time."""

    def __init__(self, call: Callable[[], T], undo: Callable[[T], None] | None = None) -> None:
        self.answer: Future[T] = Future()
        self._call = call
        self._undo = undo
        self._lock = threading.Lock()
        self._abandoned = False

    def make(self) -> None:
        if not self.answer.set_running_or_notify_cancel():
            return
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 — it is raised where the answer is awaited
            self.answer.set_exception(error)
            return
        with self._lock:
            if not self._abandoned:
                self.answer.set_result(result)
                return
        if self._undo is not None:
            _persist("undo what came too late", lambda: self._undo_with(result))

    def abandon(self) -> Callable[[], None] | None:
        """Say that nobody waits any more; returns what is left for the caller to have done, if anything."""
        if self.answer.cancel():  # it has not begun
            return None
        with self._lock:
            if not self.answer.done():
                self._abandoned = True
                return None
        if self._undo is None or self.answer.exception() is not None:
            return None
        return lambda: _persist("undo what came too late", lambda: self._undo_with(self.answer.result()))

    def _undo_with(self, result: T) -> None:
        assert self._undo is not None
        self._undo(result)


def _serve(queue: SimpleQueue[_Call[Any]]) -> None:
    while True:
        queue.get().make()


def _persist(what: str, call: Callable[[], None]) -> None:
    """Do something however often Ray gives up waiting for its head, which it does after a minute."""
    from ray.exceptions import GetTimeoutError

    while True:
        try:
            call()
        except GetTimeoutError as error:
            logger.debug("Ray does not answer yet: %s (%s)", what, error)
        except Exception:
            logger.warning("Ray refused: %s", what, exc_info=True)
            return
        else:
            return


def _unwrap(answer: asyncio.Future[T]) -> T:
    from ray.exceptions import ObjectStoreFullError, OutOfDiskError, RayError

    try:
        return answer.result()
    except (ObjectStoreFullError, OutOfDiskError) as error:
        what = str(error).strip().splitlines()[0]  # advice about Ray follows
        raise StoreFullError(f"Ray has no room for an object ({type(error).__name__}: {what})") from error
    except (OSError, RayError) as error:
        raise ClusterUnreachableError(f"Ray does not answer ({type(error).__name__}: {error})") from error


def _no_answer(timeout_s: float) -> ClusterUnreachableError:
    return ClusterUnreachableError(f"Ray does not answer within {timeout_s:g} s")
