"""Predictors without processes: one that computes here, and one that does what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from chainrule.server.blobs import BlobStore
from chainrule.server.predictions.batching import Limits
from chainrule.server.predictions.dispatch import Predictions
from chainrule.server.predictions.messages import (
    Asked,
    Predicted,
    Result,
    pack_answered,
    pack_batch,
    unpack_answered,
    unpack_batch,
)
from chainrule.server.predictions.network import NetworkSpec
from chainrule.server.predictions.predictor import Predictor, PredictorSettings
from chainrule.server.predictions.process import Done, LostPredictorError, PredictorLike
from chainrule.server.predictions.versions import ServedVersions
from chainrule.server.store import Store
from chainrule.server.telemetry.metrics import Metrics

SETTINGS = PredictorSettings(memory_bytes=10**9, max_rows=32)


class PredictorHere:
    """Computes in this process, at once."""

    def __init__(self) -> None:
        self._predictor = Predictor(SETTINGS)
        self.held: frozenset[str] = frozenset()

    def submit(self, network: NetworkSpec, requests: Sequence[Asked], done: Done) -> None:
        batch = unpack_batch(pack_batch(network, requests, is_held=network.key in self.held))
        answered = unpack_answered(pack_answered(self._predictor.answer(batch)))
        if answered.held is not None:
            self.held = answered.held
        asyncio.get_running_loop().call_soon(done, answered.results)

    async def close(self) -> None:
        pass


def predictions_here(store: Store, blobs: BlobStore) -> Predictions:
    """Predictions that are computed in this process."""

    async def start(_when_lost: Callable[[PredictorLike], None]) -> PredictorLike:
        return PredictorHere()

    return Predictions(ServedVersions(store, blobs), most=1, start=start, metrics=Metrics(kernels="reference"))


class Scripted:
    """A predictor that begins a batch when it is handed one, and is done with it when the test says so."""

    def __init__(self, when_lost: Callable[[PredictorLike], None], held: frozenset[str] = frozenset()) -> None:
        self._when_lost = when_lost
        self.held = held
        self.closed = False
        self.batch: tuple[NetworkSpec, tuple[Asked, ...]] | None = None
        """What it computes."""
        self._done: Done | None = None

    def submit(self, network: NetworkSpec, requests: Sequence[Asked], done: Done) -> None:
        assert self.batch is None
        self.batch = network, tuple(requests)
        self._done = done

    async def close(self) -> None:
        self.closed = True

    @property
    def rows(self) -> int:
        """How many examples it computes; 0: it has nothing to do."""
        return 0 if self.batch is None else sum(asked.rows for asked in self.batch[1])

    def finish(self) -> None:
        """Be done: the outputs are the inputs."""
        assert self.batch is not None
        self.answer(*(Predicted(asked.inputs) for asked in self.batch[1]))

    def answer(self, *results: Result) -> None:
        """Be done with this."""
        self._tell(results)

    def die(self) -> None:
        """End as a process that is killed."""
        if self.batch is None:
            self._when_lost(self)
        else:
            self._tell(LostPredictorError("killed"))

    def _tell(self, outcome: tuple[Result, ...] | LostPredictorError) -> None:
        assert self._done is not None
        self.batch = None
        self._done(outcome)


class Crew:
    """Starts scripted predictors, when the test lets it.

    Args:
        fails: how many starts fail at first.
    """

    def __init__(self, *, fails: int = 0) -> None:
        self.fails = fails
        self.starts = 0
        self.made: list[Scripted] = []
        self.started = asyncio.Event()
        """Set whenever one has started."""

    async def start(self, when_lost: Callable[[PredictorLike], None]) -> PredictorLike:
        self.starts += 1
        if self.fails:
            self.fails -= 1
            raise LostPredictorError("no such program")
        self.made.append(Scripted(when_lost))
        self.started.set()
        return self.made[-1]

    @property
    def last(self) -> Scripted:
        """The one that was started last."""
        return self.made[-1]


async def settled() -> None:
    """Let the loop do all that it can do by itself."""
    for _ in range(10):
        await asyncio.sleep(0)


LIMITS = Limits(max_rows=4)
