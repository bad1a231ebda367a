"""The service's numbers for Prometheus, in a registry of its own."""

from __future__ import annotations

import asyncio
import platform
import threading
import time
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from chainrule.server.blobs import BlobStore, Usage
from chainrule.server.errors import StoreUnavailableError
from chainrule.server.records import JobState
from chainrule.server.store import Store

CALL_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PREDICTION_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
STREAM_BUCKETS_S = (0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 6 * 3600.0)
LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
LAG_INTERVAL_S = 0.5
"""How often it is measured how late the event loop is."""
USAGE_LIFETIME_S = 60.0
"""How long the sizes of blobs that were counted are told again: it takes a look at each file."""
UNKNOWN_METHOD = "unknown"
"""Label of all calls to methods that there are none of: what a client writes does not become a time series."""


class Metrics:
    """What the service counts by itself. Names of labels and their values are few: methods of the API, gRPC codes, job
    states, causes of recoveries. Safe to use from several threads."""

    def __init__(self, *, kernels: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.calls = Counter(
            "chainrule_grpc_calls", "Calls that have ended, streams too.", ["method", "code"], registry=self.registry
        )
        self.call_seconds = Histogram(
            "chainrule_grpc_call_seconds",
            "Time from a call to its answer, where neither is a stream.",
            ["method"],
            buckets=CALL_BUCKETS_S,
            registry=self.registry,
        )
        self.stream_seconds = Histogram(
            "chainrule_grpc_stream_seconds",
            "How long streams were open.",
            ["method"],
            buckets=STREAM_BUCKETS_S,
            registry=self.registry,
        )
        self.open_streams = Gauge(
            "chainrule_grpc_open_streams", "Streams that are open.", ["method"], registry=self.registry
        )
        self.steps = Counter(
            "chainrule_training_steps",
            "Steps that jobs have reported; those that were computed again count again.",
            registry=self.registry,
        )
        self.examples = Counter("chainrule_training_examples", "Examples of these steps.", registry=self.registry)
        self.recoveries = Counter(
            "chainrule_training_recoveries",
            "What was lost while jobs trained and had to be made up for.",
            ["cause"],
            registry=self.registry,
        )
        self.predictions = Counter(
            "chainrule_predictions", "Examples that predictions were made for.", registry=self.registry
        )
        self.prediction_seconds = Histogram(
            "chainrule_prediction_seconds",
            "Time from a request for a prediction to what came of it, waiting included.",
            buckets=PREDICTION_BUCKETS_S,
            registry=self.registry,
        )
        self.prediction_batch_examples = Histogram(
            "chainrule_prediction_batch_examples",
            "Examples of the batches that predictors have computed.",
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self.predictions_waiting = Gauge(
            "chainrule_predictions_waiting", "Requests that wait for a predictor.", registry=self.registry
        )
        self.predictors_lost = Counter(
            "chainrule_predictors_lost", "Predictors that have ended by themselves.", registry=self.registry
        )
        self.loop_lag_seconds = Histogram(
            "chainrule_event_loop_lag_seconds",
            "How late the event loop of the service was, looked at twice a second.",
            buckets=LAG_BUCKETS_S,
            registry=self.registry,
        )
        build = Info("chainrule_build", "What serves.", registry=self.registry)
        build.info({"version": version("chainrule"), "python": platform.python_version(), "kernels": kernels})

    def ended(self, method: str) -> Callable[[str], Counter]:
        """The counter of calls to a method that have ended with a code, by its name."""
        return cache(lambda code: self.calls.labels(method, code))

    def watch(self, store: Store, blobs: BlobStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Tell of a store and of blobs, too."""
        self.registry.register(_Stored(store, blobs, clock))

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All numbers, in the form that fits an Accept header: OpenMetrics or Prometheus' text; and its content type.
        Blocks: it asks the store."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


async def measure_loop_lag(metrics: Metrics, *, interval_s: float = LAG_INTERVAL_S) -> None:
    """Measure how late the running event loop is, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        metrics.loop_lag_seconds.observe(max(0.0, loop.time() - due_s))


class _Stored(Collector):
    """What the store and the blobs say when they are asked. A store that does not answer says nothing."""

    def __init__(self, store: Store, blobs: BlobStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._lock = threading.Lock()
        self._usage: Usage | None = None
        self._counted_at_s = 0.0

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing yet: what is told is asked for when it is collected."""
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        up = GaugeMetricFamily("chainrule_store_up", "Whether the store answered when it was asked for these numbers.")
        try:
            counts, size_bytes = self._store.count_jobs(), self._store.size_bytes()
        except StoreUnavailableError:
            up.add_metric([], 0)
        else:
            up.add_metric([], 1)
            jobs = GaugeMetricFamily("chainrule_jobs", "Jobs that are stored, by state.", labels=["state"])
            for state in JobState:
                jobs.add_metric([state.value], counts.get(state, 0))
            yield jobs
            queued = counts.get(JobState.QUEUED, 0)
            yield GaugeMetricFamily("chainrule_queue_length", "Jobs that wait for their turn.", value=queued)
            yield GaugeMetricFamily("chainrule_store_size_bytes", "What the store takes.", value=size_bytes)
        yield up
        usage = self._current_usage()
        yield GaugeMetricFamily("chainrule_blobs", "Blobs that are stored.", value=usage.blobs)
        yield GaugeMetricFamily("chainrule_blobs_size_bytes", "What they take.", value=usage.size_bytes)
        yield GaugeMetricFamily(
            "chainrule_uploads_in_progress", "Blobs that are arriving.", value=self._blobs.uploads_in_progress()
        )

    def _current_usage(self) -> Usage:
        with self._lock:
            now_s = self._clock()
            if self._usage is None or now_s - self._counted_at_s >= USAGE_LIFETIME_S:
                self._usage, self._counted_at_s = self._blobs.usage(), now_s
            return self._usage
