"""What a process logs: what is kept, what is sent at a time, and what is left out."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator

import pytest

from chainrule.server.training import logs
from chainrule.server.training.logs import LogBuffer, LogEntry, collected, from_values, tidy, to_values

LOGGER = logging.getLogger("chainrule.test")


@pytest.fixture
def buffer() -> Iterator[LogBuffer]:
    """Hears what this process logs."""
    buffer = LogBuffer(about="jobs/a", source="worker 1", node="n", capacity=100)
    with collected(buffer):
        yield buffer


def entry(number: int, message: str = "") -> LogEntry:
    return LogEntry(number, logging.INFO, message or f"message {number}")


def told(buffer: LogBuffer) -> list[str]:
    return [found.message for found in buffer.take()]


def test_a_record_becomes_an_entry_without_the_job_it_is_about(buffer: LogBuffer) -> None:
    LOGGER.warning("%s: lost %d", "jobs/a", 3)
    LOGGER.info("%s: else", "jobs/b")
    first, second = buffer.take()
    assert (first.message, first.severity, first.source, first.node) == ("lost 3", logging.WARNING, "worker 1", "n")
    assert second.message == "jobs/b: else"
    assert buffer.take() == ()


def test_an_exception_is_told_with_its_traceback(buffer: LogBuffer) -> None:
    try:
        raise ValueError("on purpose")
    except ValueError:
        LOGGER.exception("it failed")
    [message] = told(buffer)
    assert message.startswith("it failed\nTraceback")
    assert message.endswith("ValueError: on purpose")


def test_debug_messages_and_those_of_others_are_not_told(buffer: LogBuffer) -> None:
    LOGGER.debug("in detail")
    logging.getLogger("ray").error("not ours")
    assert buffer.take() == ()


def test_a_process_that_logs_warnings_only_tells_what_happens_too() -> None:
    ours = logging.getLogger("chainrule")
    level = ours.level
    ours.setLevel(logging.ERROR)
    try:
        buffer = LogBuffer(about="")
        with collected(buffer):
            LOGGER.info("heard")
        LOGGER.info("not heard any more")
        assert ours.level == logging.ERROR
    finally:
        ours.setLevel(level)
    assert told(buffer) == ["heard"]


def test_warnings_of_python_are_told(buffer: LogBuffer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)  # what pytest hears is ours here
        logging.captureWarnings(True)
        warnings.warn("overflow in exp", RuntimeWarning, stacklevel=1)
    [found] = buffer.take()
    assert found.severity == logging.WARNING
    assert "RuntimeWarning: overflow in exp" in found.message


def test_what_ends_a_thread_is_told(buffer: LogBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("on purpose")

    heard: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", heard.append)
    inner = LogBuffer(about="")
    with collected(inner):
        thread = threading.Thread(target=fail, name="archive")
        thread.start()
        thread.join()
    [message] = told(inner)
    assert message.startswith("thread archive failed\nTraceback")
    assert len(heard) == 1


def test_a_record_that_cannot_be_formatted_does_not_fail_who_logs(
    buffer: LogBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    LOGGER.info("%d", "no number")
    LOGGER.info("goes on")
    assert told(buffer) == ["goes on"]


def test_the_oldest_are_dropped_and_counted() -> None:
    buffer = LogBuffer(about="", source="s", capacity=3)
    for number in range(5):
        buffer.add(entry(number))
    first, *rest = buffer.take()
    assert first == LogEntry(
        2, logging.WARNING, "2 older messages were dropped: more was logged than is sent at a time", "s", ""
    )
    assert rest == [entry(2), entry(3), entry(4)]
    buffer.add(entry(5))
    assert buffer.take() == (entry(5),)


def test_no_more_are_sent_at_a_time_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_SENT", 2)
    monkeypatch.setattr(logs, "MAX_SENT_CHARS", 20)
    buffer = LogBuffer(about="")
    entries = [entry(0), entry(1), entry(2, "x" * 30), entry(3)]
    for each in entries:
        buffer.add(each)
    assert [buffer.take() for _ in range(4)] == [tuple(entries[:2]), (entries[2],), (entries[3],), ()]


def test_the_middle_of_a_long_message_is_left_out() -> None:
    found = tidy("a" * 10_000 + "b" * 10_000)
    assert found == "a" * 4096 + "\n[11,808 characters are left out here]\n" + "b" * 4096
    assert tidy("c" * 8192) == "c" * 8192


def test_what_no_database_takes_is_replaced() -> None:
    assert tidy("a\0b\ud800c") == "a\N{REPLACEMENT CHARACTER}b?c"


def test_entries_come_over_a_line() -> None:
    sent = to_values([entry(1), LogEntry(2, logging.ERROR, "é\n")])
    assert from_values(sent, source="worker 2", node="n") == [
        LogEntry(1, logging.INFO, "message 1", "worker 2", "n"),
        LogEntry(2, logging.ERROR, "é\n", "worker 2", "n"),
    ]


@pytest.mark.parametrize("values", [[[1, 2]], [["x", 20, ""]], [[1, None, ""]]])
def test_entries_that_are_none_are_refused(values: list[list[object]]) -> None:
    with pytest.raises(ValueError):
        from_values(values, source="", node="")
