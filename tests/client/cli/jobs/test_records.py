"""`chainrule jobs events`, `checkpoints` and `receipts`: what is recorded of a job."""

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from chainrule.v1 import job_pb2
from tests.client.fake_server import NOW, FakeServer, chained

Run = Callable[..., Result]
RunJson = Callable[..., Any]


@pytest.fixture(autouse=True)
def recorded(server: FakeServer) -> None:
    """A job with a record."""
    server.put_job(
        name="jobs/1",
        events=[
            job_pb2.JobEvent(kind="scaled", message="from 1 to 2 workers", step=3, time=NOW),
            job_pb2.JobEvent(kind="recovery", message="worker 1 is gone", step=5, seconds_lost=1.25, time=NOW),
        ],
    )
    server.receipts["jobs/1"] = chained({10: "a" * 64, 20: "b" * 64, 30: "c" * 64})
    server.checkpoints = [
        job_pb2.Checkpoint(step=10 * i, epoch=i, digest=f"{i}" * 64, size_bytes=1536, create_time=NOW, is_best=i == 1)
        for i in (1, 2, 3)
    ]


def test_events_are_rows_oldest_first(run: Run, run_json: RunJson) -> None:
    header, first, second = run("jobs", "events", "1").stdout.splitlines()
    assert header.split() == ["TIME", "STEP", "KIND", "LOST", "WHAT"]
    assert first.split()[2:] == ["3", "scaled", "-", "from", "1", "to", "2", "workers"]
    assert second.split()[2:] == ["5", "recovery", "1.2", "s", "worker", "1", "is", "gone"]
    assert [event["seconds_lost"] for event in run_json("jobs", "events", "1")] == [0.0, 1.25]


def test_events_may_be_chosen_by_kind(run_json: RunJson) -> None:
    assert [event["step"] for event in run_json("jobs", "events", "1", "--kind", "recovery")] == [5]
    assert len(run_json("jobs", "events", "1", "--kind", "recovery", "--kind", "scaled")) == 2
    assert run_json("jobs", "events", "1", "--kind", "corruption") == []


def test_checkpoints_are_rows_newest_first(run: Run, run_json: RunJson) -> None:
    header, *rows = run("jobs", "checkpoints", "1").stdout.splitlines()
    assert header.split() == ["STEP", "EPOCH", "BEST", "SIZE", "SHA256", "CREATED"]
    assert [row.split()[:3] for row in rows] == [["30", "3", "-"], ["20", "2", "-"], ["10", "1", "best"]]
    assert "1.5 KiB  333333333333  2025-06-15" in rows[0]
    assert [c["digest"] for c in run_json("jobs", "checkpoints", "1", "--limit", "1")] == ["3" * 64]


def test_receipts_are_rows_in_the_order_of_their_steps(run: Run, run_json: RunJson, server: FakeServer) -> None:
    header, *rows = run("jobs", "receipts", "1").stdout.splitlines()
    assert header.split() == ["STEP", "STATE", "SHA256", "CHAIN"]
    chains = [receipt.chain_digest for receipt in server.receipts["jobs/1"]]
    assert [row.split() for row in rows] == [
        ["10", "a" * 64, chains[0][:12]],
        ["20", "b" * 64, chains[1][:12]],
        ["30", "c" * 64, chains[2][:12]],
    ]
    assert [r["chain_digest"] for r in run_json("jobs", "receipts", "1", "--after", "10")] == chains[1:]
