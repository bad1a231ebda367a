"""States that are to be kept: copied between two steps, then digested and handed to the coordinator beside them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from chainrule.server.training import checkpoint
from chainrule.server.training.control import Control
from chainrule.server.training.errors import LinkError
from chainrule.server.training.memory import Segment
from chainrule.server.training.state import TrainingState


class Archive:
    """Keeps states of one partition.

    A checkpoint is packed by the one copy that is taken of the state, into memory that is shared with the coordinator:
    from there it is hashed and written. That memory is used again, since new memory costs more than the copy, once a
    later checkpoint is stored: until then the coordinator may begin again from this one.
    """

    def __init__(self, control: Control, name: str, index: int) -> None:
        self._control = control
        self._name = name
        self._index = index
        self._free: list[Segment] = []
        self._handed: dict[int, Segment] = {}  # to the coordinator, by step
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=2)  # more would pile up states
        self._thread = threading.Thread(target=self._work, name="archive", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, task: Callable[[], None]) -> None:
        """Do something once all that was put before is done."""
        self._tasks.put(task)

    def take(self, state: TrainingState, *, snapshot: bool, receipt: bool) -> None:
        """Copy a state that is about to change; tell the coordinator its digests as a receipt, or hand it over as a
        snapshot, or both. Raises SharedMemoryError."""
        if snapshot:
            size = checkpoint.packed_bytes(state)
            memory = self._memory(size)
            kept = checkpoint.pack_into(state, memory.memory)
        else:
            kept = state.copy()
        if receipt:
            self.put(lambda: self._give_receipt(kept))
        if snapshot:
            self._handed[state.step] = memory
            self.put(lambda: self._hand_over(memory, size, kept.step))

    def stored(self, step: int) -> None:
        """The checkpoint of a step is stored: the memory of those before is free."""
        self._free += [self._handed.pop(before) for before in sorted(self._handed) if before < step]

    def close(self) -> None:
        self._tasks.put(None)
        self._thread.join()
        for memory in (*self._free, *self._handed.values()):
            memory.close()

    def _memory(self, size: int) -> Segment:
        while self._free:
            memory = self._free.pop()
            if memory.size >= size:
                return memory
            memory.close()  # of before the optimizer had a state
        return Segment.make(f"{self._name} snapshot {self._index}", size)

    def _give_receipt(self, state: TrainingState) -> None:
        self._control.message(
            type="receipt",
            index=self._index,
            step=state.step,
            updates=state.updates,
            digests=state.array_digests(),
        )

    def _hand_over(self, memory: Segment, size: int, step: int) -> None:
        self._control.message_with(memory, size, type="snapshot", index=self._index, step=step)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except LinkError:  # the coordinator is gone; the loop sees it too
                continue
            except Exception as error:  # noqa: BLE001 — the coordinator decides what it means
                self._control.failed(error)
