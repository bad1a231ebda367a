"""A partition of the parameter server: the single writer of its parameters, optimizer state and running statistics.

It knows nothing of processes and sockets: pushes go in, and when all shards of a tick are in, the next weights are
there.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from chainrule.engine.nn import functional as F
from chainrule.server.training import faults
from chainrule.server.training.audit import audited_shards
from chainrule.server.training.contributions import (
    HEAD,
    WHOLE,
    Dispute,
    Measured,
    Push,
    Verdict,
    add_heads,
    digest_of,
    same_bytes,
)
from chainrule.server.training.errors import CorruptionError, NonFiniteError
from chainrule.server.training.layout import PartitionLayout, Place
from chainrule.server.training.memory import WRITING, Weights
from chainrule.server.training.objectives import Objective
from chainrule.server.training.plan import AVERAGED, Plan, Tick
from chainrule.server.training.reduction import Block, Cover, ReductionError, tree_sum
from chainrule.server.training.state import AVERAGE, Array, Arrays, EvaluationMetric, StepMetric, TrainingState
from chainrule.server.training.update import TreeSum, Updater, clip_factor, is_finite, runs, sum_of_squares

REMEMBERED_TICKS = 1000
"""How long digests of blocks that were computed twice are kept."""
REMEDY = "lower the learning rate, set clip_norm, or look at the inputs' scale"


@dataclass
class _Tick:
    """What has come in for a tick."""

    head: Cover[tuple[Array | None, Measured]]
    buckets: list[Cover[Array]]
    applied: set[int] = field(default_factory=set)
    opinions: dict[Block, list[Push]] = field(default_factory=dict)
    winners: dict[Block, int] = field(default_factory=dict)


class Partition:
    """State and update rule, without any waiting."""

    def __init__(
        self,
        plan: Plan,
        layout: PartitionLayout,
        state: TrainingState,
        weights: Weights,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.plan = plan
        self.layout = layout
        self.weights = weights
        self.tick = plan.tick_after(state.step)
        self.step = state.step
        self.updates = state.updates
        self.metrics: list[StepMetric] = []
        self.evaluations: list[EvaluationMetric] = []
        self.disputes: list[Dispute] = []
        self.verdicts: list[Verdict] = []
        self.skipped: list[str] = []
        """Steps that were left out, and why."""
        self._updater = Updater(plan.config, plan.total_steps)
        self._objective = Objective(plan.config)
        self._clock = clock
        self._eager = not plan.config.clip_norm and plan.config.non_finite == "fail"
        self._rules = layout.rules
        self._runs = [self._updater.runs(layout, bucket) for bucket in range(len(layout.buckets))]
        self._slots = [
            {slot: self._slot_memory(slot, bucket) for slot in self._updater.slots} for bucket in layout.buckets
        ]
        self._load(state)
        self._watched: dict[int, dict[Block, bool]] = {}
        self._ledger: dict[tuple[int, Block, int], tuple[str, int]] = {}
        self._suspects: set[int] = set()
        self._now = self._begin()

    # --- pushes ------------------------------------------------------------------------------------------------

    def push(self, push: Push) -> bool:
        """Take in a part of a contribution; True if the tick is complete and the weights have moved on.

        Raises NonFiniteError, CorruptionError or ReductionError.
        """
        if push.tick != self.tick:
            self._compare_late(push)
            return False
        if push.block.size == 1 and push.block.start in self._audited:
            settled = self._opinion(push)
            if settled is None:
                return False
            push = settled
        for part in self._parts(push):
            self._take(push, part)
        if len(self._now.applied) < 1 + (0 if self._evaluates else len(self.layout.buckets)):
            return False
        self._complete()
        return True

    def goes_on(self) -> bool:
        """Whether, with the last push, a further tick is complete: not where all shards are at the same."""
        return False

    @property
    def clocks(self) -> Sequence[int]:
        """Where each shard is, if they need not be at the same tick."""
        return ()

    @property
    def missing(self) -> list[int]:
        """The shards that the running tick waits for."""
        missing = set(self._now.head.missing)
        if not self._evaluates:
            missing.update(shard for cover in self._now.buckets for shard in cover.missing)
        return sorted(missing)

    @property
    def untouched(self) -> bool:
        """Whether nothing of the running tick has been applied."""
        return not self._now.applied - {HEAD}

    @property
    def finished(self) -> bool:
        """Whether all ticks are done."""
        return self.tick >= self.plan.total_ticks

    @property
    def version(self) -> int:
        """The weights that the running tick is computed with."""
        return self.plan.version(self.plan.tick(self.tick)) if not self.finished else self.step

    def watch(self, tick: int, blocks: Iterable[Block], *, report: bool = False) -> None:
        """Remember the digests of these blocks of a tick, to be compared with results that come later; to `report` them
        makes verdicts of them, each of which two results have to agree on."""
        self._watched.setdefault(tick, {}).update(dict.fromkeys(blocks, report))
        if report:
            self._suspects.add(tick)
            if tick == self.tick and self.untouched:
                self._now = self._begin()

    # --- the state ---------------------------------------------------------------------------------------------

    def state_here(self) -> TrainingState:
        """This partition's share of the state, where it lies: it is overwritten by the next steps. Raises
        NonFiniteError for parameters that are not numbers."""
        now = self.weights.arrays(self.step)
        parameters = {name: now[name] for name in self.layout.parameters}
        bad = sorted(name for name, array in parameters.items() if not is_finite(array.reshape(-1)))
        if bad:
            raise NonFiniteError(f"{', '.join(bad)} is not finite after step {self.step}; {REMEDY}")
        buffers = {name: now[name] for name in (*self.layout.statistics, *self.layout.counters)}
        names = {name for rule in self._rules for name in (rule.mean, rule.variance, rule.count)}
        for name, array in self.weights.constants.items():
            assert name not in names
            (parameters if name in self._constant_parameters else buffers)[name] = array
        slots: dict[str, Arrays] = {}
        if self.updates:
            slots = {slot: self._slot_views(slot) for slot in self._updater.slots}
        return TrainingState(self.step, parameters, buffers, slots, self.updates)

    def state_now(self) -> TrainingState:
        """A copy of this partition's share of the state. Raises NonFiniteError for parameters that are not numbers."""
        return self.state_here().copy()

    # --- private: what comes in --------------------------------------------------------------------------------

    def _parts(self, push: Push) -> tuple[int, ...]:
        return (HEAD, *range(len(self.layout.buckets))) if push.part == WHOLE else (push.part,)

    def _begin(self) -> _Tick:
        tick = self.plan.tick(self.tick)
        self._evaluates = tick.evaluates
        shards = self.plan.occupied_shards(tick) if not self.finished else 1
        self._audited = frozenset[int]() if self.finished else audited_shards(self.plan, tick, suspects=self._suspects)
        if self.version >= AVERAGED:
            self._offer_average()
        return _Tick(Cover(shards), [Cover(shards) for _ in self.layout.buckets])

    def _take(self, push: Push, part: int) -> None:
        now = self._now
        if part == HEAD:
            start, stop = self.layout.statistics_range
            statistics = None
            if self.layout.statistics and not self._evaluates:
                statistics = np.frombuffer(push.memory[start:stop], np.float32)
            if now.head.add(push.block, (statistics, push.measured)) and now.head.complete:
                self._head_is_complete()
        elif not self._evaluates:
            value = self.layout.buckets[part].view(push.memory)
            if part not in now.applied and now.buckets[part].add(push.block, value):
                now.winners[push.block] = push.worker
                self._apply_ready(part)
            else:
                self._compare_again(push, part)

    def _head_is_complete(self) -> None:
        self._now.applied.add(HEAD)
        if not self._evaluates:
            loss = self._now.head.sum(add_heads)[1].loss
            if self._eager and not np.isfinite(loss):
                raise NonFiniteError(f"the loss is {loss} at {self._where}{_in_shards(self._not_finite())}; {REMEDY}")
            for bucket in range(len(self.layout.buckets)):
                self._apply_ready(bucket)

    def _apply_ready(self, bucket: int) -> None:
        """Once all shards of a bucket are there, update it at once, unless something about all of them decides."""
        now = self._now
        if bucket in now.applied or HEAD not in now.applied or not now.buckets[bucket].complete:
            return
        if self._eager:
            self._update(bucket, TreeSum(now.buckets[bucket].values, now.head.num_shards).run)
        now.applied.add(bucket)

    def _complete(self) -> None:
        self._remember_watched()
        statistics, measured = self._now.head.sum(add_heads)
        tick = self.plan.tick(self.tick)
        if not tick.evaluates:
            self._step_is_complete(statistics, measured)
        self._record(tick, measured)
        self.tick += 1
        self._now = self._begin()

    def _record(self, tick: Tick, measured: Measured) -> None:
        """What a tick that is complete has measured."""
        accuracy, values = self._objective.finish(measured)
        if tick.evaluates:
            self.evaluations.append(
                EvaluationMetric(
                    tick.epoch + 1, self.step, measured.loss, accuracy, self.plan.num_validation, self._clock(), values
                )
            )
        else:
            self.metrics.append(
                StepMetric(
                    step=self.step,
                    epoch=tick.epoch + 1,
                    loss=measured.loss if np.isfinite(measured.loss) else float("inf"),
                    accuracy=accuracy,
                    num_examples=self.plan.batch_size(tick.step),
                    time_s=self._clock(),
                    values=values,
                )
            )

    # --- private: the update -----------------------------------------------------------------------------------

    def _step_is_complete(self, statistics: Array | None, measured: Measured) -> None:
        applies = True
        if not self._eager:
            applies = self._update_all(measured)
        self._writes()
        old, new = self.weights.arrays(self.step), self.weights.arrays(self.step + 1)
        if applies and statistics is not None:
            self._apply_statistics(statistics, old, new)
        else:
            for name in (*self.layout.statistics, *self.layout.counters):
                new[name][...] = old[name]
        self.step += 1
        self.updates += applies
        self.weights.versions[self.step % 2] = self.step

    def _update_all(self, measured: Measured) -> bool:
        """Clip all gradients together and update; False if they are not finite and the step is to be left out."""
        shards = self._now.head.num_shards
        totals = [TreeSum(cover.values, shards).whole() for cover in self._now.buckets]
        gradients = {
            name: self.layout.slice_of(totals[self.layout.bucket_of[name]], name) for name in self.layout.parameters
        }
        bad = sorted(name for name, g in gradients.items() if not np.isfinite(g).all())
        if bad or not np.isfinite(measured.loss):
            cause = f"the loss is {measured.loss}" if not bad else f"the gradient of {', '.join(bad)} is not finite"
            cause = f"{cause} at {self._where}{_in_shards(self._not_finite())}"
            if self.plan.config.non_finite == "fail":
                raise NonFiniteError(f"{cause}; {REMEDY}")
            self.skipped.append(f"{cause}: its update was left out")
            self._writes()
            for place in self.layout.buckets:
                self.weights.flat(self.step + 1, place)[...] = self.weights.flat(self.step, place)
            return False
        if self.plan.config.clip_norm:
            squares = {name: sum_of_squares(g) for name, g in gradients.items()}
            factor = clip_factor(squares, self.plan.config.clip_norm)
            for total in totals:
                total *= total.dtype.type(factor)
        for bucket, total in enumerate(totals):
            self._update(bucket, lambda start, stop, of=total: of[start:stop])  # type: ignore[misc]
        return True

    def _update(self, bucket: int, gradient: Callable[[int, int], Array]) -> None:
        """Write the parameters of a bucket after this step, from those before it."""
        self._writes()
        faults.at("partition.update", index=self.layout.index, step=self.step + 1, bucket=bucket)
        place = self.layout.buckets[bucket]
        old, new = self.weights.flat(self.step, place), self.weights.flat(self.step + 1, place)
        slots = self._slots[bucket]
        for run in self._runs[bucket]:
            start, stop = run.start, run.stop
            g = gradient(start, stop)
            if not is_finite(g):
                self._refuse_gradient(bucket, gradient)
            state = {slot: s[start:stop] for slot, s in slots.items()}
            lr = self._updater.rate(self.step, run.optimizer)
            self._updater.apply(
                old[start:stop], new[start:stop], g, state, lr=lr, updates=self.updates, optimizer=run.optimizer
            )

    def _refuse_gradient(self, bucket: int, gradient: Callable[[int, int], Array]) -> None:
        place = self.layout.buckets[bucket]
        whole = np.concatenate([gradient(start, stop).copy() for start, stop in runs(place.size)])
        names = [name for name, of in self.layout.bucket_of.items() if of == bucket]
        bad = sorted(name for name in names if not np.isfinite(self.layout.slice_of(whole, name)).all())
        where = f"{self._where}{_in_shards(self._not_finite())}"
        raise NonFiniteError(f"the gradient of {', '.join(bad)} is not finite at {where}; {REMEDY}")

    def _not_finite(self) -> set[Block]:
        """The blocks of which something is not finite by itself."""
        found = {block for block, (_, one) in self._now.head.values.items() if not np.isfinite(one.loss)}
        for cover in self._now.buckets:
            found.update(block for block, value in cover.values.items() if not is_finite(value))
        return found

    def _apply_statistics(self, total: Array, old: Arrays, new: Arrays) -> None:
        start, _ = self.layout.statistics_range
        for rule in self._rules:
            new[rule.count][...] = old[rule.count] + 1
            factor = 1.0 / int(new[rule.count]) if rule.momentum is None else rule.momentum
            for name in (rule.mean, rule.variance):
                place = self.layout.statistics[name]
                first = (place.offset - start) // total.itemsize
                seen = total[first : first + place.size].reshape(place.shape)
                new[name][...] = F.running_update(old[name], seen, factor)

    def _writes(self) -> None:
        self.weights.versions[(self.step + 1) % 2] = WRITING
        if self.layout.averaged:
            self.weights.versions[2] = WRITING

    def _offer_average(self) -> None:
        """Have the running tick, an evaluation, computed with the average of the weights; the statistics are those of
        the step, and so are the weights as long as there has been no update."""
        now, averaged = self.weights.arrays(self.step), self.weights.moving[2]
        names = (*self.layout.statistics, *self.layout.counters, *(() if self.updates else self.layout.parameters))
        for name in names:
            averaged[name][...] = now[name]
        self.weights.versions[2] = AVERAGED + self.step

    @property
    def _where(self) -> str:
        return f"step {self.step + 1} (epoch {self.plan.epoch_of(self.step) + 1})"

    # --- private: results that come twice ----------------------------------------------------------------------

    def _opinion(self, push: Push) -> Push | None:
        """For an audited shard, the first result that a second one has confirmed; None while there is none."""
        known = self._now.opinions.setdefault(push.block, [])
        known.append(push)
        if len(known) == 1:
            return None
        for other in known[:-1]:
            if self._same(push, other):
                wrong = [third for third in known if not self._same(third, push)]
                self.disputes += [self._dispute(push.block, (third.worker,), resolved=True) for third in wrong]
                return other
        if any(self._same(one, other) for one, other in itertools.combinations(known, 2)):
            self.disputes.append(self._dispute(push.block, (push.worker,), resolved=True))
            return None
        if len(known) > 2:
            raise CorruptionError(
                f"shard {push.block.start} of {self._where} was computed {len(known)} times, by the workers "
                f"{', '.join(str(p.worker) for p in known)}, and no two results have the same bits; "
                "look at the machines' memory"
            )
        self.disputes.append(self._dispute(push.block, tuple(p.worker for p in known)))
        return None

    def _dispute(self, block: Block, workers: tuple[int, ...], *, resolved: bool = False) -> Dispute:
        return Dispute(self.tick, self.step + 1, block, workers, resolved)

    def _same(self, one: Push, other: Push) -> bool:
        size = self.layout.push_bytes if not self._evaluates else 0
        return one.measured.bits == other.measured.bits and same_bytes(one.memory[:size], other.memory[:size])

    def _remember_watched(self) -> None:
        """Keep the digests of the watched blocks of the tick that is complete now, and forget those long past."""
        watched = self._watched.pop(self.tick, {})
        if not watched or self._evaluates:
            return
        for (block, report), (bucket, cover) in itertools.product(watched.items(), enumerate(self._now.buckets)):
            held = [inside for inside in cover.values if inside in block]
            if not held:  # it came as a part of a larger one, from the worker that was waited for
                continue
            digest = digest_of(tree_sum(cover.values, block, np.add))
            self._ledger[self.tick, block, bucket] = (digest, self._now.winners.get(held[0], -1))
            if report:
                self.verdicts.append(Verdict(self.tick, block, bucket, digest))
        self._ledger = {key: value for key, value in self._ledger.items() if key[0] > self.tick - REMEMBERED_TICKS}

    def _compare_again(self, push: Push, bucket: int) -> None:
        """A bucket of a block that has come already: it must be the same, since the first one may be in the weights."""
        values = self._now.buckets[bucket].values
        inside = [block for block in values if block in push.block]
        if not inside:  # it came as a part of a larger block
            return
        first = tree_sum(values, push.block, np.add)
        second = self.layout.buckets[bucket].view(push.memory)
        if not np.array_equal(first.view(np.uint8), second.view(np.uint8)):
            workers = (self._now.winners.get(inside[0], -1), push.worker)
            digests = (digest_of(first), digest_of(second))
            self.disputes.append(Dispute(self.tick, self.step + 1, push.block, workers, False, True, bucket, digests))

    def _compare_late(self, push: Push) -> None:
        for bucket in range(len(self.layout.buckets)) if push.part == WHOLE else (push.part,):
            known = self._ledger.pop((push.tick, push.block, bucket), None)
            if known is None:
                continue
            digest = digest_of(self.layout.buckets[bucket].view(push.memory))
            if digest != known[0] and push.stands:
                step, workers = self.plan.tick(push.tick).step + 1, (known[1], push.worker)
                self.disputes.append(
                    Dispute(push.tick, step, push.block, workers, False, True, bucket, (known[0], digest))
                )

    # --- private: loading --------------------------------------------------------------------------------------

    def _load(self, state: TrainingState) -> None:
        now = self.weights.arrays(self.step)
        given = {**state.parameters, **state.buffers}
        self._constant_parameters = frozenset(name for name in self.layout.constants if name in state.parameters)
        self.weights.versions[:] = WRITING
        for target in (now, self.weights.constants):
            for name, array in target.items():
                array[...] = given[name]
        self.weights.versions[self.step % 2] = self.step
        for slot in self._updater.slots if state.updates else ():
            for name, array in self._slot_views(slot).items():
                array[...] = state.slots[slot][name]

    def _slot_memory(self, slot: str, bucket: Place) -> Array:
        """Where a slot lies: the average where workers can read it."""
        if slot == AVERAGE:
            return bucket.view(self.weights.regions[2])
        return np.zeros(bucket.shape, np.dtype(bucket.dtype))

    def _slot_views(self, slot: str) -> Arrays:
        found = {}
        for name, place in self.layout.parameters.items():
            if slot not in self._updater.slots_of(name):
                continue
            bucket = self.layout.bucket_of[name]
            found[name] = self.layout.slice_of(self._slots[bucket][slot], name).reshape(place.shape)
        return found


def _in_shards(blocks: Iterable[Block]) -> str:
    """Where in a step, for people; empty if it is in no shard by itself."""
    shards = sorted(shard for block in blocks for shard in range(block.start, block.start + block.size))
    return f", in shard {', '.join(map(str, shards))}" if shards else ""


def merged(parts: Mapping[int, TrainingState]) -> TrainingState:
    """The state of which each partition has a share."""
    shares = [parts[index] for index in sorted(parts)]
    if len({(share.step, share.updates) for share in shares}) != 1:
        raise ReductionError(f"partitions are at different steps: {[share.step for share in shares]}")
    slots: dict[str, Arrays] = {}
    for share in shares:
        for slot, arrays in share.slots.items():
            slots.setdefault(slot, {}).update(arrays)
    return TrainingState(
        shares[0].step,
        {name: array for share in shares for name, array in share.parameters.items()},
        {name: array for share in shares for name, array in share.buffers.items()},
        slots,
        shares[0].updates,
    )
