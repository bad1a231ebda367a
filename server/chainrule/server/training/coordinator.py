"""The coordinator: places the parts of one attempt, watches them, recovers what is lost, and reports what happens.

It is not in the loop of steps: workers and partitions exchange those between themselves. When a worker dies, `crew`
hands its shards to the others within the running step. When a partition dies, `roll_back` begins again from the last
checkpoint with new partitions, and the workers turn to those. `policies` decides when to give up.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict
from functools import partial
from typing import Any

from chainrule.server.training import checkpoint, policies
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.checkpoint import Packed
from chainrule.server.training.collecting import Collector
from chainrule.server.training.contributions import Dispute, Verdict
from chainrule.server.training.crew import Crew
from chainrule.server.training.errors import LostPartError
from chainrule.server.training.eventlog import EventLog
from chainrule.server.training.events import (
    CheckpointTaken,
    Evaluated,
    Event,
    Failed,
    Finished,
    Incident,
    IncidentKind,
    Paused,
    ReceiptTaken,
    StepsDone,
    failure,
)
from chainrule.server.training.journal import Journal
from chainrule.server.training.layout import count_partitions
from chainrule.server.training.parts import LAST_WORDS_S, PartitionPart, Placement
from chainrule.server.training.reduction import Block
from chainrule.server.training.serving import PartitionSpec
from chainrule.server.training.state import EvaluationMetric, StepMetric, TrainingState
from chainrule.server.training.switchboard import Line, Message, Switchboard
from chainrule.server.training.tls import make_identity
from chainrule.server.training.watching import watched
from chainrule.server.training.wire import Endpoint

CHECK_INTERVAL_S = 0.1
"""Time between two looks at leases and stragglers."""
AWAY_S = 1.0
"""If so much more has passed between two looks, this process itself was held up, and nobody is to blame."""
START_TIMEOUT_S = 60.0
"""How long partitions may take to start."""
TOGETHER_S = 1.0
"""Losses within so short a time count as one."""

logger = logging.getLogger(__name__)


class Coordinator:
    """Runs one attempt at a job. Lives in one event loop."""

    def __init__(
        self, spec: AttemptSpec, placement: Placement, *, lease_s: float = policies.LEASE_S, node: str = ""
    ) -> None:
        self._spec = spec
        self._plan = spec.plan
        self._placement = placement
        self._lease_s = lease_s
        self._log = EventLog()
        self._journal = Journal(spec.job, self._log, node=node)
        self.identity = make_identity(f"chainrule-{spec.fence}")
        name = f"{spec.job}/{spec.fence}/coordinator"
        self._board = Switchboard(self.identity, self, host=placement.host, name=name)
        self.endpoint = self._board.endpoint
        self._over: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._crew = Crew(spec, placement, self)
        # where it stands
        self._state: TrainingState | Packed = spec.state  # of the last checkpoint: where to begin again
        self._checkpoint_step = spec.state.step
        self._provisional: list[Event] = []  # what a second result may still refute
        self._step = spec.state.step
        self._evaluations = list(spec.evaluations)
        self._last: int | None = None
        self._held: int | None = None
        self._pausing = False
        # the partitions
        self._life = 0
        self._wanted = 0
        self._asked_s = 0.0
        self._partitions: dict[int, PartitionPart] = {}
        self._collector = Collector()
        self._credit_owed = False
        # how it goes
        self._tick = -1
        self._since_s = time.monotonic()
        self._tick_times = {False: deque[float](maxlen=50), True: deque[float](maxlen=50)}  # of steps, of evaluations
        self._missing: dict[int, tuple[int, list[int]]] = {}  # tick, and the shards it waits for, by partition
        self._furthest = spec.state.step
        self._helped: set[int] = set()
        self._peers_s = 0.0
        self._losses = 0
        self._lost_s = -math.inf
        self._recoveries: list[tuple[float, int, str]] = []

    # --- for the service ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Train to the end; how it ends is the last event."""
        with self._journal:
            last = await self._run()
        self._journal.report_all()
        self._log.add(last)

    async def _run(self) -> Event:
        try:
            await self._board.open()
            if self._plan.tick_after(self._step) >= self._plan.total_ticks:
                self.end(Finished(self._result_step(self._step)))
            else:
                await self._begin_life()
                self.do(self._watch())
            last = await self._over
        except Exception as error:  # noqa: BLE001 — whatever it was, it becomes the attempt's last event
            last = failure(error)
        finally:
            for task in self._tasks:
                task.cancel()
            self._crew.close()
            await self._board.close()
            try:
                await self._placement.stop()
            except Exception:  # they end with this process; how the attempt has ended must be told
                logger.exception("%s: could not end all parts", self._spec.job)
        return last

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        """See Attempt.events."""
        self._log.forget(after)
        if self._credit_owed and not self._checkpoint_waits:
            self._credit_owed = False
            self.tell_partitions(type="credit", step=self._checkpoint_step)
        return await self._log.after(after, timeout_s)

    async def scale(self, workers: int) -> None:
        """See Attempt.scale."""
        if not self._over.done():
            self._crew.scale(workers)

    async def pause(self) -> None:
        """See Attempt.pause."""
        self._pausing = True
        if self._all_there:
            self._partitions[0].line.send(type="pause")  # the first leads; the others stop after the same step

    # --- partitions --------------------------------------------------------------------------------------------

    @property
    def _fence(self) -> int:
        """Number of the present set of partitions: they rise within an attempt and from one to the next."""
        return (self._spec.fence << 16) + self._life

    @property
    def _all_there(self) -> bool:
        return 0 < self._wanted == len(self._partitions)

    async def _begin_life(self) -> None:
        """Start partitions from the last checkpoint."""
        self._life += 1
        fence = self._fence
        self._asked_s = time.monotonic()
        self._held, self._last = None, None
        self._collector = Collector()
        self._credit_owed = False
        self._provisional = []
        state = self._state if isinstance(self._state, TrainingState) else checkpoint.unpacked(self._state.memory)
        self._step = state.step
        self._evaluations = [e for e in self._evaluations if e.step < state.step]
        wanted = await asyncio.to_thread(count_partitions, self._plan)
        for index in range(wanted):
            if fence != self._fence:  # one has been lost already: another life has begun
                return
            self._wanted = wanted
            logger.info(
                "%s: starts parameter server %d from step %d, fence %d", self._spec.job, index, self._step, fence
            )
            spec = PartitionSpec(
                job=self._spec.job,
                plan=self._plan,
                index=index,
                state=state,
                fence=fence,
                identity=self.identity,
                host=self._placement.host,
                coordinator=self.endpoint,
                evaluations=tuple(self._evaluations),
            )
            await self._placement.start_partition(spec, partial(self._partition_ended, fence, index))
        self._crew.fill()

    def _partition_is_there(self, line: Line, message: Message) -> None:
        index, now_s = line.who["index"], time.monotonic()
        self._partitions[index] = PartitionPart(index, line, Endpoint(**message["endpoint"]), now_s, now_s)
        if not self._all_there:
            return
        for dispute in self._crew.suspicions:
            self.tell_partitions(type="watch", tick=dispute.tick, blocks=[asdict(dispute.block)], report=True)
        endpoints = [asdict(self._partitions[index].endpoint) for index in range(self._wanted)]
        self._crew.introduce(self._fence, endpoints)
        if self._pausing:
            self._partitions[0].line.send(type="pause")

    def _partition_ended(self, fence: int, index: int, cause: str) -> None:
        async def later() -> None:
            await asyncio.sleep(LAST_WORDS_S)
            if fence == self._fence:
                self.roll_back(f"parameter server {index} ended: {cause}")

        if not self._over.done():
            self.do(later())

    def roll_back(self, cause: str) -> None:
        """Begin again from the last checkpoint with new partitions, all at the same step. The workers stay."""
        if self._over.done():
            return
        logger.warning("%s: %s", self._spec.job, cause)
        self.recovers(cause)
        for part in self._partitions.values():
            part.line.close()
        self._partitions = {}
        self._wanted = 0
        self._life += 1  # from now on, nothing of the old ones counts
        self._missing, self._helped, self._peers_s, self._tick = {}, set(), 0.0, -1
        self._provisional, self._held, self._last = [], None, None  # what they were about is computed again
        self._crew.part_from_partitions(cause)
        self.after_loss(cause, self._restart_partitions)

    async def _restart_partitions(self) -> None:
        await self._placement.end_partitions()
        await self._begin_life()

    def tell_partitions(self, **message: Any) -> None:
        """Say something to all partitions."""
        for part in self._partitions.values():
            part.line.send(**message)

    # --- watching ----------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Look at leases and stragglers, over and over."""
        before_s = time.monotonic()
        while not self._over.done():
            await asyncio.sleep(CHECK_INTERVAL_S)
            now_s = time.monotonic()
            if now_s - before_s > CHECK_INTERVAL_S + AWAY_S:
                self._excuse(now_s)
            before_s = now_s
            self._check_partitions(now_s)
            self._crew.check(now_s, self._lease_s)
            self._check_stragglers(now_s)
            self._check_provisional(now_s)
            self._journal.report()

    def _excuse(self, now_s: float) -> None:
        self._crew.excuse(now_s)
        self._since_s = now_s
        for part in self._partitions.values():
            part.seen_s = part.moved_s = now_s

    def _check_partitions(self, now_s: float) -> None:
        signs = {index: part.seen_s for index, part in self._partitions.items()}
        moves = {index: part.moved_s for index, part in self._partitions.items()}
        if gone := policies.silent(signs, now_s=now_s, lease_s=self._lease_s):
            self.roll_back(f"parameter server {gone[0]} gave no sign of life for {self._lease_s:g} s")
        elif stuck := policies.silent(moves, now_s=now_s, lease_s=policies.STUCK_S):
            self.roll_back(f"parameter server {stuck[0]} stands still: no report for {policies.STUCK_S:g} s")
        elif self._wanted and not self._all_there and now_s - self._asked_s > START_TIMEOUT_S:
            self.end(failure(LostPartError(f"the parameter server did not start within {START_TIMEOUT_S:.0f} s")))

    def _check_stragglers(self, now_s: float) -> None:
        tick = min((tick for tick, _ in self._missing.values()), default=-1)  # partitions may be one apart
        missing = {shard for at, shards in self._missing.values() if at == tick for shard in shards}
        if not missing or self._held is not None:
            return
        usual_s = policies.usual(self._tick_times[self._plan.tick(tick).evaluates])
        seconds = now_s - self._since_s
        if not self._peers_s and policies.somebody_is_done(tick, missing, self._crew.sights):
            self._peers_s = seconds
        helped = frozenset(self._helped)
        waiting = policies.Waiting(tick, tuple(sorted(missing)), seconds, usual_s, self._peers_s, helped)
        if policies.hangs(waiting):
            self._since_s = now_s
            self._crew.replace_owners(missing, f"nothing has come of step {self._step + 1} for {waiting.seconds:.0f} s")
            return
        decision = policies.speculate(waiting, self._crew.sights)
        if decision is not None:
            self._helped.update(shard for shards in decision.helpers.values() for shard in shards)
            self._crew.help(decision, waiting)

    def recovers(self, cause: str) -> None:
        """Something was lost; the next step that is done tells how long that took."""
        self._recoveries.append((time.monotonic(), self._step, cause))

    def after_loss(self, cause: str, replace: Callable[[], Awaitable[None]], *, at_least_s: float = 0.0) -> None:
        """Replace what was lost, after a pause if it happens often, or if one is asked for; or give up."""
        now_s = time.monotonic()
        if now_s - self._lost_s > TOGETHER_S:  # a node takes all that is on it with it
            self._losses += 1
            self._lost_s = now_s
        self._since_s = now_s  # whoever has more to do now has just begun
        decision = policies.after_loss(self._losses, cause)
        if isinstance(decision, policies.GiveUp):
            self.end(Failed(decision.reason, decision.message, "", lost=decision.lost))
            return

        async def later() -> None:
            await asyncio.sleep(max(decision.delay_s, at_least_s))
            await replace()

        self.do(later())

    # --- what the parts say ------------------------------------------------------------------------------------

    def heard(self, line: Line, message: Message, blob: memoryview) -> None:
        """See Listening."""
        if message["type"] == "logs":
            self._journal.heard(line.who, message)
        elif self._over.done():
            return
        elif line.who.get("role") == "worker":
            if message["type"] == "ready":
                self._crew.is_there(line.who["lease"], line, message)
            else:
                self._crew.heard(line.who["lease"], message)
        elif line.who.get("fence") == self._fence:
            if message["type"] == "ready":
                self._partition_is_there(line, message)
            elif message["type"] == "failed":
                self.end(Failed(message["reason"], message["message"], message["traceback"], lost=False))
            elif (part := self._partitions.get(line.who["index"])) is not None:
                part.seen_s = time.monotonic()
                if message["type"] != "beat":
                    part.moved_s = part.seen_s
                self._heard_partition(part.index, message, blob)
        else:  # of a life that is over
            line.close()

    def lost(self, line: Line) -> None:
        """See Listening."""
        if self._over.done():
            return
        if line.who.get("role") == "worker":
            self._crew.hung_up(line.who["lease"], line)
        elif line.who.get("fence") == self._fence:
            self.roll_back(f"parameter server {line.who['index']} is gone")

    def _heard_partition(self, index: int, message: Message, blob: memoryview) -> None:
        match message["type"]:
            case "progress":
                self._missing[index] = (message["tick"], message["missing"])
                if index == 0:
                    self._progressed(message)
            case "dispute":
                found = message["dispute"]
                self._crew.settle(Dispute(**{**found, "block": Block(**found["block"])}))
            case "verdict":
                found = message["verdict"]
                self._crew.judge(Verdict(**{**found, "block": Block(**found["block"])}))
            case "receipt":
                digest = self._collector.receipt(message, self._wanted)
                if digest is not None:
                    self._offer(ReceiptTaken(message["step"], digest))
            case "snapshot":
                content = self._collector.snapshot(message, blob, self._wanted)
                if content is not None:
                    self._credit_owed = True
                    epoch = message["step"] // self._plan.steps_per_epoch
                    self._offer(CheckpointTaken(message["step"], epoch, content))
            case "held" if index == 0:
                self._hold(message["step"])
            case "early_stop" if index == 0:  # the others say so too
                self._stop_early(message)
            case "done" if self._collector.done(index, self._wanted):
                self._finish_at(message["step"])

    def _progressed(self, message: Message) -> None:
        now_s = time.monotonic()
        if message["tick"] != self._tick:
            ticks = message["tick"] - self._tick
            if self._tick >= 0 and ticks > 0:
                self._tick_times[self._plan.tick(self._tick).evaluates].append((now_s - self._since_s) / ticks)
            self._tick, self._since_s = message["tick"], now_s
            if not self._helped:
                self._crew.went_on(self._tick)
            self._helped, self._peers_s = set(), 0.0
        if message["metrics"]:
            self._step = message["step"]
            if self._step > self._furthest:  # what is computed again does not count as progress
                self._furthest, self._losses = self._step, 0
            first = message["metrics"][0]["step"]
            for began_s, step, cause in self._recoveries:
                back = f"; back from step {step} to {first - 1}" if first <= step else ""
                self._log.add(Incident("recovery", f"{cause}{back}", step, now_s - began_s))
            self._recoveries = []
            self._offer(StepsDone(tuple(StepMetric(**metric) for metric in message["metrics"])))
        for found in message["evaluations"]:
            metric = EvaluationMetric(**found)
            self._evaluations = [e for e in self._evaluations if e.epoch != metric.epoch] + [metric]
            self._offer(Evaluated(metric))
        for reason in message["skipped"]:
            self.note("skipped", reason)

    # --- checkpoints and the end -------------------------------------------------------------------------------

    def _offer(self, event: Event) -> None:
        """Report what was computed, as soon as no second result can show any more that it is wrong."""
        self._provisional.append(event)
        self._check_provisional(time.monotonic())

    def _check_provisional(self, now_s: float) -> None:
        if not self._provisional or self._crew.awaits_second_results(now_s):
            return
        accepted, self._provisional = self._provisional, []
        for event in accepted:
            self._log.add(event)
            if isinstance(event, CheckpointTaken):
                self._state, self._checkpoint_step = event.content, event.step
        self._end_if_over()

    def _end_if_over(self) -> None:
        """Once all that was computed is reported: whether that was the step to pause after, or the last."""
        if self._provisional:
            return
        if self._held == self._checkpoint_step:
            self.end(Paused())
        elif self._last == self._checkpoint_step:
            self.end(Finished(self._result_step(self._checkpoint_step)))

    @property
    def _checkpoint_waits(self) -> bool:
        """Whether there is a checkpoint that the service has not stored."""
        return self._log.checkpoint_waits or any(isinstance(event, CheckpointTaken) for event in self._provisional)

    def _hold(self, step: int) -> None:
        """The first partition stands after a step, and the others stop there too: the checkpoint of that step is what a
        pause leaves."""
        self._held = step
        for index in range(1, self._wanted):
            self._partitions[index].line.send(type="snapshot", step=step)
        self._end_if_over()

    def _stop_early(self, message: Message) -> None:
        by = watched(self._plan.config)
        best = by.best(self._evaluations)
        self.note(
            "early_stop", f"after epoch {message['epoch']}: none since epoch {best.epoch} has had {by.told(best)}"
        )
        self._finish_at(message["step"])

    def _finish_at(self, step: int) -> None:
        """End with success, once the checkpoint of the step is there."""
        self._last = step
        self._end_if_over()

    def _result_step(self, last: int) -> int:
        restores = self._plan.config.validation.restore_best and self._evaluations
        return watched(self._plan.config).best(self._evaluations).step if restores else last

    # --- for the crew ------------------------------------------------------------------------------------------

    def add(self, event: Event) -> None:
        """Report an event."""
        self._log.add(event)

    def note(self, kind: IncidentKind, message: str) -> None:
        """Report something that the history of the job should tell."""
        logger.info("%s: %s: %s", self._spec.job, kind, message)
        self._log.add(Incident(kind, message, self._step))

    def end(self, event: Event) -> None:
        """End the attempt; the first to say so decides."""
        if not self._over.done():
            self._over.set_result(event)

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the rest; if it fails, so does the attempt."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._did)

    def _did(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.end(failure(error))
