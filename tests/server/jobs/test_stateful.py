"""Jobs under any sequence of requests, losses and restarts, against a model that knows only what the API promises."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from chainrule.server.errors import AlreadyExistsError, IllegalStateError
from chainrule.server.jobs import manager, policies
from chainrule.server.records import TRANSITIONS, JobState
from chainrule.server.rpc.configs import training_config
from chainrule.server.rpc.jobs import JobServicer
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.config import TrainingConfig
from chainrule.server.training.errors import LostPartError
from chainrule.server.training.events import Event, Failed, Finished, Started
from chainrule.v1 import job_pb2
from tests.server.jobs.service_parts import (
    CONFIG,
    FINGERPRINT,
    Course,
    FakeAttempt,
    FakeLauncher,
    Item,
    Parts,
    steps,
    to_the_end,
)

T = TypeVar("T")
S = JobState
CONTEXT: Any = None  # not used by these calls
SHORT = replace(CONFIG, epochs=2, checkpoint_every_steps=2)
IDS = ("", "r1", "r2")
ENDS = (S.SUCCEEDED, S.FAILED, S.CANCELLED)
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Seen:
    """What the API shows of a job."""

    name: str
    state: JobState
    history: tuple[JobState, ...]
    times_ns: tuple[int, ...]
    """When it came into each of these states."""
    max_workers: int
    has_weights: bool
    has_error: bool
    has_ended: bool

    @classmethod
    def of(cls, job: job_pb2.Job) -> Seen:
        return cls(
            job.name,
            _state(job.state),
            tuple(_state(change.state) for change in job.history),
            tuple(change.time.ToNanoseconds() for change in job.history),
            job.config.max_workers,
            bool(job.weights_digest),
            job.HasField("error"),
            job.HasField("end_time"),
        )


def _state(state: job_pb2.Job.State.ValueType) -> JobState:
    return JobState(job_pb2.Job.State.Name(state).removeprefix("STATE_"))


class Service:
    """The job API without gRPC: messages in, messages out. Raises the service's own errors."""

    def __init__(self, folder: Path, launcher: FakeLauncher) -> None:
        self._parts = Parts(folder, launcher, cpus=4)
        self._jobs = JobServicer(self._parts.manager)

    async def start(self) -> None:
        await self._parts.manager.start()

    async def stop(self) -> None:
        await self._parts.manager.stop()
        self._parts.store.close()

    async def create(self, config: TrainingConfig, request_id: str) -> Seen:
        asked = self._parts.submission()
        job = job_pb2.Job(model=asked.model, dataset=asked.dataset, config=training_config(config))
        request = job_pb2.CreateJobRequest(job=job, request_id=request_id)
        return Seen.of(await self._jobs.CreateJob(request, CONTEXT))

    async def get(self, name: str) -> Seen:
        return Seen.of(await self._jobs.GetJob(job_pb2.GetJobRequest(name=name), CONTEXT))

    async def names(self) -> set[str]:
        listed = await self._jobs.ListJobs(job_pb2.ListJobsRequest(page_size=1000), CONTEXT)
        return {job.name for job in listed.jobs}

    async def cancel(self, name: str) -> Seen:
        return Seen.of(await self._jobs.CancelJob(job_pb2.CancelJobRequest(name=name), CONTEXT))

    async def pause(self, name: str) -> Seen:
        return Seen.of(await self._jobs.PauseJob(job_pb2.PauseJobRequest(name=name), CONTEXT))

    async def resume(self, name: str) -> Seen:
        return Seen.of(await self._jobs.ResumeJob(job_pb2.ResumeJobRequest(name=name), CONTEXT))

    async def scale(self, name: str, max_workers: int) -> Seen:
        request = job_pb2.ScaleJobRequest(name=name, max_workers=max_workers)
        return Seen.of(await self._jobs.ScaleJob(request, CONTEXT))

    async def until(self, name: str, *states: JobState) -> Seen:
        """The job, once it is in one of the states."""
        async with asyncio.timeout(TIMEOUT_S):
            async for message in self._jobs.WatchJob(job_pb2.WatchJobRequest(name=name), CONTEXT):
                job = Seen.of(message)
                if job.state in states:
                    return job
        pytest.fail(f"{name} ended as {job.state.value}")


