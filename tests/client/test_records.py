"""What a job has recorded: metrics as arrays, and logs that are followed without gaps."""

import numpy as np
import pytest

from chainrule.client import Client, InvalidInputError, Job, Metrics, Severity
from chainrule.client.records import log_entry_from_message, metric_from_message
from chainrule.v1 import job_pb2
from tests.client.fake_server import BREAK, FakeServer, log_entry, metric


@pytest.fixture
def job(server: FakeServer, client: Client) -> Job:
    server.put_job(name="jobs/1")
    return client.jobs.get("1")


def test_metrics_are_a_sequence_whose_columns_are_arrays(server: FakeServer, job: Job) -> None:
    server.metrics = [metric(i, loss=1 / i) for i in range(1, 6)]
    metrics = job.metrics()
    assert metrics == tuple(map(metric_from_message, server.metrics))
    np.testing.assert_array_equal(metrics.loss, np.array([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]), strict=True)
    for column in (metrics.sequence, metrics.step, metrics.epoch):
        np.testing.assert_array_equal(column, np.arange(1, 6), strict=True)
    np.testing.assert_array_equal(metrics.accuracy, np.full(5, 0.75), strict=True)
    np.testing.assert_array_equal(metrics.num_examples, np.full(5, 64), strict=True)
    assert metrics.time.astype("datetime64[s]").astype(int).tolist() == [1_750_000_000] * 5


def test_a_part_of_the_metrics_has_columns_too(server: FakeServer, job: Job) -> None:
    server.metrics = [metric(i, loss=1 / i) for i in range(1, 6)]
    metrics = job.metrics()
    np.testing.assert_array_equal(metrics[3:].loss, np.array([1 / 4, 1 / 5]), strict=True)
    assert (metrics[-1].sequence, metrics[3:] == tuple(metrics)[3:]) == (5, True)


def test_metrics_come_from_all_pages_and_end_with_one_that_is_not_full(
    server: FakeServer, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that runs has new ones whenever it is asked: its metrics need not come to an end by themselves."""
    monkeypatch.setattr("chainrule.client.job.MAX_RECORDS_PAGE", 2)
    server.metrics = [metric(i) for i in range(1, 6)]
    assert [each.sequence for each in job.metrics()] == [1, 2, 3, 4, 5]
    assert [request.after_sequence for request in server.requests("ListMetrics")] == [0, 2, 4]


def test_no_metrics_are_empty_arrays(job: Job) -> None:
    metrics = job.metrics()
    assert isinstance(metrics, Metrics)
    np.testing.assert_array_equal(metrics.loss, np.zeros(0), strict=True)
    np.testing.assert_array_equal(metrics.time, np.zeros(0, "datetime64[us]"), strict=True)


def test_logs_come_from_all_pages(server: FakeServer, job: Job) -> None:
    server.logs = [log_entry(i, f"line {i}") for i in (1, 2, 5, 6, 9)]
    entries = list(job.logs())
    assert [(entry.sequence, entry.message) for entry in entries] == [(i, f"line {i}") for i in (1, 2, 5, 6, 9)]
    assert [request.after_sequence for request in server.requests("ListLogs")] == [0, 2, 6]
    assert [entry.sequence for entry in job.logs(after=5)] == [6, 9]
    first = entries[0]
    assert (first.severity, first.source, first.node, first.attempt) == (Severity.INFO, "coordinator", "a1", 1)


def test_logs_are_chosen_by_severity_and_source(server: FakeServer, job: Job) -> None:
    server.logs = [
        log_entry(1, "a", severity="DEBUG"),
        log_entry(2, "b", severity="WARNING", source="worker 1"),
        log_entry(3, "c", severity="ERROR"),
    ]
    assert [entry.message for entry in job.logs(min_severity=Severity.WARNING)] == ["b", "c"]
    assert [entry.message for entry in job.logs(min_severity="warning", source="worker 1")] == ["b"]
    assert [entry.message for entry in job.logs(follow=True, min_severity="ERROR")] == ["c"]
    with pytest.raises(InvalidInputError, match="min_severity is 'LOUD'; it must be one of DEBUG, INFO, WARNING, ERR"):
        list(job.logs(min_severity="LOUD"))


def test_followed_logs_have_neither_gaps_nor_repetitions_after_a_break(server: FakeServer, job: Job) -> None:
    server.take("StreamLogs", job_pb2.StreamLogsResponse(entries=[log_entry(2, "b"), log_entry(7, "c")]), BREAK)
    server.take("StreamLogs", BREAK)
    server.take("StreamLogs", job_pb2.StreamLogsResponse(entries=[log_entry(8, "d")]))
    assert [entry.sequence for entry in job.logs(follow=True, after=1)] == [2, 7, 8]
    assert [request.after_sequence for request in server.requests("StreamLogs")] == [1, 7, 7]


def test_a_severity_of_a_newer_server_is_unknown() -> None:
    assert log_entry_from_message(job_pb2.LogEntry(severity=99)).severity is Severity.UNKNOWN  # type: ignore[arg-type]


def test_metrics_come_from_all_pages(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1")
    server.metrics = [metric(i, loss=1 / i) for i in range(1, 6)]
    metrics = client.jobs.get("1").metrics()
    assert [(m.sequence, m.step, m.loss) for m in metrics] == [(i, i, 1 / i) for i in range(1, 6)]
    assert [m.sequence for m in client.jobs.get("1").metrics(after=3)] == [4, 5]


def test_streamed_metrics_have_neither_gaps_nor_repetitions_after_a_break(server: FakeServer, client: Client) -> None:
    server.put_job(name="jobs/1")
    server.take("StreamMetrics", job_pb2.StreamMetricsResponse(metrics=[metric(2), metric(3)]), BREAK)
    server.take("StreamMetrics", BREAK)
    server.take("StreamMetrics", job_pb2.StreamMetricsResponse(metrics=[metric(4)]))
    assert [m.sequence for m in client.jobs.get("1").stream_metrics(after=1)] == [2, 3, 4]
    assert [request.after_sequence for request in server.requests("StreamMetrics")] == [1, 3, 3]
