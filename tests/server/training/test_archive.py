"""States that are kept beside the steps: what is handed over, and when its memory is used again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from chainrule.server.training import checkpoint
from chainrule.server.training.archive import Archive
from chainrule.server.training.control import Control
from chainrule.server.training.errors import LinkError
from chainrule.server.training.memory import Segment
from chainrule.server.training.state import TrainingState
from tests.server.training.bench import LIMIT_S


class Coordinator(Control):
    """What a partition says to its coordinator, remembered; in place of a line to one."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.given: dict[int, memoryview] = {}
        self.gone = False

    def message(self, **fields: Any) -> None:
        if self.gone:
            raise LinkError("gone")
        self.said.append(fields)

    def message_with(self, memory: Segment, size: int, **fields: Any) -> None:
        self.message(**fields)
        self.given[fields["step"]] = memory.memory[:size]


@pytest.fixture
def coordinator() -> Coordinator:
    return Coordinator()


@pytest.fixture
def archive(coordinator: Coordinator) -> Iterator[Archive]:
    found = Archive(coordinator, "test", 0)
    found.start()
    yield found
    found.close()


def state(step: int, *, updates: int = 1) -> TrainingState:
    values = np.full(1000, step, np.float32)
    return TrainingState(step, {"w": values}, {}, {"momentum_buffer": {"w": values + 1}} if updates else {}, updates)


def settle(archive: Archive) -> None:
    """Wait until it has done what it was given."""
    done = threading.Event()
    archive.put(done.set)
    assert done.wait(LIMIT_S)


def content(coordinator: Coordinator, step: int) -> int:
    """The step that the memory of a step's snapshot holds by now."""
    return checkpoint.unpacked(coordinator.given[step]).step


def test_a_snapshot_is_the_packed_state_as_it_was_when_it_was_taken(coordinator: Coordinator, archive: Archive) -> None:
    given = state(3)
    expected, digests = checkpoint.pack(given), given.array_digests()
    archive.take(given, snapshot=True, receipt=True)
    given.parameters["w"][:] = 0
    settle(archive)
    assert coordinator.given[3] == expected
    assert coordinator.said == [
        {"type": "receipt", "index": 0, "step": 3, "updates": 1, "digests": digests},
        {"type": "snapshot", "index": 0, "step": 3},
    ]


def test_a_receipt_is_of_the_state_as_it_was_when_it_was_taken(coordinator: Coordinator, archive: Archive) -> None:
    given = state(3)
    digests = given.array_digests()
    archive.take(given, snapshot=False, receipt=True)
    given.parameters["w"][:] = 0
    settle(archive)
    assert [message["digests"] for message in coordinator.said] == [digests]


def test_memory_is_used_again_once_a_later_checkpoint_is_stored(coordinator: Coordinator, archive: Archive) -> None:
    for step in range(1, 7):
        archive.take(state(step), snapshot=True, receipt=False)
        archive.stored(step)
    settle(archive)
    assert [content(coordinator, step) for step in range(1, 7)] == [5, 6, 5, 6, 5, 6]


def test_memory_of_what_is_not_stored_is_left_alone(coordinator: Coordinator, archive: Archive) -> None:
    """A pause takes one without waiting; the coordinator may begin again from any of them meanwhile."""
    for step in (1, 2):
        archive.take(state(step), snapshot=True, receipt=False)
    archive.stored(1)
    for step in (3, 4):
        archive.take(state(step), snapshot=True, receipt=False)
    settle(archive)
    assert [content(coordinator, step) for step in (1, 2, 3, 4)] == [1, 2, 3, 4]


def test_memory_that_has_become_too_small_is_not_used_again(coordinator: Coordinator, archive: Archive) -> None:
    """The optimizer has no state before its first update."""
    for step in (1, 2, 3, 4):
        archive.take(state(step, updates=step > 2), snapshot=True, receipt=False)
        archive.stored(step)
    settle(archive)
    assert [content(coordinator, step) for step in (1, 2, 3, 4)] == [1, 2, 3, 4]


def test_a_coordinator_that_is_gone_ends_nothing(coordinator: Coordinator, archive: Archive) -> None:
    coordinator.gone = True
    archive.take(state(1), snapshot=True, receipt=True)
    settle(archive)
    coordinator.gone = False
    archive.take(state(2), snapshot=True, receipt=False)
    archive.put(lambda: coordinator.message(type="done"))
    settle(archive)
    assert [message["type"] for message in coordinator.said] == ["snapshot", "done"]
