"""The coordinator: places the parts of one attempt, watches them, recovers what is lost, and reports what happens.

It is not in the loop of steps: workers and partitions exchange those between themselves. When something dies, this file
says what happens: `_worker_is_lost` hands its shards to the others within the running step, `_partition_is_lost` begins
again from the last checkpoint with new partitions, and `policies` decides when to give up.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections import deque
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any

from chainrule.server.training import checkpoint, policies
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.collecting import Collector
from chainrule.server.training.errors import CorruptionError, FingerprintError, LostPartError, PlacementError
from chainrule.server.training.eventlog import EventLog
from chainrule.server.training.events import (
    NO_ROOM,
    CheckpointTaken,
    Evaluated,
    Event,
    Failed,
    Finished,
    Incident,
    IncidentKind,
    Paused,
    ReceiptTaken,
    Started,
    StepsDone,
    WorkersChanged,
)
from chainrule.server.training.fingerprint import differences, from_json, to_json
from chainrule.server.training.layout import make_layout
from chainrule.server.training.partition import Dispute, Verdict
from chainrule.server.training.parts import PartitionPart, Placement, WorkerPart
from chainrule.server.training.reduction import Block, assign, blocks_of
from chainrule.server.training.serving import PartitionSpec
from chainrule.server.training.state import EvaluationMetric, StepMetric, TrainingState
from chainrule.server.training.switchboard import Line, Message, Switchboard
from chainrule.server.training.tls import make_identity
from chainrule.server.training.wire import Endpoint

CHECK_INTERVAL_S = 0.1
"""Time between two looks at leases and stragglers."""
ROOM_TIMEOUT_S = 60.0
"""How long the cluster may take to start a first worker, or the partitions."""

logger = logging.getLogger(__name__)


class Coordinator:
    """Runs one attempt at a job."""

    def __init__(self, spec: AttemptSpec, placement: Placement, *, lease_s: float = policies.LEASE_S) -> None:
        self._spec = spec
        self._plan = spec.plan
        self._placement = placement
        self._lease_s = lease_s
        self._log = EventLog()
        self._identity = make_identity(f"chainrule-{spec.fence}")
        self._board = Switchboard(
            self._identity, self, host=placement.host, name=f"{spec.job}/{spec.fence}/coordinator"
        )
        self._over: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        # what is computed
        self._state: TrainingState | bytes = spec.state  # of the last checkpoint: where to begin again
        self._step = spec.state.step
        self._evaluations = list(spec.evaluations)
        self._fingerprint = from_json(spec.fingerprint) if spec.fingerprint else {}
        # who computes it
        self._target = spec.workers
        self._life = 0
        self._num_partitions = 1
        self._partitions: dict[int, PartitionPart] = {}
        self._partitions_asked_s = 0.0
        self._workers: dict[int, WorkerPart] = {}
        self._next_lease = 1
        self._started = False
        self._reported_workers = -1
        # how it goes
        self._tick = -1
        self._tick_since_s = time.monotonic()
        self._tick_times: deque[float] = deque(maxlen=50)
        self._missing: tuple[int, ...] = ()
        self._asked: set[int] = set()
        self._losses = 0
        self._failures: list[policies.WorkerFailure] = []
        self._recoveries: list[tuple[float, int, str]] = []
        self._suspicions: list[Dispute] = []
        self._names: dict[int, str] = {}
        self._collector = Collector()
        self._credit_owed = False
        self._pausing = False
        self._held: int | None = None
        self._last: int | None = None
        self._checkpoint_step = spec.state.step

    # --- for the service ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Train to the end; how it ends is the last event."""
        try:
            await self._board.open()
            if self._step >= self._plan.total_steps and not self._plan.num_validation:
                self._over.set_result(Finished(self._step))
            else:
                await self._begin_life()
                self._do(self._watch())
            last = await self._over
        except Exception as error:  # noqa: BLE001 — whatever it was, it becomes the attempt's last event
            last = failure(error)
        finally:
            for task in self._tasks:
                task.cancel()
            await self._board.close()
            await self._placement.stop()
        self._log.add(last)

    async def events(self, after: int, timeout_s: float) -> list[Event]:
        """See Attempt.events."""
        events = await self._log.after(after, timeout_s)
        if self._credit_owed and not self._log.checkpoint_waits:
            self._credit_owed = False
            self._tell_partitions(type="credit")
        return events

    async def scale(self, workers: int) -> None:
        """See Attempt.scale."""
        if workers != self._target:
            self._note("scaled", f"from {self._target} to {workers} workers, as asked")
        self._target = workers
        self._fill()

    async def pause(self) -> None:
        """See Attempt.pause."""
        self._pausing = True
        if 0 in self._partitions:
            self._partitions[0].line.send(type="pause")  # the first leads; the others stop after the same step

    # --- partitions --------------------------------------------------------------------------------------------

    @property
    def _fence(self) -> int:
        """Number of the present set of partitions: they rise within an attempt and from one to the next."""
        return (self._spec.fence << 16) + self._life

    async def _begin_life(self) -> None:
        """Start partitions from the last checkpoint."""
        self._life += 1
        self._partitions = {}
        self._partitions_asked_s = time.monotonic()
        self._held = None
        self._collector = Collector()
        self._credit_owed = False
        state = self._state if isinstance(self._state, TrainingState) else checkpoint.unpacked(self._state)
        self._step = state.step
        self._num_partitions = await asyncio.to_thread(_count_partitions, self._spec)
        for index in range(self._num_partitions):
            fence, endpoint = self._fence, self._board.endpoint
            spec = PartitionSpec(
                job=self._spec.job,
                plan=self._plan,
                index=index,
                state=state,
                fence=fence,
                identity=self._identity,
                host=self._placement.host,
                coordinator=endpoint,
                evaluations=tuple(e for e in self._evaluations if e.step < state.step),
            )
            await self._placement.start_partition(
                spec, lambda cause, fence=fence, index=index: self._partition_ended(fence, index, cause)
            )
        self._fill()

    def _partition_is_there(self, line: Line, message: Message) -> None:
        if message["fence"] != self._fence:
            line.close()
            return
        self._check_fingerprint(f"parameter server {message['index']}", message["fingerprint"])
        endpoint = Endpoint(**message["endpoint"])
        self._partitions[message["index"]] = PartitionPart(message["index"], line, endpoint, time.monotonic())
        if len(self._partitions) < self._num_partitions:
            return
        for dispute in self._suspicions:
            self._tell_partitions(type="watch", tick=dispute.tick, blocks=[asdict(dispute.block)], report=True)
        for worker in self._workers.values():
            self._introduce(worker)
        if self._pausing:
            self._partitions[0].line.send(type="pause")

    def _partition_ended(self, fence: int, index: int, cause: str) -> None:
        if fence == self._fence:
            self._partition_is_lost(f"parameter server {index} ended: {cause}")

    def _partition_is_lost(self, cause: str) -> None:
        """Begin again from the last checkpoint with new partitions, all at the same step. The workers stay."""
        if self._over.done():
            return
        logger.warning("%s: %s", self._spec.job, cause)
        self._recoveries.append((time.monotonic(), self._step, cause))
        for part in self._partitions.values():
            part.line.close()
        self._partitions = {}
        self._life += 1  # from now on, nothing of the old ones counts
        for worker in self._workers.values():
            worker.joined = False
        self._report_workers(cause)
        self._after_loss(cause, self._restart_partitions)

    async def _restart_partitions(self) -> None:
        await self._placement.end_partitions()
        await self._begin_life()

    def _tell_partitions(self, **message: Any) -> None:
        for part in self._partitions.values():
            part.line.send(**message)

    # --- workers -----------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Start as many workers as are wanted and not there; let go of those too many."""
        if self._over.done():
            return
        there = [worker for worker in self._workers.values() if not worker.leaving]
        for _ in range(self._target - len(there)):
            lease, self._next_lease = self._next_lease, self._next_lease + 1
            self._workers[lease] = WorkerPart(lease, time.monotonic())
            self._do(
                self._placement.start_worker(
                    lease,
                    self._identity,
                    self._board.endpoint,
                    lambda cause, lease=lease: self._worker_ended(lease, cause),
                )
            )
        there.sort(key=lambda worker: (worker.line is None, worker.lease))  # those that have not come yet go first
        for worker in there[self._target :]:
            worker.leaving = True
        self._assign()
        for worker in there[self._target :]:
            self._dismiss(worker)

    def _dismiss(self, worker: WorkerPart) -> None:
        """Let a worker go whose shards are others' already."""
        self._workers.pop(worker.lease, None)
        worker.tell(type="leave")
        self._do(self._placement.end_worker(worker.lease))

    def _worker_is_there(self, line: Line, message: Message) -> None:
        worker = self._workers.get(message["lease"])
        if worker is None:  # it was given up meanwhile
            line.close()
            return
        worker.line, worker.node, worker.seen_s = line, message["node"], time.monotonic()
        self._names[worker.lease] = worker.name
        if not self._is_admissible(worker, message["fingerprint"]):
            worker.leaving = True
            self._dismiss(worker)
            return
        self._introduce(worker)

    def _is_admissible(self, worker: WorkerPart, found: dict[str, str]) -> bool:
        """Whether a worker computes the same bits as the others. If none does, the attempt is over."""
        try:
            self._check_fingerprint(worker.name, found)
        except FingerprintError as error:
            self._note("refused", str(error))
            if not any(other.line is not None for other in self._workers.values() if other is not worker):
                self._end(failure(error))
            return False
        return True

    def _check_fingerprint(self, who: str, found: dict[str, str]) -> None:
        if not self._fingerprint:
            self._fingerprint = found
        different = differences(found, self._fingerprint)
        if different and self._plan.config.exact:
            raise FingerprintError(
                f"{who} does not compute as the job began ({'; '.join(different)}); "
                "give it the same kernels, instruction set, threads and versions, or submit with exact: false"
            )

    def _introduce(self, worker: WorkerPart) -> None:
        """Tell a worker where the partitions are, once they are all there."""
        if worker.line is not None and len(self._partitions) == self._num_partitions:
            endpoints = [asdict(self._partitions[index].endpoint) for index in range(self._num_partitions)]
            worker.tell(type="partitions", fence=self._fence, endpoints=endpoints)

    def _worker_has_joined(self, worker: WorkerPart, fence: int) -> None:
        if fence != self._fence:
            return
        worker.joined = True
        self._assign()
        self._report_workers(f"{worker.name} has joined")

    def _worker_ended(self, lease: int, cause: str) -> None:
        if lease in self._workers:
            self._worker_is_lost(self._workers[lease], f"{self._workers[lease].name} ended: {cause}")

    def _worker_is_lost(self, worker: WorkerPart, cause: str) -> None:
        """Hand a worker's shards to the others, within the running step, and start another in its place."""
        if self._over.done() or self._workers.pop(worker.lease, None) is None:
            return
        logger.warning("%s: %s", self._spec.job, cause)
        self._tell_partitions(type="revoke", lease=worker.lease)  # whatever still comes from it is refused
        if worker.line is not None:
            worker.line.close()
        self._do(self._placement.end_worker(worker.lease))
        if worker.joined:
            self._recoveries.append((time.monotonic(), self._step, f"{cause}; its shards went to the others"))
        self._assign()
        self._report_workers(cause)

        async def fill() -> None:
            self._fill()

        self._after_loss(cause, fill)

    def _after_loss(self, cause: str, replace: Any) -> None:
        self._losses += 1
        decision = policies.after_loss(self._losses, cause)
        if isinstance(decision, policies.GiveUp):
            self._end(Failed(decision.reason, decision.message, "", lost=decision.lost))
            return

        async def later() -> None:
            await asyncio.sleep(decision.delay_s)
            await replace()

        self._do(later())

    def _worker_has_failed(self, worker: WorkerPart, message: Message) -> None:
        found = policies.WorkerFailure(worker.tick, message["message"], message["traceback"])
        decision = policies.after_failure(self._failures, found)
        self._failures.append(found)
        if decision is not None:
            self._end(Failed(decision.reason, decision.message, found.traceback, lost=decision.lost))
        else:
            self._worker_is_lost(worker, f"{worker.name} failed: {found.message}")

    # --- shards ------------------------------------------------------------------------------------------------

    @property
    def _present(self) -> list[WorkerPart]:
        """The workers that can compute, in the order of their leases."""
        return sorted((w for w in self._workers.values() if w.joined and not w.leaving), key=lambda w: w.lease)

    def _assign(self) -> None:
        """Tell every worker its shards; none while there are fewer workers than the job wants at least.

        In which order they hear of it does not matter: a tick is not over before somebody has computed each of its
        shards, and what two have computed is the same.
        """
        present = self._present
        enough = len(present) >= self._minimum
        leases = [worker.lease for worker in present[: self._plan.config.shards]]
        ranges = assign(self._plan.config.shards, leases) if enough else {}
        owners = {shard: lease for lease, shards in ranges.items() for shard in shards}
        auditors = policies.auditors(owners) if self._plan.config.audit_fraction else {}
        for worker in present:
            worker.shards = tuple(ranges.get(worker.lease, ()))
            worker.tell(type="assign", shards=worker.shards, auditors=auditors)
        if enough and not self._started:
            self._started = True
            self._reported_workers = len(present)
            self._log.add(Started(len(present), to_json(self._fingerprint)))

    @property
    def _minimum(self) -> int:
        return max(1, min(self._plan.config.min_workers, self._plan.config.shards, self._target))

    def _report_workers(self, reason: str) -> None:
        count = len(self._present)
        if self._started and count != self._reported_workers:
            self._reported_workers = count
            self._log.add(WorkersChanged(count, reason))

    async def _watch(self) -> None:
        """Look at leases and stragglers, over and over."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            now = time.monotonic()
            self._check_leases(now)
            self._check_stragglers(now)
            self._check_room(now)

    def _check_leases(self, now: float) -> None:
        signs = {lease: w.seen_s for lease, w in self._workers.items() if w.line is not None}
        for lease in policies.silent(signs, now_s=now, lease_s=self._lease_s):
            worker = self._workers[lease]
            self._worker_is_lost(worker, f"{worker.name} gave no sign of life for {self._lease_s:g} s")
        signs = {index: part.seen_s for index, part in self._partitions.items()}
        if gone := policies.silent(signs, now_s=now, lease_s=self._lease_s):
            self._partition_is_lost(f"parameter server {gone[0]} gave no sign of life for {self._lease_s:g} s")

    def _check_room(self, now: float) -> None:
        if not self._partitions and now - self._partitions_asked_s > ROOM_TIMEOUT_S and self._life == 1:
            self._end(failure(LostPartError(f"the parameter server did not start within {ROOM_TIMEOUT_S:.0f} s")))
        waiting = [worker.asked_s for worker in self._workers.values()]
        if not self._started and waiting and now - max(waiting) > ROOM_TIMEOUT_S:
            there = len(self._present)
            self._end(
                failure(
                    PlacementError(
                        f"{there} of at least {self._minimum} workers started within {ROOM_TIMEOUT_S:.0f} s; "
                        "look at the cluster with: chainrule cluster"
                    )
                )
            )

    def _check_stragglers(self, now: float) -> None:
        if not self._missing or self._held is not None:
            return
        waiting = policies.Waiting(
            self._tick,
            self._missing,
            now - self._tick_since_s,
            policies.usual(self._tick_times),
            frozenset(self._asked),
        )
        sights = [policies.Sight(w.lease, w.shards, w.tick, w.working) for w in self._present]
        decision = policies.speculate(waiting, sights)
        if decision is None:
            return
        tick = self._plan.tick(decision.tick)
        for lease, shards in decision.slow.items():
            blocks = [asdict(block) for block in blocks_of(shards)]
            self._tell_partitions(type="watch", tick=decision.tick, blocks=blocks, report=False)
            worker = self._workers[lease]
            worker.speculated += 1
            late = ", ".join(_shards(block) for block in blocks_of(shards))
            self._note(
                "straggler",
                f"{worker.name} is late with {late} of step {tick.step + 1}: {waiting.seconds:.1f} s where "
                f"{waiting.usual_s:.3f} s are usual; others compute them, too",
            )
        for lease, shards in decision.helpers.items():
            self._workers[lease].tell(type="compute", tick=decision.tick, shards=shards)
        self._asked.update(shard for shards in decision.helpers.values() for shard in shards)
        for lease in decision.slow:
            worker = self._workers[lease]
            if worker.speculated >= policies.MAX_SPECULATIONS:
                self._worker_is_lost(worker, f"{worker.name} was late {worker.speculated} times in a row")

    # --- what the parts say ------------------------------------------------------------------------------------

    def heard(self, line: Line, message: Message, blob: bytes) -> None:
        """See Listening."""
        kind = message["type"]
        if kind == "partition":
            self._partition_is_there(line, message)
        elif kind == "worker":
            self._worker_is_there(line, message)
        elif (worker := next((w for w in self._workers.values() if w.line is line), None)) is not None:
            self._heard_worker(worker, message)
        elif (part := next((p for p in self._partitions.values() if p.line is line), None)) is not None:
            part.seen_s = time.monotonic()
            self._heard_partition(part, message, blob)
        elif kind == "failed":  # before it could say who it is
            self._end(Failed(message["reason"], message["message"], message["traceback"], lost=False))

    def lost(self, line: Line) -> None:
        """See Listening."""
        for worker in [w for w in self._workers.values() if w.line is line]:
            self._worker_is_lost(worker, f"{worker.name} is gone")
        for part in [p for p in self._partitions.values() if p.line is line]:
            self._partition_is_lost(f"parameter server {part.index} is gone")

    def _heard_worker(self, worker: WorkerPart, message: Message) -> None:
        worker.seen_s = time.monotonic()
        match message["type"]:
            case "beat":
                worker.tick, worker.working = message["tick"], message["working"]
            case "joined":
                self._worker_has_joined(worker, message["fence"])
            case "failed":
                self._worker_has_failed(worker, message)

    def _heard_partition(self, part: PartitionPart, message: Message, blob: bytes) -> None:
        match message["type"]:
            case "progress" if part.index == 0:
                self._progressed(message)
            case "dispute":
                found = message["dispute"]
                self._settle(Dispute(**{**found, "block": Block(**found["block"])}))
            case "verdict":
                found = message["verdict"]
                self._judge(Verdict(**{**found, "block": Block(**found["block"])}))
            case "receipt":
                digest = self._collector.receipt(message, self._num_partitions)
                if digest is not None:
                    self._log.add(ReceiptTaken(message["step"], digest))
            case "snapshot":
                content = self._collector.snapshot(message, blob, self._num_partitions)
                if content is not None:
                    self._checkpoint_is_taken(message["step"], content)
            case "held" if part.index == 0:
                self._hold(message["step"])
            case "early_stop":
                self._stop_early(message)
            case "done" if self._collector.done(part.index, self._num_partitions):
                self._finish_at(message["step"])
            case "failed":
                self._end(Failed(message["reason"], message["message"], message["traceback"], lost=False))

    def _progressed(self, message: Message) -> None:
        now = time.monotonic()
        if message["tick"] != self._tick:
            ticks = message["tick"] - self._tick
            if self._tick >= 0 and ticks > 0:
                self._tick_times.append((now - self._tick_since_s) / ticks)
            self._tick, self._tick_since_s, self._asked = message["tick"], now, set()
        self._missing = tuple(message["missing"])
        self._log_metrics(message)
        if message["metrics"]:
            self._step = message["step"]
            self._losses = 0
            for worker in self._workers.values():
                if not self._missing and worker.tick >= self._tick - 1:
                    worker.speculated = 0
            for began_s, step, cause in self._recoveries:
                first = message["metrics"][0]["step"]
                back = f"; back to step {first - 1} from {step}" if first <= step else ""
                self._log.add(Incident("recovery", f"{cause}{back}", step, now - began_s))
            self._recoveries = []

    def _log_metrics(self, message: Message) -> None:
        if message["metrics"]:
            self._log.add(StepsDone(tuple(StepMetric(**metric) for metric in message["metrics"])))
        for found in message["evaluations"]:
            metric = EvaluationMetric(**found)
            self._evaluations = [e for e in self._evaluations if e.epoch != metric.epoch] + [metric]
            self._log.add(Evaluated(metric))
        for reason in message["skipped"]:
            self._log.add(Incident("skipped", reason, message["step"]))

    # --- checkpoints and the end -------------------------------------------------------------------------------

    def _checkpoint_is_taken(self, step: int, content: bytes) -> None:
        self._state = content
        self._checkpoint_step = step
        self._credit_owed = True
        epoch = step // self._plan.steps_per_epoch
        self._log.add(CheckpointTaken(step, epoch, content))
        if self._held == step:
            self._end(Paused())
        elif self._last == step:
            self._finish_at(step)

    def _hold(self, step: int) -> None:
        """The first partition stands after a step; the others stop there too, and that is the checkpoint of the pause."""
        self._held = step
        if self._num_partitions == 1:
            self._end(Paused())
            return
        for index in range(1, self._num_partitions):
            self._partitions[index].line.send(type="snapshot", step=step)

    def _stop_early(self, message: Message) -> None:
        best = policies.best(self._evaluations)
        self._note(
            "early_stop",
            f"after epoch {message['epoch']}: none since epoch {best.epoch} has had a validation loss below {best.loss:.6g}",
        )
        self._finish_at(message["step"])

    def _finish_at(self, step: int) -> None:
        """End with success, once the checkpoint of the step is there."""
        self._last = step
        if self._checkpoint_step == step:
            self._end(Finished(self._result_step(step)))

    def _result_step(self, last: int) -> int:
        restores = self._plan.config.validation.restore_best and self._evaluations
        return policies.best(self._evaluations).step if restores else last

    # --- results that differ -----------------------------------------------------------------------------------

    def _settle(self, dispute: Dispute) -> None:
        """Two results for one block are not the same."""
        names = {lease: self._name(lease) for lease in dispute.workers}
        both = " and ".join(names.values())
        where = f"{_shards(dispute.block)} of step {dispute.step}"
        if dispute.resolved:
            self._is_wrong(dispute.workers[0], where)
        elif dispute.late:
            self._suspicions.append(dispute)
            self._note("corruption", f"{both} differ in {where}, which may be in the weights: back to the last checkpoint")
            self._partition_is_lost(f"silent corruption in {where}")
        else:
            self._note("corruption", f"{both} differ in {where}; it is computed a third time")
            chosen = policies.arbiter(dispute.workers, [worker.lease for worker in self._present])
            if chosen is not None:
                self._workers[chosen].tell(type="again", tick=dispute.tick, shard=dispute.block.start)

    def _judge(self, verdict: Verdict) -> None:
        """A block that was disputed when its step was over has been computed a third time."""
        for dispute in list(self._suspicions):
            if (dispute.tick, dispute.block, dispute.bucket) != (verdict.tick, verdict.block, verdict.bucket):
                continue
            self._suspicions.remove(dispute)
            for lease, digest in zip(dispute.workers, dispute.digests, strict=True):
                if digest != verdict.digest:
                    self._is_wrong(lease, f"{_shards(dispute.block)} of step {dispute.step}")

    def _is_wrong(self, lease: int, where: str) -> None:
        self._note("corruption", f"{self._name(lease)} computed {where} wrong: two other results agree")
        if lease in self._workers:
            self._worker_is_lost(self._workers[lease], f"{self._name(lease)} computes wrong")

    def _name(self, lease: int) -> str:
        return self._names.get(lease, f"worker {lease}")

    def _note(self, kind: IncidentKind, message: str, seconds_lost: float = 0.0) -> None:
        logger.info("%s: %s: %s", self._spec.job, kind, message)
        self._log.add(Incident(kind, message, self._step, seconds_lost))

    # --- private -----------------------------------------------------------------------------------------------

    def _end(self, event: Event) -> None:
        if not self._over.done():
            self._over.set_result(event)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the rest; if it fails, so does the attempt."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._did)

    def _did(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(failure(error))


def failure(error: BaseException) -> Failed:
    """What an exception means for the attempt."""
    reasons = {
        LostPartError: "PART_LOST",
        PlacementError: NO_ROOM,
        FingerprintError: "FINGERPRINT_MISMATCH",
        CorruptionError: "SILENT_CORRUPTION",
    }
    reason = next((reason for kind, reason in reasons.items() if isinstance(error, kind)), "TRAINING_ERROR")
    text = "".join(traceback.format_exception(error))
    return Failed(reason, str(error), text, lost=isinstance(error, LostPartError))


def _count_partitions(spec: AttemptSpec) -> int:
    from chainrule.engine import models

    return len(make_layout(spec.plan, models.build(spec.plan.family, spec.plan.family_config)).partitions)


def _shards(block: Block) -> str:
    return f"shard {block.start}" if block.size == 1 else f"shards {block.start} to {block.start + block.size - 1}"
