"""What a process of a job logs, on its way to the service: bounded in memory, size and rate, and never waited for."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

MAX_MESSAGE_CHARS = 8192
"""Longest message; of a longer one the middle is left out."""
MAX_WAITING = 1000
"""Most entries that wait to be sent; then the oldest are dropped, and how many is said."""
MAX_SENT = 50
"""Most entries that are sent at a time."""
MAX_SENT_CHARS = 65_536
"""About how many characters are sent at a time."""

_FORMAT = logging.Formatter("%(message)s")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LogEntry:
    """What was logged once."""

    time_us: int
    """When, in microseconds since 1970 UTC."""
    severity: int
    """As the numbers of `logging`."""
    message: str
    source: str = ""
    """Who says it: "coordinator", "worker 3"."""
    node: str = ""
    """Ray's id of the node it ran on."""


def entry_of(record: logging.LogRecord, *, about: str = "", source: str = "", node: str = "") -> LogEntry:
    """A record of `logging` as an entry; a message that begins with the job it is about needs not say so."""
    message = _FORMAT.format(record).removeprefix(f"{about}: ")
    return LogEntry(round(record.created * 1e6), record.levelno, tidy(message), source, node)


def tidy(message: str) -> str:
    """A message that is short enough, and that JSON and every database take: without zeros and half characters."""
    if (left_out := len(message) - MAX_MESSAGE_CHARS) > 0:
        half = MAX_MESSAGE_CHARS // 2
        message = f"{message[:half]}\n[{left_out:,} characters are left out here]\n{message[-half:]}"
    return message.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


class LogBuffer(logging.Handler):
    """Entries that wait to be sent. For use from several threads.

    Args:
        about: The job that the records of this process are about.
        source, node: Of the entries that are made of records.
    """

    def __init__(self, *, about: str, source: str = "", node: str = "", capacity: int = MAX_WAITING) -> None:
        super().__init__(logging.INFO)
        self._facts = {"about": about, "source": source, "node": node}
        self._waiting: deque[LogEntry] = deque()
        self._capacity = capacity
        self._dropped = 0
        self._guard = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is logged; a record that cannot be formatted is reported as `logging` does."""
        try:
            entry = entry_of(record, **self._facts)
        except Exception:  # noqa: BLE001 — who logs is not to fail by it
            self.handleError(record)
        else:
            self.add(entry)

    def add(self, entry: LogEntry) -> None:
        """Keep an entry, and drop the oldest if there are too many."""
        with self._guard:
            self._waiting.append(entry)
            if len(self._waiting) > self._capacity:
                self._waiting.popleft()
                self._dropped += 1

    def take(self) -> tuple[LogEntry, ...]:
        """The oldest entries, as many as may be sent at a time."""
        taken: list[LogEntry] = []
        chars = 0
        with self._guard:
            if self._dropped:
                text = f"{self._dropped:,} older messages were dropped: more was logged than is sent at a time"
                taken.append(
                    LogEntry(
                        self._waiting[0].time_us, logging.WARNING, text, self._facts["source"], self._facts["node"]
                    )
                )
                self._dropped = 0
            while self._waiting and len(taken) < MAX_SENT and chars < MAX_SENT_CHARS:
                taken.append(self._waiting.popleft())
                chars += len(taken[-1].message)
        return tuple(taken)


@contextmanager
def collected(buffer: logging.Handler) -> Iterator[None]:
    """Have a handler hear what chainrule logs in this process at INFO and above, Python's warnings, and what ends its
    threads."""
    ours = logging.getLogger("chainrule")
    level, hook = ours.level, threading.excepthook
    loggers = (ours, logging.getLogger("py.warnings"))

    def failed(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_value is not None:
            name = "a thread" if ended.thread is None else f"thread {ended.thread.name}"
            logger.error("%s failed", name, exc_info=ended.exc_value)
        hook(ended)

    for each in loggers:
        each.addHandler(buffer)
    if not ours.isEnabledFor(logging.INFO):
        ours.setLevel(logging.INFO)
    logging.captureWarnings(True)
    threading.excepthook = failed
    try:
        yield
    finally:
        threading.excepthook = hook
        logging.captureWarnings(False)
        ours.setLevel(level)
        for each in loggers:
            each.removeHandler(buffer)


# --- on a line -------------------------------------------------------------------------------------------------


def to_values(entries: Sequence[LogEntry]) -> list[list[int | str]]:
    """Entries as a part says them to its coordinator, who knows whose they are."""
    return [[entry.time_us, entry.severity, entry.message] for entry in entries]


def from_values(values: Sequence[Sequence[object]], *, source: str, node: str) -> list[LogEntry]:
    """What a part has said. Raises ValueError if it is not that."""
    return [
        LogEntry(int(str(time_us)), int(str(severity)), tidy(str(message)), source, node)
        for time_us, severity, message in values[: MAX_SENT + 1]
    ]
