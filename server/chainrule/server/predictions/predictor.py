"""The predictor: a process that computes batches for the service, one after the other, and ends when that does."""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
from dataclasses import asdict, dataclass

import chainrule.engine as cr
from chainrule.server.predictions.computing import results_of
from chainrule.server.predictions.messages import (
    READY,
    Answered,
    Batch,
    Reason,
    Refused,
    Result,
    pack_answered,
    unpack_batch,
)
from chainrule.server.predictions.network import WeightsError
from chainrule.server.predictions.shelf import Shelf
from chainrule.server.training.errors import LinkError
from chainrule.server.training.wire import MESSAGE, Connection

logger = logging.getLogger("chainrule.server.predictions")


@dataclass(frozen=True)
class PredictorSettings:
    """What a predictor is told at its start."""

    memory_bytes: int
    """Of the weights that it keeps loaded."""
    max_rows: int
    """Most examples of a forward pass."""
    threads: int = 1
    """With which it computes."""
    log_level: int = logging.INFO

    def to_json(self) -> str:
        """As an argument of the process."""
        return json.dumps(asdict(self))


class Predictor:
    """Computes batches with the networks it keeps. Without any socket."""

    def __init__(self, settings: PredictorSettings) -> None:
        self._shelf = Shelf(settings.memory_bytes)
        self._max_rows = settings.max_rows
        self._told: frozenset[str] = frozenset()

    def answer(self, batch: Batch) -> Answered:
        """What comes of a batch; nothing is raised that is the matter of the batch alone."""
        results = self._results(batch)
        held = self._shelf.keys
        if held == self._told:
            return Answered(results, None)
        self._told = held
        return Answered(results, held)

    def _results(self, batch: Batch) -> tuple[Result, ...]:
        try:
            network = self._shelf.get(batch.key, batch.network)
            forward = network.without_preparation if batch.prepared else network
            return results_of(forward, batch.inputs, batch.questions, max_rows=self._max_rows)
        except WeightsError as error:
            refused = Refused(Reason.WEIGHTS, str(error))
        except MemoryError:
            refused = Refused(Reason.MEMORY, "the network needs more memory than the predictor has")
        except Exception as error:  # the next batch is another's
            logger.exception("predicting with %s", batch.network or batch.key)
            refused = Refused(Reason.DEFECT, f"{type(error).__name__}: {error}")
        return (refused,) * len(batch.questions)


def serve(connection: Connection, predictor: Predictor) -> None:
    """Answer what comes over a connection until it ends."""
    try:
        connection.send(MESSAGE, READY)
        while True:
            batch = unpack_batch(connection.next().body)
            connection.send(MESSAGE, pack_answered(predictor.answer(batch)))
    except LinkError:  # the service is gone, or has no more use for this process
        return


def main() -> None:
    """Serve the process at the other end of the socket whose number is the first argument, with the settings that are
    the second."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they are for the service; it closes the socket
    settings = PredictorSettings(**json.loads(sys.argv[2]))
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr
    )
    cr.set_num_threads(settings.threads)
    serve(Connection(socket.socket(fileno=int(sys.argv[1]))), Predictor(settings))
