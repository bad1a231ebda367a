"""How long a job has been in its states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from chainrule.server.records import JobState, StateChange

_S = JobState
_PARTS: Mapping[JobState, str] = {
    _S.QUEUED: "queued_s",
    _S.PREPARING: "preparing_s",
    _S.RUNNING: "running_s",
    _S.RECOVERING: "recovering_s",
    _S.PAUSING: "paused_s",
    _S.PAUSED: "paused_s",
    _S.FINALIZING: "ending_s",
    _S.CANCELLING: "ending_s",
}
"""Where the time in a state counts; that after the end counts nowhere."""


@dataclass(frozen=True)
class Timings:
    """Seconds that a job has been in its states."""

    queued_s: float = 0.0
    preparing_s: float = 0.0
    running_s: float = 0.0
    recovering_s: float = 0.0
    paused_s: float = 0.0
    """PAUSING and PAUSED."""
    ending_s: float = 0.0
    """FINALIZING and CANCELLING."""


def timings(history: Sequence[StateChange], *, now: datetime) -> Timings:
    """The time in each state up to the end, or up to now if the job has not ended. A clock that was set back between
    two changes counts as standing still."""
    spent: dict[str, float] = {}
    ends = [*(after.time for _, after in pairwise(history)), now]
    for change, end in zip(history, ends, strict=False):  # no history, no time
        if (part := _PARTS.get(change.state)) is not None:
            spent[part] = spent.get(part, 0.0) + max(0.0, (end - change.time).total_seconds())
    return Timings(**spent)
