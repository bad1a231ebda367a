"""What a part tells its coordinator of what it logs."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest

from chainrule.server.training.control import Control
from chainrule.server.training.errors import LinkError
from chainrule.server.training.logs import MAX_SENT, MAX_WAITING
from chainrule.server.training.wire import Connection

LOGGER = logging.getLogger("chainrule.server.test")


class Line:
    """A connection that keeps what is said, until it is cut."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.is_cut = False

    def message(self, **fields: Any) -> None:
        if self.is_cut:
            raise LinkError("the coordinator is gone")
        self.said.append(fields)

    @property
    def told(self) -> list[str]:
        """The messages of the log, in order."""
        return [text for each in self.said if each["type"] == "logs" for _, _, text in each["entries"]]


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def control(line: Line) -> Control:
    return Control(cast(Connection, line), local=True)


def test_after_a_burst_the_reason_is_told_before_the_failure(line: Line, control: Control) -> None:
    with control.telling("jobs/a", "n"):
        for number in range(6 * MAX_SENT):
            LOGGER.warning("message %d", number)
        control.failed(ValueError("on purpose"))
        *others, reason = line.told
        assert others == [f"message {number}" for number in range(6 * MAX_SENT)]
        assert reason.startswith("this process fails")
        assert reason.endswith("ValueError: on purpose")
        assert line.said[-1]["type"] == "failed"


def test_all_that_was_logged_is_told_in_the_end(line: Line, control: Control) -> None:
    with control.telling("jobs/a", "n"):
        for number in range(3 * MAX_SENT):
            LOGGER.warning("message %d", number)
    assert line.told == [f"message {number}" for number in range(3 * MAX_SENT)]


def test_who_goes_on_logging_is_not_told_for_ever(
    line: Line, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    say = line.message

    def and_log(**fields: Any) -> None:
        say(**fields)
        LOGGER.warning("another")

    monkeypatch.setattr(line, "message", and_log)
    with control.telling("jobs/a", "n"):
        LOGGER.warning("first")
    assert len(line.said) == MAX_WAITING


def test_a_coordinator_that_is_gone_is_told_nothing(line: Line, control: Control) -> None:
    with control.telling("jobs/a", "n"):
        LOGGER.warning("first")
        line.is_cut = True
        control.failed(ValueError("on purpose"))
    assert line.said == []
