"""The service's log: what of a call or a job each record carries, and its two forms, text and lines of JSON."""

from __future__ import annotations

import json
import logging
import random
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, Literal, NamedTuple

REQUEST_ID = "x-request-id"
"""Metadata of a call, and of its answer: what the call has in logs."""

_WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")
_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class Subject(NamedTuple):
    """What is being done. Empty: not known, or nothing in particular."""

    request_id: str = ""
    method: str = ""
    """Of the call, as JobService/GetJob."""
    job: str = ""
    """Resource name."""


_NOTHING = Subject()
_ids = random.Random()  # nothing is kept secret by an id, and this asks the system for nothing
_current: ContextVar[Subject] = ContextVar("subject", default=_NOTHING)


def begin_call(method: str, request_id: str | bytes | None, *, job: str = "") -> str:
    """Have what is logged from here on, in this context, carry a call. Returns the call's id: the one that came with
    it, if it is well formed, else one that is drawn."""
    if not isinstance(request_id, str) or not _WELL_FORMED.fullmatch(request_id):
        request_id = f"{_ids.getrandbits(64):016x}"
    _current.set(Subject(request_id, method, job))
    return request_id


def set_job(job: str) -> None:
    """Have what is logged from here on, in this context, carry a job."""
    _current.set(_current.get()._replace(job=job))


class SubjectFilter(logging.Filter):
    """Adds to each record what is being done, as its attributes `request_id`, `method` and `job`."""

    def filter(self, record: logging.LogRecord) -> bool:
        now = _current.get()
        record.request_id, record.method, record.job = now.request_id, now.method, now.job
        return True


class TextFormatter(logging.Formatter):
    """A line for people, with the id of the call that it belongs to."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 — logging's
        text = super().formatMessage(record)
        request_id = getattr(record, "request_id", "")
        return f"{text} [{request_id}]" if request_id else text


class JsonFormatter(logging.Formatter):
    """A record as one JSON object on one line: time (ISO 8601, UTC), level, logger and message; job, request_id and
    method where there are such; exception, the traceback, if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("job", "request_id", "method"):
            if value := getattr(record, name, ""):
                line[name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up(form: Literal["text", "json"], *, verbose: bool, stream: IO[str] | None = None) -> None:
    """Log to a stream, stderr by default, in one of the forms."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(SubjectFilter())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
