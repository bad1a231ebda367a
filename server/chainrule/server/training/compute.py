"""What a worker computes: forward and backward on shards, added up in blocks, straight into the memory it sends."""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import chainrule.engine as cr
from chainrule.engine import data, nn
from chainrule.engine.models import all_draws
from chainrule.server.architecture import CodeArchitecture
from chainrule.server.training.contributions import HEAD, WHOLE, Measured
from chainrule.server.training.examples import ExampleSource
from chainrule.server.training.layout import Layout, make_layout, views
from chainrule.server.training.memory import Weights
from chainrule.server.training.objectives import Objective
from chainrule.server.training.plan import Indices, Plan, Tick
from chainrule.server.training.reading import Lot, Reader, input_columns
from chainrule.server.training.reduction import Block, carries
from chainrule.server.training.state import Array, Arrays

MAX_SEEDS = 64
"""Most starts of backward passes that are kept."""

Send = Callable[[int, int, Measured], None]
"""Called with a partition, a part and what was measured, once the part lies whole in the memory."""


class Computation:
    """A model with the shards of its plan. It holds nothing that cannot be computed again."""

    def __init__(self, plan: Plan, examples: ExampleSource, validation: ExampleSource | None = None) -> None:
        self.plan = plan
        architecture = plan.architecture
        is_code = isinstance(architecture, CodeArchitecture)  # what it calls its attributes says nothing
        self.model = architecture.build()
        self.layout = make_layout(plan, architecture.outline() if is_code else self.model)
        self._drawing = all_draws if is_code else _engine_draws
        columns = input_columns(None if is_code else self.model, plan.config)
        self._reader = Reader(plan, examples, validation, inputs=columns)
        self._parameters = dict(self.model.named_parameters())
        self._buffers = dict(self.model.named_buffers())
        self._trained = {name: self._parameters[name] for name in self.layout.trained}
        self._is_small = len(self.layout.partitions) == 1 and len(self.layout.partitions[0].buckets) == 1
        self._levels: list[Sink] = []
        self._pieces: list[Sink] = []
        for name, parameter in self._parameters.items():
            if name in self._trained:
                parameter.register_post_accumulate_grad_hook(self._hook(name))
            else:
                parameter.requires_grad_(False)
        self._weights: Sequence[Weights] = ()
        self._views: list[list[tuple[cr.Tensor, Array]]] = [[], []]
        self._sink: Sink | None = None
        self._landing: Sink | None = None
        self._left: Sequence[Sink] = ()
        self._seeds: dict[float, cr.Tensor] = {}
        self._objective = Objective(plan.config) if is_code else Objective.of(plan.config, self.model)
        self._amounts: tuple[int, tuple[float, ...]] = (-1, ())  # of the batch of a step
        self._validation_amounts: tuple[float, ...] = ()
        self._send: Send | None = None
        self._measured = Measured()

    def attach(self, weights: Sequence[Weights]) -> None:
        """Compute with the weights of these partitions from now on; they are only read."""
        self._weights = weights
        self._views = [[] for _ in weights[0].moving]
        for region, of in itertools.product(range(len(self._views)), weights):
            for name, array in of.moving[region].items():
                self._views[region].append((self._tensor(name), _read_only(array)))
        for of in weights:
            for name, array in of.constants.items():
                self._tensor(name).data = _read_only(array)

    def load(self, version: int) -> None:
        """Compute with the weights after so many steps, or another version of them; see `Plan.version`."""
        for tensor, array in self._views[self._weights[0].region(version)]:
            tensor.data = array

    def holds(self, version: int) -> bool:
        """Whether the weights of a version are still what they were."""
        return all(weights.holds(version) for weights in self._weights)

    def sink(self, memories: Sequence[memoryview]) -> Sink:
        """Where the results of a block go: a push region for each partition."""
        return Sink(self.layout, memories)

    def block(self, tick: Tick, block: Block, sink: Sink, send: Send) -> None:
        """Compute a block of shards of a tick.

        Args:
            tick: what is computed; its weights are loaded.
            block: shards of which none is empty.
            sink: where the sum over the block goes.
            send: told of each part that is done; the gradients of the last layers are first, while the backward pass
                of the last shard goes on.
        """
        if tick.evaluates:
            measured = []
            for number, indices in enumerate(self._shards_of(self.plan.validation_shards(), block), block.start):
                with self._drawing(self._seed_of_draws(tick.step, number, evaluates=True)):
                    measured.append(self._evaluate(indices))
            total = _in_tree(measured)
            for partition in range(len(self.layout.partitions)):
                send(partition, HEAD, total)
            return
        pending: list[tuple[Sink, Measured]] = []
        for place, carry in enumerate(carries(block.size)):
            shard = block.start + place
            left = [pending.pop() for _ in range(carry)]
            is_last = place == block.size - 1
            into = sink if is_last else self._level(self._levels, carry)
            lot = self._reader.shard(tick.step, shard)
            self._reader.expect_shard(tick.step + 1, shard)
            with self._drawing(self._seed_of_draws(tick.step, shard)):
                measured_here = self._in_pieces(lot, tick.step, into, left, send if is_last else None)
            pending.append((into, measured_here))

    # --- private -----------------------------------------------------------------------------------------------

    def _in_pieces(
        self, lot: Lot, step: int, sink: Sink, left: Sequence[tuple[Sink, Measured]], send: Send | None
    ) -> Measured:
        """A shard in the pieces that it is accumulated from: each has the sum of those before it on its left, and the
        last one also what lies to the left of the shard in the tree."""
        parts = [part for part in data.split(len(lot), self.plan.config.accumulate) if part.start < part.stop]
        before: list[tuple[Sink, Measured]] = []
        for place, part in enumerate(parts):
            is_last = place == len(parts) - 1
            into = sink if is_last else self._level(self._pieces, place % 2)
            added = [*before, *left] if is_last else before
            self._left = [one for one, _ in added]
            self._send = send if is_last else None
            before = [(into, self._shard(lot.part(part), step, into, [one for _, one in added]))]
        [(_, measured)] = before
        return measured

    def _shard(self, lot: Lot, step: int, sink: Sink, left: Sequence[Measured]) -> Measured:
        """Forward and backward on one shard, or a piece of it, of the global batch of a step.

        The loss of the job is the mean over the global batch. A shard of n of its N examples has the share n/N in it,
        so backward starts from n/N instead of 1: no division is left for later, and with one shard the gradients have
        the bits of plain local training. Where what counts has weights, the share is that of what it is divided by.
        """
        share = len(lot) / self.plan.batch_size(step)
        with nn.collect_batch_statistics(self.model) as statistics:
            outputs = self._forward(lot)
        cost = self._objective.cost(outputs, lot.targets, self._amounts_at(step))
        if lot.others is not None:
            cost = cost.mixed(self._objective.cost(outputs, lot.others, self._amounts_at(step)), lot.weight)
        measured = self._objective.measure(cost, outputs, lot.targets)
        for other in left:
            measured = other + measured
        for name, value in statistics.items():
            self._put(sink.statistics[name], name, value * value.dtype.type(share), of="statistics")
        self._begin(sink, measured)
        if self._send is not None:
            self._send_heads()
        cost.tensor.backward(self._seed(cost.seed, cost.tensor))
        for name in [name for name in self._trained if name not in sink.arrived]:  # not used by this forward
            self._arrived(name, np.zeros_like(self._trained[name].data))
        self._sink = None
        return measured

    def _begin(self, sink: Sink, measured: Measured) -> None:
        """Have the gradients of the backward pass that comes land in a sink."""
        if sink is not self._landing:
            for name, parameter in self._trained.items():
                parameter.grad_memory = sink.gradients[name]
            self._landing = sink
        self._sink = sink
        self._measured = measured
        sink.begin()

    def _seed(self, share: float, loss: cr.Tensor) -> cr.Tensor:
        """Where a backward pass starts from; there are few different ones, unless labels have weights."""
        if share not in self._seeds:
            if len(self._seeds) >= MAX_SEEDS:
                self._seeds.clear()
            self._seeds[share] = cr.tensor(share, dtype=loss.dtype)
        return self._seeds[share]

    def _hook(self, name: str) -> Callable[[cr.Tensor], None]:
        def take(parameter: cr.Tensor) -> None:
            gradient = parameter.grad
            assert gradient is not None
            parameter.grad = None
            self._arrived(name, gradient.data)

        return take

    def _arrived(self, name: str, gradient: Array) -> None:
        """A gradient is final: add it to what lies to its left in the tree; send its bucket if that was the last."""
        sink = self._sink
        assert sink is not None
        self._put(sink.gradients[name], name, gradient, of="gradients")
        sink.arrived.add(name)
        home = sink.home[name]
        sink.waiting[home] -= 1
        if self._send is not None and sink.waiting[home] == 0 and not self._is_small:
            self._send(*home, Measured())
        elif self._send is not None and self._is_small and len(sink.arrived) == len(self._trained):
            self._send(0, WHOLE, self._measured)

    def _put(self, out: Array, name: str, value: Array, *, of: str) -> None:
        if not self._left and value is not out:
            np.copyto(out, value)
        for level in self._left:
            value = np.add(getattr(level, of)[name], value, out=out)

    def _send_heads(self) -> None:
        assert self._send is not None
        if not self._is_small:
            for partition in range(len(self.layout.partitions)):
                self._send(partition, HEAD, self._measured)

    def _level(self, levels: list[Sink], level: int) -> Sink:
        while len(levels) <= level:
            levels.append(self.sink([memoryview(bytearray(part.push_bytes)) for part in self.layout.partitions]))
        return levels[level]

    def _forward(self, lot: Lot) -> Any:
        """What the model gives for a step, computed in the precision of the job, for the loss in float32."""
        inputs = map(cr.from_numpy, lot.inputs)
        if self.plan.config.precision == "float32":
            return self.model(*inputs)
        with cr.autocast("cpu", cr.bfloat16):
            return _in_float32(self.model(*inputs))

    def _evaluate(self, indices: Indices) -> Measured:
        """The share of some validation examples in the mean loss over all; computed in pieces of a batch's size."""
        self.model.eval()
        amounts, total = self._amounts_of_validation(), Measured()
        with cr.no_grad():
            size = self.plan.config.batch_size
            for start in range(0, len(indices), size):
                lot = self._reader.evaluated(indices[start : start + size])
                self._reader.expect_evaluated(indices[start + size : start + 2 * size])
                outputs = self.model(*map(cr.from_numpy, lot.inputs))
                cost = self._objective.cost(outputs, lot.targets, amounts)
                total = total + self._objective.measure(cost, outputs, lot.targets)
        self.model.train()
        return total if any(amounts) else replace(total, loss=math.nan)  # of nothing that counts; 0 would be the best

    def _amounts_at(self, step: int) -> tuple[float, ...]:
        """What the losses over the global batch of a step are divided by. Where that depends on targets, all of the
        batch are read: each worker does it for itself, so that no step waits for another exchange."""
        if self._amounts[0] != step:
            of_batch = partial(self._reader.targets, step)
            self._amounts = step, self._objective.amounts(self.plan.batch_size(step), of_batch)
        return self._amounts[1]

    def _amounts_of_validation(self) -> tuple[float, ...]:
        """Likewise, of all validation examples."""
        if not self._validation_amounts:
            count, of_all = self.plan.num_validation, self._reader.evaluated_targets
            self._validation_amounts = self._objective.amounts(count, of_all)
        return self._validation_amounts

    def _seed_of_draws(self, step: int, shard: int, *, evaluates: bool = False) -> int:
        """Of what dropout and the like draw: a function of the job's seed, the step and the shard; others where a shard
        of the validation examples is evaluated after the step."""
        key = struct.pack("<QQQ", self.plan.config.seed, step, shard) + b"evaluation" * evaluates
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")

    def _tensor(self, name: str) -> cr.Tensor:
        return self._parameters[name] if name in self._parameters else self._buffers[name]

    @staticmethod
    def _shards_of(shards: Sequence[Indices], block: Block) -> Sequence[Indices]:
        return shards[block.start : block.start + block.size]


