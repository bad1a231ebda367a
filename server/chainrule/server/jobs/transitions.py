"""How a job gets into another state: stored first, then told to those who follow it."""

from __future__ import annotations

import itertools

from chainrule.server.jobs.feed import Feed
from chainrule.server.jobs.patience import until_stored
from chainrule.server.records import Cause, JobFailure, JobState
from chainrule.server.store import Store


class Transitions:
    """Moves one job from state to state. Nothing is done on a transition that is not stored: where the store does not
    answer, it is waited for."""

    def __init__(self, job: str, store: Store, feed: Feed) -> None:
        self._job = job
        self._store = store
        self._feed = feed

    async def move(
        self,
        to: JobState,
        reason: str,
        *,
        cause: Cause,
        failure: JobFailure | None = None,
        weights_digest: str = "",
        weights_step: int = 0,
        running_workers: int = 0,
    ) -> None:
        """Raises IllegalStateError if the state cannot follow the present one: a cancel or a pause came first."""
        tries = itertools.count()

        def transition() -> None:
            self._store.transition(
                self._job,
                to,
                cause=cause,
                reason=reason,
                failure=failure,
                weights_digest=weights_digest,
                weights_step=weights_step,
                running_workers=running_workers,
                repeated=next(tries) > 0,
            )

        await until_stored(f"make {self._job} {to.value}", transition)
        self._feed.ring(self._job)
