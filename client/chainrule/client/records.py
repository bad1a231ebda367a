"""What is recorded while a job runs, as frozen values: what its steps measured, and what its processes have logged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from chainrule.client.errors import InvalidInputError
from chainrule.client.wire import accuracy_of, enum_word, moment, values_of
from chainrule.v1 import job_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What one step measured."""

    sequence: int
    """Position among the job's metrics, from 1; with gaps once early ones are no longer kept."""
    step: int
    """Step, from 1."""
    epoch: int
    """Epoch, from 1."""
    loss: float
    """Mean loss over the global batch."""
    accuracy: float | None
    """Share of the global batch that was classified right, from 0 to 1; None where it is not measured."""
    num_examples: int
    """Examples of the global batch."""
    time: datetime
    """When the step was done, in UTC."""
    values: Mapping[str, float] = field(default_factory=dict)
    """All that was measured, by name: the job's metrics, and each of several losses."""


class Metrics(tuple[Metric, ...]):
    """What the steps of a job measured, in their order: a sequence of Metric, whose columns are arrays.

    As in `metrics = job.metrics(); plot(metrics.step, metrics.loss)`; each column has the shape (len(metrics),).
    """

    __slots__ = ()

    @overload
    def __getitem__(self, index: SupportsIndex) -> Metric: ...
    @overload
    def __getitem__(self, index: slice) -> "Metrics": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "Metric | Metrics":
        """One of them, or a part with columns of its own."""
        if isinstance(index, slice):
            return Metrics(super().__getitem__(index))
        return super().__getitem__(index)

    @property
    def sequence(self) -> NDArray[np.int64]:
        """Positions among the job's metrics, from 1."""
        return np.fromiter((metric.sequence for metric in self), np.int64, len(self))

    @property
    def step(self) -> NDArray[np.int64]:
        """Steps, from 1."""
        return np.fromiter((metric.step for metric in self), np.int64, len(self))

    @property
    def epoch(self) -> NDArray[np.int64]:
        """Epochs, from 1."""
        return np.fromiter((metric.epoch for metric in self), np.int64, len(self))

    @property
    def loss(self) -> NDArray[np.float64]:
        """Mean losses over the global batches."""
        return np.fromiter((metric.loss for metric in self), np.float64, len(self))

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Shares of the global batches that were classified right, from 0 to 1; NaN where they are not measured."""
        told = (np.nan if metric.accuracy is None else metric.accuracy for metric in self)
        return np.fromiter(told, np.float64, len(self))

    @property
    def names(self) -> tuple[str, ...]:
        """What is in the values of any of them."""
        return tuple(dict.fromkeys(name for metric in self for name in metric.values))

    def column(self, name: str) -> NDArray[np.float64]:
        """What was measured under a name; NaN where there was nothing to measure.

        Raises:
            InvalidInputError: nothing was measured under it.
        """
        if self and name not in self.names:
            raise InvalidInputError(f"nothing is measured as {name!r}; there is {', '.join(self.names) or 'nothing'}")
        return np.fromiter((metric.values.get(name, np.nan) for metric in self), np.float64, len(self))

    @property
    def num_examples(self) -> NDArray[np.int64]:
        """Examples of the global batches."""
        return np.fromiter((metric.num_examples for metric in self), np.int64, len(self))

    @property
    def time(self) -> NDArray[np.datetime64]:
        """When the steps were done, in UTC, to the microsecond."""
        return np.array([metric.time.replace(tzinfo=None) for metric in self], "datetime64[us]")


class Severity(StrEnum):
    """How much a log entry matters, least first."""

    DEBUG = "DEBUG"
    """For who looks for a defect."""
    INFO = "INFO"
    """What happens."""
    WARNING = "WARNING"
    """What should not be, and is coped with."""
    ERROR = "ERROR"
    """What went wrong."""
    UNKNOWN = "UNKNOWN"
    """One that this version of the client does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """What a process of a job has logged: a line, or several that belong together."""

    sequence: int
    """Position among the job's log entries, from 1; rising, with gaps where entries were not kept."""
    time: datetime
    """When, in UTC."""
    severity: Severity
    """How much it matters."""
    source: str
    """Who says it: "service", "coordinator", "partition 0", "worker 3"."""
    node: str
    """Ray's id of the node it ran on; empty for the service."""
    attempt: int
    """Attempt at the job that it belongs to, from 1."""
    message: str
    """What it says."""


# Translation from the API.


def metric_from_message(metric: job_pb2.Metric) -> Metric:
    """A step's metrics from their message."""
    return Metric(
        sequence=metric.sequence,
        step=metric.step,
        epoch=metric.epoch,
        loss=metric.loss,
        accuracy=accuracy_of(metric),
        num_examples=metric.num_examples,
        time=moment(metric.time),
        values=values_of(metric),
    )


def log_entry_from_message(entry: job_pb2.LogEntry) -> LogEntry:
    """A log entry from its message."""
    severity = enum_word(job_pb2.LogEntry.Severity.DESCRIPTOR, "SEVERITY_", entry.severity)
    return LogEntry(
        sequence=entry.sequence,
        time=moment(entry.time),
        severity=Severity.__members__.get(severity, Severity.UNKNOWN),
        source=entry.source,
        node=entry.node,
        attempt=entry.attempt,
        message=entry.message,
    )


def to_severity(severity: Severity | str | None) -> job_pb2.LogEntry.Severity.ValueType:
    """The API's number of a severity; of None, the one that leaves nothing out.

    Raises:
        InvalidInputError: there is no severity of this name.
    """
    if severity is None:
        return job_pb2.LogEntry.SEVERITY_UNSPECIFIED
    known = [name for name in Severity.__members__ if name != Severity.UNKNOWN]
    if str(severity).upper() not in known:
        raise InvalidInputError(f"min_severity is {severity!r}; it must be one of {', '.join(known)}")
    return job_pb2.LogEntry.Severity.Value(f"SEVERITY_{str(severity).upper()}")