# --- training that does as it is told --------------------------------------------------------------------------


def led(spec: AttemptSpec) -> Iterator[Item]:
    """An attempt that begins and then waits for what it is told."""
    yield Started(spec.workers, FINGERPRINT)
    yield None


class LedLauncher(FakeLauncher):
    """Its attempts do a step, end, fail or are lost when they are told to."""

    course: Course = staticmethod(led)
    """Of the attempts to come."""

    async def launch(self, spec: AttemptSpec) -> FakeAttempt:
        self._script[:] = [self.course]
        return await super().launch(spec)

    def running(self) -> list[FakeAttempt]:
        """The attempts under way, the oldest first."""
        return [attempt for attempt in self.attempts if not attempt.stopped]


def finish(attempt: FakeAttempt) -> None:
    """Have it do the steps that are left."""
    last = attempt.spec.plan.total_steps
    attempt.say(*steps(attempt.spec, attempt.step + 1, last), Finished(last))
    attempt.step = last


# --- what is promised ------------------------------------------------------------------------------------------


@dataclass
class Known:
    """What a client knows of a job."""

    config: TrainingConfig
    request_id: str
    history: tuple[JobState, ...] = ()


class Jobs(RuleBasedStateMachine):
    """A service with a few jobs, to which anything happens."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="cr-jobs-"))
        self.launcher = LedLauncher()
        self.known: dict[str, Known] = {}
        self.service = Service(self.folder, self.launcher)
        self.do(self.service.start())

    def teardown(self) -> None:
        try:
            self.do(self.see_through())
            self.only_what_is_allowed_has_happened()
        finally:
            self.do(self.service.stop())
            self.loop.close()
            shutil.rmtree(self.folder)

    async def see_through(self) -> None:
        """Whatever has happened, every job can be brought to its end."""
        self.launcher.course = to_the_end
        for attempt in self.launcher.running():
            finish(attempt)
        for name in self.known:
            while not (job := await self.service.until(name, S.PAUSED, *ENDS)).state.terminal:
                await self.service.resume(job.name)

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        """Do it, with all else that is going on."""
        return self.loop.run_until_complete(what)

    # --- requests ----------------------------------------------------------------------------------------------

    @initialize(target=jobs)
    def first(self) -> str:
        return self.created(SHORT, "r1")

    @rule(target=jobs, request_id=st.sampled_from(IDS), seed=st.integers(0, 1))
    def create(self, request_id: str, seed: int) -> Any:
        config = replace(SHORT, seed=seed)
        before = {known.request_id: known for known in self.known.values() if known.request_id}.get(request_id)
        if before is not None and before.config.seed != seed:
            with pytest.raises(AlreadyExistsError):
                self.created(config, request_id)
            return multiple()
        return self.created(config, request_id)

    def created(self, config: TrainingConfig, request_id: str) -> str:
        job = self.do(self.service.create(config, request_id))
        known = self.known.get(job.name)
        assert (known is not None) == (request_id in {known.request_id for known in self.known.values()} - {""})
        if known is None:
            assert job.state is S.QUEUED
            self.known[job.name] = Known(config, request_id)
        return job.name

    @rule(name=jobs)
    def cancel(self, name: str) -> None:
        self.asked(name, self.service.cancel, refused=(S.SUCCEEDED, S.FAILED))

    @rule(name=jobs)
    def pause(self, name: str) -> None:
        self.asked(name, self.service.pause, refused=(S.FINALIZING, S.CANCELLING, S.SUCCEEDED, S.FAILED, S.CANCELLED))

    @rule(name=jobs)
    def resume(self, name: str) -> None:
        self.asked(name, self.service.resume, refused=(S.PAUSING, S.CANCELLING, S.SUCCEEDED, S.FAILED, S.CANCELLED))

    @rule(name=jobs, max_workers=st.integers(1, 4))
    def scale(self, name: str, max_workers: int) -> None:
        job = self.asked(
            name,
            lambda name: self.service.scale(name, max_workers),
            refused=(S.CANCELLING, S.SUCCEEDED, S.FAILED, S.CANCELLED),
        )
        if job is not None:
            assert job.max_workers == max_workers

    def asked(
        self, name: str, ask: Callable[[str], Coroutine[Any, Any, Seen]], *, refused: tuple[JobState, ...]
    ) -> Seen | None:
        """Ask something of a job. It is refused in some states, and granted in others, however often it is asked."""
        before = self.do(self.service.get(name))
        job, found = None, ""
        try:
            job = self.do(ask(name))
        except IllegalStateError as error:
            found = error.metadata["state"]  # when it was asked: it may have gone on since
        if job is None:
            assert JobState(found) in refused
            return None
        assert before.state not in refused or before.state in (S.FINALIZING, S.CANCELLING, S.PAUSING)
        return job

    # --- what happens to it ------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 3))
    def train(self, count: int) -> None:
        """The oldest attempt does some steps."""
        for attempt in self.launcher.running()[:1]:
            last = min(attempt.step + count, attempt.spec.plan.total_steps)
            attempt.say(*steps(attempt.spec, attempt.step + 1, last))
            attempt.step = last

    @rule()
    def finish(self) -> None:
        """The oldest attempt comes to its end."""
        for attempt in self.launcher.running()[:1]:
            finish(attempt)

    @rule()
    def fail(self) -> None:
        """The oldest attempt comes upon what no other would do better."""
        for attempt in self.launcher.running()[:1]:
            attempt.say(Failed("NON_FINITE", "the loss is nan", "", lost=False))

    @rule()
    def lose(self) -> None:
        """The oldest attempt's coordinator dies."""
        for attempt in self.launcher.running()[:1]:
            attempt.say(cast(Event, LostPartError("the coordinator died of signal 9")))

    @rule()
    def restart(self) -> None:
        """The service stops where it is, and another takes its place."""
        self.do(self.service.stop())
        for attempt in self.launcher.running():
            attempt.stopped = True
        self.service = Service(self.folder, self.launcher)
        self.do(self.service.start())

    @rule(time_s=st.sampled_from((0.0, 0.002, 0.01)))
    def go_on(self, time_s: float) -> None:
        """What is under way has that much time before anything else happens."""
        self.do(asyncio.sleep(time_s))

    # --- what always holds -------------------------------------------------------------------------------------

    @invariant()
    def only_what_is_allowed_has_happened(self) -> None:
        assert self.do(self.service.names()) == set(self.known)
        for name, known in self.known.items():
            job = self.do(self.service.get(name))
            history = job.history
            assert history[0] is S.QUEUED
            assert history[-1] is job.state
            assert all(to in TRANSITIONS[of] for of, to in pairwise(history)), history
            assert history[: len(known.history)] == known.history  # nothing is forgotten, and what is over is over
            assert list(job.times_ns) == sorted(job.times_ns)
            assert job.has_weights == (job.state is S.SUCCEEDED)
            assert job.has_error == (job.state is S.FAILED)
            assert job.has_ended == job.state.terminal
            known.history = history


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for that a clock brings about."""
    monkeypatch.setattr(manager, "QUEUE_INTERVAL_S", 0.05)
    monkeypatch.setattr(policies, "FIRST_DELAY_S", 0.001)


def play(*, schedules: int, rules: int) -> None:
    """So many schedules, of so many rules each."""
    run_state_machine_as_test(
        Jobs,
        settings=settings(
            max_examples=schedules, stateful_step_count=rules, suppress_health_check=list(HealthCheck), deadline=None
        ),
    )


@pytest.mark.usefixtures("_at_once")
def test_jobs_do_only_what_is_promised_whatever_happens_to_them() -> None:
    play(schedules=12, rules=20)


@pytest.mark.whole
@pytest.mark.usefixtures("_at_once")
def test_jobs_do_only_what_is_promised_in_a_thousand_schedules() -> None:
    play(schedules=1000, rules=30)
