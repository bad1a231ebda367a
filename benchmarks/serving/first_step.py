"""How long a job takes from its submission to the end of its first step."""

from __future__ import annotations

import time
from datetime import datetime

from benchmarks.serving.goals import Figure, Goal
from benchmarks.serving.servers import Server
from benchmarks.serving.works import prepared
from chainrule.client import Client
from chainrule.v1 import job_pb2, job_pb2_grpc

GOALS = (Goal("first-step", "submit to first step, warm service", "s", 1.0),)
SETTLE_S = 10.0
"""Pause before each job, in which the service starts processes in place of those that the job before has used up."""
WORKERS = 2


def measure(server: Server, *, rounds: int) -> list[Figure]:
    """Submit jobs one after the other; a first one, which is not counted, makes the service warm."""
    seconds: list[float] = []
    details: list[str] = []
    with Client.connect(server.address) as client:
        work = prepared(client, hidden=256, examples=2048, batch_size=64, workers=WORKERS, epochs=4)
        for number in range(rounds + 1):
            time.sleep(SETTLE_S)
            began_s = time.time()
            job = client.jobs.create(**work)
            first = next(iter(job.stream_metrics(timeout_s=120.0)))
            seen_s = time.time()
            done_s = first.time.timestamp()
            job.wait(timeout_s=120.0)
            if number:
                seconds.append(done_s - began_s)
                details.append(_phases(server, job.name, began_s, done_s, seen_s))
    return [Figure(GOALS[0], tuple(seconds), tuple(details))]


def _phases(server: Server, job: str, began_s: float, done_s: float, seen_s: float) -> str:
    """When what happened, in seconds after the submission: from the job's history and from its logs."""
    import grpc

    with grpc.insecure_channel(server.address) as channel:
        jobs = job_pb2_grpc.JobServiceStub(channel)
        history = jobs.GetJob(job_pb2.GetJobRequest(name=job)).history
        entries = jobs.ListLogs(job_pb2.ListLogsRequest(name=job)).entries
    moments = [(_seconds(change.time), job_pb2.Job.State.Name(change.state)) for change in history[:3]]
    said: dict[str, float] = {}
    for entry in entries:
        for word in ("attempt", "starts parameter server", "trained parameters", "ready", "linked"):
            if word in entry.message:
                said[word] = _seconds(entry.time)  # the last of them
    moments += [(at_s, word) for word, at_s in said.items()]
    moments += [(done_s, "first step done"), (seen_s, "seen by the client")]
    return ", ".join(f"{at_s - began_s:.2f} {what}" for at_s, what in sorted(moments))


def _seconds(time: object) -> float:
    found: datetime = time.ToDatetime()  # type: ignore[attr-defined]
    return (found - datetime(1970, 1, 1)).total_seconds()
