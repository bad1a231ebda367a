"""What lines of the log have: of the call and the job that they belong to, and in which form."""

from __future__ import annotations

import asyncio
import contextvars
import io
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from chainrule.server import logs


@pytest.fixture
def log() -> tuple[logging.Logger, io.StringIO]:
    """A logger that writes JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    handler.addFilter(logs.SubjectFilter())
    logger = logging.Logger("chainrule.test")
    logger.addHandler(handler)
    return logger, stream


def apart(function: Callable[[], None]) -> None:
    contextvars.copy_context().run(function)


def test_a_record_is_an_object_on_one_line(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = log
    logger.warning("two\nlines, %d", 2)
    [line] = stream.getvalue().splitlines()
    found = json.loads(line)
    time = found.pop("time")
    assert time.endswith("Z")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()) < 60
    assert found == {"level": "WARNING", "logger": "chainrule.test", "message": "two\nlines, 2"}


def test_a_record_has_the_call_and_the_job_it_belongs_to(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = log

    def call() -> None:
        assert logs.begin_call("JobService/GetJob", "abc-1") == "abc-1"
        logs.set_job("jobs/x")
        logger.info("hello")

    apart(call)
    logger.info("and nothing of it afterwards")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["request_id"], first["method"], first["job"]) == ("abc-1", "JobService/GetJob", "jobs/x")
    assert {"request_id", "method", "job"}.isdisjoint(second)


async def test_what_a_call_has_done_in_threads_and_tasks_has_it_too(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = log

    async def task() -> None:
        await asyncio.to_thread(logger.info, "in a thread")

    async def call(request_id: str) -> None:
        logs.begin_call("m", request_id)
        await asyncio.create_task(task())

    await asyncio.gather(*(asyncio.create_task(call(f"id{i}")) for i in range(3)))
    found = [json.loads(line)["request_id"] for line in stream.getvalue().splitlines()]
    assert sorted(found) == ["id0", "id1", "id2"]


@pytest.mark.parametrize("given", [None, "", "a b", "x\n", 'a"', "-x", "x" * 129, b"bytes", "ü"])
def test_an_id_that_is_not_well_formed_is_replaced(given: str | bytes | None) -> None:
    drawn: list[str] = []
    apart(lambda: drawn.append(logs.begin_call("m", given)))
    apart(lambda: drawn.append(logs.begin_call("m", given)))
    assert drawn[0] != drawn[1]
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in drawn)


def test_a_traceback_is_in_the_object(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = log
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("failed")
    found = json.loads(stream.getvalue())
    assert found["message"] == "failed"
    assert found["exception"].startswith("Traceback")
    assert found["exception"].endswith("ValueError: no")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_is_set_up_in_either_form(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    stream = io.StringIO()
    logs.set_up("json" if form == "json" else "text", verbose=False, stream=stream)

    def call() -> None:
        logs.begin_call("m", "id7")
        logging.getLogger("chainrule.x").info("hello")
        logging.getLogger("chainrule.x").debug("not this")

    apart(call)
    [line] = stream.getvalue().splitlines()
    if form == "json":
        assert json.loads(line)["request_id"] == "id7"
    else:
        assert line.endswith("INFO    chainrule.x: hello [id7]")
