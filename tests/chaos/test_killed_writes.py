"""The service is killed at every kind of write, before it counts and after: nothing that was acknowledged is lost, no
job runs to two results, states follow each other as they may, and jobs come to the bits they come to undisturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.client import (
    Client,
    DeadlineExceeded,
    FailedPrecondition,
    JobState,
    JobStatus,
    RetryPolicy,
    Settings,
    Unavailable,
)
from chainrule.engine import models
from chainrule.server import records
from chainrule.server.records import TRANSITIONS
from tests.chaos.local_service import SEEN, Moment, Point

T = TypeVar("T")

Points = list[Point]


def both(*writes: str) -> Points:
    """Killed before each of some writes counts and then, when that has been made up for, after it."""
    moments: tuple[Moment, Moment] = ("before", "after")
    return [Point(write, moment) for write in writes for moment in moments]


CHAPTERS: dict[str, Points] = {
    "creating": both("blob", "create_model", "create_dataset", "create_job"),
    "starting": both(
        "transition PREPARING", "next_attempt", "set_fingerprint", "transition RUNNING", "set_running_workers"
    ),
    "training": both("add_metrics", "add_receipt", "add_checkpoint", "add_evaluation", "drop_checkpoints"),
    "steering": both("pause PAUSING", "transition PAUSED", "reconfigure"),
    "cancelling": both("cancel CANCELLING", "transition CANCELLED", "resume QUEUED"),
    "ending": both("transition FAILED", "transition FINALIZING", "transition SUCCEEDED"),
    "changing": both("update_model", "update_dataset", "update_job", "revoke_token", "delete_model", "delete_job"),
    "keeping records": both("grant_blob", "add_audit_entry", "create_token", "add_logs"),
    "starting again": [
        Point("transition RUNNING", "after"),
        *both("transition RECOVERING", "transition QUEUED", "add_event"),
        Point("transition FINALIZING", "after"),
        *both("transition RECOVERING"),
    ],
    "storing": [Point("blob", moment, occurrence) for occurrence in (2, 3, 4) for moment in ("before", "after")],
}
"""Where the service is killed in the course of one story, each time as soon as it has come so far again."""
TIDYING = {"__init__", "drop_grants", "drop_audit_entries", "drop_requests", "drop_tokens", "renew_grants"}
"""Writes that forget what is of no use any more, or keep it for longer."""
QUICK = [Point("create_job", "after"), Point("transition RUNNING", "after"), Point("transition SUCCEEDED", "before")]
CONFIG: dict[str, Any] = {
    "epochs": 6,
    "batch_size": 16,
    "shards": 4,
    "seed": 3,
    "optimizer": {"lr": 0.05, "momentum": 0.9},
    "checkpoint_every_steps": 5,
    "receipt_every_steps": 4,
    "validation": {"fraction": 0.2},
    "keep_checkpoints": 1,
}
"""Of a job of some 18 steps of 50 ms."""
SECRET = "chainrule_" + "s" * 43
WAIT_S = 120.0
SUCCEEDING = ("left alone", "paused", "scaled")
TERMINAL = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
IMPATIENT = Settings(call_timeout_s=20.0, retry=RetryPolicy(window_s=0))


class Server:
    """The service without Ray, which is killed at a point, started again, and killed at the next."""

    def __init__(self, folder: Path, points: Sequence[Point] = (), seen: Path | None = None) -> None:
        self._folder = folder
        self._points = list(points)
        self._environment = {SEEN: str(seen)} if seen else {}
        self._process = self._started()
        self.deaths = 0

    def client(self) -> Client:
        """A client of the server as it runs now; it is started again if it has ended."""
        while not self._address_file.exists():
            if self._process.poll() is not None:
                assert self._process.returncode == -signal.SIGKILL, self.log()
                self.deaths += 1
                self._process = self._started()
            time.sleep(0.02)
        return Client.connect(self._address_file.read_text(), settings=IMPATIENT)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def _address_file(self) -> Path:
        return self._folder / "address"

    def has_ended(self) -> bool:
        """Whether it was killed; what it said of its address is taken back then."""
        if self._process.poll() is None:
            return False
        self._address_file.unlink(missing_ok=True)
        return True

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def _started(self) -> subprocess.Popen[bytes]:
        point = self._points.pop(0) if self._points else None
        self._address_file.unlink(missing_ok=True)
        script = Path(__file__).with_name("local_service.py")
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(script), str(self._folder / "data"), str(self._address_file)],
                env={**os.environ, **self._environment, **(point.environment() if point else {})},
                stdout=log,
                stderr=subprocess.STDOUT,
            )


@dataclass
class Story:
    """What a user does with the service, insisting on it when the service is gone for a while."""

    server: Server
    jobs: dict[str, str] = field(default_factory=dict)
    """Names of the jobs that were acknowledged, by what is done to them."""

    def __post_init__(self) -> None:
        self._client: Client | None = None

    def insist(self, call: Callable[[Client], T]) -> T:
        """The answer of a call, which is made again as long as the service is away."""
        deadline_s = time.monotonic() + WAIT_S
        while True:
            try:
                if self._client is None:
                    self._client = self.server.client()
                return call(self._client)
            except (Unavailable, DeadlineExceeded):
                assert time.monotonic() < deadline_s, self.server.log()
                if self.server.has_ended() and self._client is not None:
                    self._client.close()
                    self._client = None
                time.sleep(0.02)

    def until(self, what: str, condition: Callable[[JobStatus], bool]) -> JobStatus:
        """Wait until something is so of a job."""
        deadline_s = time.monotonic() + WAIT_S
        while not condition(status := self.insist(lambda client: client.jobs.get(self.jobs[what]).status())):
            assert time.monotonic() < deadline_s, f"{what}: {status}\n{self.server.log()}"
            time.sleep(0.02)
        return status

    def submit(self, what: str, **config: Any) -> None:
        request_id = str(uuid.uuid4())
        settings = {**CONFIG, **config}
        self.jobs[what] = self.insist(
            lambda client: client.jobs.create(model="m", dataset="d", request_id=request_id, **settings).name
        )

    def steer(self, what: str, action: Callable[[Client, str], object]) -> None:
        """Ask something of a job; that it has gone beyond that is fine."""

        def call(client: Client) -> None:
            try:
                action(client, self.jobs[what])
            except FailedPrecondition:
                assert has_ended(client.jobs.get(self.jobs[what]).status())

        self.insist(call)

    def play(self) -> dict[str, JobStatus]:
        """The whole of it; returns what became of the jobs."""
        rng = np.random.default_rng(0)
        inputs, targets = rng.normal(size=(60, 1, 8, 8)).astype(np.float32), rng.integers(0, 10, size=60)
        network = models.build("small_cnn", {"width": 4, "dropout": 0.25}, generator=cr.Generator(1))
        self.insist(lambda client: client.models.create("m", network))
        self.insist(lambda client: client.datasets.create("d", inputs=inputs, targets=targets))
        self.insist(lambda client: client.access.create("ci", scopes=["read"], secret=SECRET))
        self.submit("left alone")
        self.submit("paused", workers=2)
        self.submit("cancelled")
        self.submit("failing", optimizer={"lr": 1e30})
        self.submit("scaled", min_workers=1)
        self.until("paused", lambda status: status.progress.step >= 2)
        self.steer("paused", lambda client, name: client.jobs.get(name).pause())
        self.steer("scaled", lambda client, name: client.jobs.get(name).scale(2))
        self.until("cancelled", lambda status: status.state is not JobState.QUEUED)
        self.steer("cancelled", lambda client, name: client.jobs.get(name).cancel())
        self.until("paused", lambda status: status.state is JobState.PAUSED or has_ended(status))
        self.steer("paused", lambda client, name: client.jobs.get(name).resume())
        ended = {what: self.until(what, has_ended) for what in self.jobs}
        self.tidy_up()
        return ended

    def tidy_up(self) -> None:
        """Change and remove what was made."""
        labels = {"team": "vision"}
        self.insist(lambda client: client.models.update("m", labels=labels))
        self.insist(lambda client: client.datasets.update("d", labels=labels))
        self.insist(lambda client: client.jobs.update(self.jobs["left alone"], labels=labels))
        self.insist(lambda client: client.access.revoke("ci"))
        self.insist(lambda client: client.models.create_from_family("unused", "small_cnn", {"width": 2}))
        self.insist(lambda client: client.models.delete("unused", missing_ok=True))
        self.insist(lambda client: client.jobs.delete(self.jobs["cancelled"], missing_ok=True))
        del self.jobs["cancelled"]

    def check_what_is_there(self, digest: str) -> None:
        """Everything that was acknowledged, once, and nothing else."""

        def look(client: Client) -> None:
            labels = {"team": "vision"}
            assert sorted(job.name for job in client.jobs.list()) == sorted(self.jobs.values())
            assert client.jobs.get(self.jobs["left alone"]).status().labels == labels
            assert [(model.name, model.labels) for model in client.models.list()] == [("models/m", labels)]
            assert [(data.name, data.labels) for data in client.datasets.list()] == [("datasets/d", labels)]
            assert [token.revoke_time is not None for token in client.access.list()] == [True]
            made = [version for version in client.models.versions("m") if version.job]
            assert {version.job for version in made} == {self.jobs[what] for what in SUCCEEDING}
            assert [version.weights_digest for version in made] == [digest] * len(SUCCEEDING)

        self.insist(look)


def has_ended(status: JobStatus) -> bool:
    return status.state in TERMINAL


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, set[str]]]:
    """The digest that all jobs come to which nothing is wrong with, and the kinds of writes on the way."""
    folder = tmp_path_factory.mktemp("undisturbed")
    server = Server(folder, seen=folder / "seen")
    try:
        ended = Story(server).play()
        digest = ended["left alone"].weights_digest
        assert digest is not None
        check(ended, digest)
        yield digest, set((folder / "seen").read_text().splitlines())
    finally:
        server.stop()


def check(ended: dict[str, JobStatus], digest: str) -> None:
    """That each job has ended as it must, by steps that may follow each other."""
    for what, status in ended.items():
        expected = {"cancelled": (JobState.CANCELLED,), "failing": (JobState.FAILED,)}.get(what, (JobState.SUCCEEDED,))
        assert status.state in expected, f"{what}: {status}"
        assert status.weights_digest == (digest if status.state is JobState.SUCCEEDED else None), what
        states = [records.JobState(change.state.name) for change in status.history]
        assert states[0] is records.JobState.QUEUED
        assert all(after in TRANSITIONS[before] for before, after in pairwise(states)), f"{what}: {states}"
    assert ended["failing"].error is not None
    assert ended["failing"].error.reason == "NON_FINITE"


def play_killed(folder: Path, points: Points, digest: str) -> None:
    """Play the story with a service that is killed at one point after the other."""
    server = Server(folder, points)
    try:
        story = Story(server)
        check(story.play(), digest)
        assert server.deaths == len(points), f"the service was killed {server.deaths} times of {points}"
        story.check_what_is_there(digest)
    finally:
        server.stop()


def test_killed_on_the_way(undisturbed: tuple[str, set[str]], tmp_path: Path) -> None:
    play_killed(tmp_path, QUICK, undisturbed[0])


@pytest.mark.whole
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_killed_at_every_kind_of_write(chapter: str, undisturbed: tuple[str, set[str]], tmp_path: Path) -> None:
    play_killed(tmp_path, CHAPTERS[chapter], undisturbed[0])


def test_all_kinds_of_writes_are_among_them(undisturbed: tuple[str, set[str]]) -> None:
    killed_at = {point.write for points in CHAPTERS.values() for point in points}
    assert undisturbed[1] - TIDYING <= killed_at
