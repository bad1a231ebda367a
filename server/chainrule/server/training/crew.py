"""The workers of an attempt: who is there, who computes what, and what happens when one is lost, late or wrong."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Collection, Coroutine
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

from chainrule.server.training import policies
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.contributions import Dispute, Verdict
from chainrule.server.training.errors import FingerprintError, PlacementError
from chainrule.server.training.events import NO_ROOM, Event, Failed, IncidentKind, Started, WorkersChanged
from chainrule.server.training.fingerprint import differences, from_json, to_json
from chainrule.server.training.logs import tidy
from chainrule.server.training.parts import LAST_WORDS_S, Placement, WorkerPart
from chainrule.server.training.reduction import Block, assign, blocks_of
from chainrule.server.training.switchboard import Line, Message
from chainrule.server.training.tls import Identity
from chainrule.server.training.wire import Endpoint

MAX_REFUSED = 5
"""How many workers in a row may be refused while nobody is there."""
MAX_UNLINKED = 20
"""How often in a row a worker may fail to reach a partition that the coordinator can reach."""
UNLINKED_DELAY_S = 0.25
"""Time before it tries again: if the partition is gone, the coordinator knows by then."""
GRACE_S = 1.0
"""How long a result that differs may be on its way after its worker has gone on."""
START_LEASES = 12
"""How many leases a worker may take to call, before another is asked for."""
ROOM_TIMEOUT_S = 60.0
"""How long the cluster may take to start as many workers as a job needs at least."""

logger = logging.getLogger(__name__)


class Desk(Protocol):
    """What the crew needs of its coordinator."""

    identity: Identity
    endpoint: Endpoint

    def tell_partitions(self, **message: Any) -> None: ...

    def add(self, event: Event) -> None: ...

    def note(self, kind: IncidentKind, message: str) -> None: ...

    def end(self, event: Event) -> None: ...

    def do(self, work: Coroutine[Any, Any, None]) -> None: ...

    def after_loss(self, cause: str, replace: Any, *, at_least_s: float = 0.0) -> None: ...

    def recovers(self, cause: str) -> None: ...

    def roll_back(self, cause: str) -> None: ...


class Crew:
    """The workers. Lives in the coordinator's event loop; its methods do not wait."""

    def __init__(self, spec: AttemptSpec, placement: Placement, desk: Desk) -> None:
        self._spec = spec
        self._config = spec.plan.config
        self._placement = placement
        self._desk = desk
        self._target = spec.workers
        self._workers: dict[int, WorkerPart] = {}
        self._names: dict[int, str] = {}
        self._next_lease = 1
        self._fingerprint = from_json(spec.fingerprint) if spec.fingerprint else {}
        self._started = False
        self._refused = 0  # workers in a row
        self._reported = -1
        self._fence = -1
        self._endpoints: list[dict[str, Any]] = []
        self._failures: list[policies.WorkerFailure] = []
        self._suspicions: list[Dispute] = []
        self._overdue: dict[tuple[int, int], float] = {}  # when ticks that were helped with were left behind, by lease

    # --- coming and going --------------------------------------------------------------------------------------

    def scale(self, workers: int) -> None:
        """Go on with that many workers, as far as there is room."""
        if workers != self._target:
            self._desk.note("scaled", f"from {self._target} to {workers} workers, as asked")
        self._target = workers
        self.fill()

    def fill(self) -> None:
        """Ask for as many workers as are wanted and not there; let go of those too many."""
        there = sorted(self._workers.values(), key=lambda worker: (worker.line is None, worker.lease))
        for _ in range(self._target - len(there)):
            lease, self._next_lease = self._next_lease, self._next_lease + 1
            self._workers[lease] = WorkerPart(lease, time.monotonic())
            ended = partial(self._ended, lease)
            self._desk.do(self._placement.start_worker(lease, self._desk.identity, self._desk.endpoint, ended))
        for worker in there[self._target :]:  # those that have not come yet go first
            worker.leaving = True
        self.assign()  # before they go
        for worker in there[self._target :]:
            self._dismiss(worker)
        self._report("as asked")

    def is_there(self, lease: int, line: Line, message: Message) -> None:
        """A worker has called."""
        worker = self._workers.get(lease)
        if worker is None:  # it was given up meanwhile
            line.close()
            return
        worker.line, worker.node, worker.seen_s = line, message["node"], time.monotonic()
        self._names[lease] = worker.name
        if self._is_admissible(worker, message["fingerprint"]):
            self._refused = 0
            self._introduce(worker)
        else:
            self._dismiss(worker)
            pause_s = policies.after_refusal(self._refused)
            self._desk.after_loss(f"{worker.name} was refused", self._refill, at_least_s=pause_s)

    def close(self) -> None:
        """The attempt is over: whoever ends from now on is not missed."""
        self._target, self._workers = 0, {}

    def introduce(self, fence: int, endpoints: list[dict[str, Any]]) -> None:
        """Tell all workers, and those to come, where the partitions of a fence are."""
        self._fence, self._endpoints = fence, endpoints
        for worker in self._workers.values():
            self._introduce(worker)

    def part_from_partitions(self, cause: str) -> None:
        """The partitions are gone; until the workers are introduced to others, they wait."""
        self._endpoints = []
        for worker in self._workers.values():
            worker.joined = False
        self._report(cause)

    def heard(self, lease: int, message: Message) -> None:
        """A worker said something."""
        worker = self._workers.get(lease)
        if worker is None:
            return
        worker.seen_s = time.monotonic()
        match message["type"]:
            case "beat":
                worker.tick, worker.working = message["tick"], message["working"]
            case "joined" if message["fence"] == self._fence:
                worker.joined = True
                worker.unlinked = 0
                self.assign()
                self._report(f"{worker.name} has joined")
            case "unlinked" if message["fence"] == self._fence:
                self._unlinked(worker)
            case "failed":
                self._failed(worker, message)

    def lost(self, lease: int, cause: str = "") -> None:
        """Hand a worker's shards to the others, within the running step, and start another in its place."""
        worker = self._workers.pop(lease, None)
        if worker is None:
            return
        cause = cause or f"{worker.name} is gone"
        logger.warning("%s: %s", self._spec.job, cause)
        self._desk.tell_partitions(type="revoke", lease=lease)  # whatever still comes from it is refused
        if worker.line is not None:
            worker.line.close()
        self._desk.do(self._placement.end_worker(lease))
        if worker.joined and worker.shards:
            self._desk.recovers(f"{cause}; its shards went to the others")
        self.assign()
        self._report(cause)
        self._desk.after_loss(cause, self._refill)

    def replace_owners(self, shards: Collection[int], cause: str) -> None:
        """Give up the workers whose shards these are."""
        for worker in [worker for worker in self.present if set(worker.shards) & set(shards)]:
            self.lost(worker.lease, f"{worker.name} hangs: {cause}")

    def hung_up(self, lease: int, line: Line) -> None:
        """A line has ended; a worker whose it was is lost."""
        worker = self._workers.get(lease)
        if worker is not None and worker.line is line:
            self.lost(lease)

    def _unlinked(self, worker: WorkerPart) -> None:
        """A worker has lost a partition that may be there nevertheless: it is sent there again."""
        worker.joined = False
        worker.unlinked += 1
        if worker.unlinked > MAX_UNLINKED:
            self.lost(worker.lease, f"{worker.name} cannot reach the parameter server")
            return
        self.assign()
        self._report(f"{worker.name} has lost its link to the parameter server")

        async def again(fence: int) -> None:
            await asyncio.sleep(UNLINKED_DELAY_S)
            if fence == self._fence:
                self._introduce(worker)

        self._desk.do(again(self._fence))

    async def _refill(self) -> None:
        self.fill()

    def _ended(self, lease: int, cause: str) -> None:
        async def later() -> None:
            await asyncio.sleep(LAST_WORDS_S)
            if lease in self._workers:
                self.lost(lease, f"{self._workers[lease].name} ended: {cause}")

        if lease in self._workers:
            self._desk.do(later())

    def _failed(self, worker: WorkerPart, message: Message) -> None:
        found = policies.WorkerFailure(message["tick"], tidy(message["message"]), tidy(message["traceback"]))
        decision = policies.after_failure(self._failures, found)
        self._failures.append(found)
        if decision is not None:
            self._desk.end(Failed(decision.reason, decision.message, found.traceback, lost=decision.lost))
        else:
            self.lost(worker.lease, f"{worker.name} failed: {found.message}")

    def _dismiss(self, worker: WorkerPart) -> None:
        """Let a worker go whose shards are others' already."""
        self._workers.pop(worker.lease, None)
        worker.tell(type="leave")
        self._desk.do(self._placement.end_worker(worker.lease))

    def _introduce(self, worker: WorkerPart) -> None:
        if self._endpoints:
            suspects = [dispute.tick for dispute in self._suspicions]
            worker.tell(type="partitions", fence=self._fence, endpoints=self._endpoints, suspects=suspects)

    def _is_admissible(self, worker: WorkerPart, found: dict[str, str]) -> bool:
        """Whether a worker computes the same bits as the others. If none does, the attempt is over."""
        if not self._fingerprint:
            self._fingerprint = found
        different = differences(found, self._fingerprint)
        if not different or not self._config.exact:
            return True
        error = FingerprintError(
            f"{worker.name} does not compute as the job began ({'; '.join(different)}); "
            "give it the same kernels, instruction set, threads and versions, or submit with exact: false"
        )
        self._desk.note("refused", str(error))
        self._refused += 1
        alone = self._workers.keys() <= {worker.lease}  # nobody else is there or to come
        if alone and (self._refused > MAX_REFUSED or not self._started):
            self._desk.end(Failed("FINGERPRINT_MISMATCH", str(error), "", lost=False))
        return False

    # --- shards ------------------------------------------------------------------------------------------------

    @property
    def present(self) -> list[WorkerPart]:
        """The workers that can compute, in the order of their leases."""
        there = (worker for worker in self._workers.values() if worker.joined and not worker.leaving)
        return sorted(there, key=lambda worker: worker.lease)

    def assign(self) -> None:
        """Tell every worker its shards; none while there are fewer workers than the job wants at least.

        In which order they hear of it does not matter: a tick is not over before somebody has computed each of its
        shards, and what two have computed is the same.
        """
        present = self.present
        enough = len(present) >= self._minimum
        leases = [worker.lease for worker in present[: self._config.shards]]
        ranges = assign(self._config.shards, leases) if enough else {}
        owners = {shard: lease for lease, shards in ranges.items() for shard in shards}
        auditors = policies.auditors(owners) if self._config.audit_fraction or self._suspicions else {}
        for worker in present:
            worker.shards = tuple(ranges.get(worker.lease, ()))
            worker.tell(type="assign", shards=worker.shards, auditors=auditors)
        if enough and not self._started:
            self._started = True
            self._reported = len(present)
            self._desk.add(Started(len(present), to_json(self._fingerprint)))

    def help(self, decision: policies.Speculate, waiting: policies.Waiting) -> None:
        """Have shards computed a second time that are waited for."""
        step = self._spec.plan.tick(decision.tick).step + 1
        for lease, shards in decision.slow.items():
            blocks = blocks_of(shards)
            watched = [asdict(block) for block in blocks]
            self._desk.tell_partitions(type="watch", tick=decision.tick, blocks=watched, report=False)
            self._workers[lease].speculated += 1
            self._overdue[decision.tick, lease] = math.inf
            self._desk.note(
                "straggler",
                f"{self._names[lease]} is late with {', '.join(map(_shards, blocks))} of step {step}: "
                f"{waiting.seconds:.1f} s where {waiting.expected_s:.3f} s are usual; others compute them, too",
            )
        for lease, shards in decision.helpers.items():
            self._workers[lease].tell(type="compute", tick=decision.tick, shards=shards)
        for lease in decision.slow:
            self._workers[lease].tell(type="late", tick=decision.tick)
            if (times := self._workers[lease].speculated) >= policies.MAX_SPECULATIONS:
                self.lost(lease, f"{self._names[lease]} was late {times} times in a row")

    def went_on(self, tick: int) -> None:
        """A tick was complete without waiting for anybody."""
        for worker in self._workers.values():
            if worker.tick >= tick - 1:
                worker.speculated = 0

    @property
    def sights(self) -> list[policies.Sight]:
        """What is known of those present."""
        return [policies.Sight(w.lease, w.shards, w.tick, w.working) for w in self.present]

    @property
    def _minimum(self) -> int:
        return max(1, min(self._config.min_workers, self._config.shards, self._target))

    def _report(self, reason: str) -> None:
        count = len(self.present)
        if self._started and count != self._reported:
            self._reported = count
            self._desk.add(WorkersChanged(count, reason, count >= self._minimum))

    # --- leases ------------------------------------------------------------------------------------------------

    def check(self, now_s: float, lease_s: float) -> None:
        """Give up those whose lease has run out; end the attempt if there is no room for enough."""
        signs = {lease: worker.seen_s for lease, worker in self._workers.items() if worker.line is not None}
        for lease in policies.silent(signs, now_s=now_s, lease_s=lease_s):
            self.lost(lease, f"{self._names[lease]} gave no sign of life for {lease_s:g} s")
        asked = [worker.asked_s for worker in self._workers.values()]
        if not self._started and asked and now_s - max(asked) > ROOM_TIMEOUT_S:
            error = PlacementError(
                f"{len(self.present)} of at least {self._minimum} workers started within {ROOM_TIMEOUT_S:.0f} s; "
                "look at the cluster with: chainrule cluster"
            )
            self._desk.end(Failed(NO_ROOM, str(error), "", lost=False))
        elif self._started:
            self._ask_again(now_s, START_LEASES * lease_s)

    def _ask_again(self, now_s: float, patience_s: float) -> None:
        """Ask for others in place of workers that have not called for long: there is no room, or they hang."""
        overdue = [w for w in self._workers.values() if w.line is None and now_s - w.asked_s > patience_s]
        for worker in overdue:
            self._dismiss(worker)
        if overdue:
            self.fill()

    def excuse(self, now_s: float) -> None:
        """Nobody could be heard for a while: their leases begin anew."""
        for worker in self._workers.values():
            worker.seen_s = now_s

    def awaits_second_results(self, now_s: float) -> bool:
        """Whether a worker that was helped may still come with its own result, which may be another one."""
        for (tick, lease), since_s in list(self._overdue.items()):
            worker = self._workers.get(lease)
            if worker is None or now_s - since_s > GRACE_S:
                del self._overdue[tick, lease]
            elif worker.tick > tick and since_s == math.inf:
                self._overdue[tick, lease] = now_s
        return bool(self._overdue)

    # --- results that differ -----------------------------------------------------------------------------------

    @property
    def suspicions(self) -> list[Dispute]:
        """Disputes about steps that were over, until a third result has decided them."""
        return self._suspicions

    def settle(self, dispute: Dispute) -> None:
        """Two results for one block are not the same."""
        names = {lease: self._name(lease) for lease in dispute.workers}
        both = " and ".join(names.values())
        where = f"{_shards(dispute.block)} of step {dispute.step}"
        if dispute.resolved:
            self._is_wrong(dispute.workers[0], where)
        elif dispute.late:
            self._suspicions.append(dispute)
            self._desk.note(
                "corruption", f"{both} differ in {where}, which may be in the weights: back to the last checkpoint"
            )
            self._desk.roll_back(f"silent corruption in {where}")
        else:
            self._desk.note("corruption", f"{both} differ in {where}; it is computed a third time")
            chosen = policies.arbiter(dispute.workers, [worker.lease for worker in self.present])
            if chosen is not None:
                self._workers[chosen].tell(type="again", tick=dispute.tick, shard=dispute.block.start)

    def judge(self, verdict: Verdict) -> None:
        """A block that was disputed when its step was over has been computed a third time."""
        for dispute in list(self._suspicions):
            if (dispute.tick, dispute.block, dispute.bucket) != (verdict.tick, verdict.block, verdict.bucket):
                continue
            self._suspicions.remove(dispute)
            for lease, digest in zip(dispute.workers, dispute.digests, strict=True):
                if digest != verdict.digest:
                    self._is_wrong(lease, f"{_shards(dispute.block)} of step {dispute.step}")

    def _is_wrong(self, lease: int, where: str) -> None:
        self._desk.note("corruption", f"{self._name(lease)} computed {where} wrong: two other results agree")
        if lease in self._workers:
            self.lost(lease, f"{self._name(lease)} computes wrong")

    def _name(self, lease: int) -> str:
        return self._names.get(lease, f"worker {lease}")


def _shards(block: Block) -> str:
    return f"shard {block.start}" if block.size == 1 else f"shards {block.start} to {block.start + block.size - 1}"