def _engine_draws(seed: int) -> AbstractContextManager[None]:
    """Draws inside, from the engine's default generator, are a function of the seed."""
    return cr.random.using(cr.Generator(seed))


class Sink:
    """Where the gradients and statistics of a block lie, as arrays by name."""

    def __init__(self, layout: Layout, memories: Sequence[memoryview]) -> None:
        self.gradients: Arrays = {}
        self.statistics: Arrays = {}
        self.home: dict[str, tuple[int, int]] = {}
        self._counts: dict[tuple[int, int], int] = {}
        for part, memory in zip(layout.partitions, memories, strict=True):
            self.gradients.update(views(part.parameters, memory))
            self.statistics.update(views(part.statistics, memory))
            for name, bucket in part.bucket_of.items():
                self.home[name] = (part.index, bucket)
                self._counts[part.index, bucket] = self._counts.get((part.index, bucket), 0) + 1
        self.arrived: set[str] = set()
        self.waiting: dict[tuple[int, int], int] = {}

    def begin(self) -> None:
        self.arrived = set()
        self.waiting = dict(self._counts)


def _read_only(array: Array) -> Array:
    """The array, for those who must not write to it: others on this machine have the same memory."""
    view = array.view()
    view.flags.writeable = False
    return view


def _in_float32(outputs: Any) -> Any:
    """A tensor, or several, with what has half precision widened."""
    if isinstance(outputs, cr.Tensor):
        return outputs.float() if outputs.dtype == cr.bfloat16 else outputs
    if isinstance(outputs, Mapping):
        return {name: _in_float32(output) for name, output in outputs.items()}
    widened = [_in_float32(output) for output in outputs]
    return tuple(widened) if isinstance(outputs, tuple) else widened


def _in_tree(values: Sequence[Measured]) -> Measured:
    """The sum over a block, in the shape of the tree."""
    pending: list[Measured] = []
    for value, carry in zip(values, carries(len(values)), strict=True):
        for _ in range(carry):
            value = pending.pop() + value
        pending.append(value)
    [total] = pending
    return total
