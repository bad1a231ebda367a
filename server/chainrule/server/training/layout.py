"""Where every array of a model lies: in which partition, and at which byte of the memory that is exchanged.

A partition has three regions:

    moving      what a step changes: the trained parameters in buckets, the running statistics, the counters; it is
                there twice, and a third time for the average of the weights, if there is one
    push        what a worker sends for a block of shards: gradients and batch statistics, each at the place of what it
                changes
    constant    what training leaves alone: frozen parameters and other buffers; sent once

A bucket is a run of parameters of one dtype, ordered as their gradients become final, the last layer's first: so it can
be on its way while the backward pass goes on, and be summed and updated as one flat array.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np

from chainrule.engine import nn
from chainrule.engine.models import Outline, outline_of
from chainrule.engine.models.outlines import Spec, statistics_of
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import Array, Arrays

ALIGNMENT = 64
"""Bytes that every array and bucket begins at a multiple of: a cache line."""
BUCKET_BYTES = 8 * 1024**2
"""Size from which on a bucket takes no further parameter."""
PARTITION_BYTES = 32 * 1024**2
"""Parameters that are worth a partition of their own, on a node of its own."""


@dataclass(frozen=True)
class Place:
    """Where an array lies in a region."""

    offset: int
    """Its first byte."""
    dtype: str
    shape: tuple[int, ...]

    @cached_property
    def size(self) -> int:
        """Its elements."""
        return math.prod(self.shape)

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        return _dtype(self.dtype)

    @property
    def end(self) -> int:
        """The byte after its last."""
        return self.offset + self.size * self.numpy_dtype.itemsize

    def view(self, memory: memoryview) -> Array:
        """The array in a region's memory."""
        flat = np.frombuffer(memory, self.numpy_dtype, self.size, self.offset)
        return flat if len(self.shape) == 1 else flat.reshape(self.shape)


@dataclass(frozen=True)
class BatchNormRule:
    """How the running statistics of one BatchNorm layer follow the batch statistics."""

    mean: str
    """Buffer of the running mean."""
    variance: str
    """Buffer of the running variance."""
    count: str
    """Buffer that counts the batches."""
    momentum: float | None
    """Weight of the new value; None: the cumulative average."""


@dataclass(frozen=True)
class PartitionLayout:
    """One partition's share of a model."""

    index: int
    """Number of the partition, from 0. The first leads: it reports what steps measured."""
    buckets: tuple[Place, ...]
    """Flat, each of one dtype."""
    bucket_of: Mapping[str, int]
    """Bucket of each trained parameter."""
    parameters: Mapping[str, Place]
    """Trained parameters, in the moving region."""
    statistics: Mapping[str, Place]
    """Running means and variances, in the moving region behind the buckets."""
    counters: Mapping[str, Place]
    """Numbers of batches, in the moving region behind the statistics."""
    constants: Mapping[str, Place]
    """All others, in the constant region."""
    rules: tuple[BatchNormRule, ...]
    """The BatchNorm layers."""
    push_bytes: int
    """Size of what a worker sends for a block: the moving region without the counters."""
    moving_bytes: int
    constant_bytes: int
    averaged: bool = False
    """Whether an average of the weights is kept, in a moving region of its own."""

    @property
    def num_moving(self) -> int:
        """How many moving regions there are."""
        return 3 if self.averaged else 2

    @property
    def moving(self) -> dict[str, Place]:
        """All arrays of the moving region."""
        return {**self.parameters, **self.statistics, **self.counters}

    def slice_of(self, flat: Array, name: str) -> Array:
        """A parameter's elements in a flat array of its bucket."""
        first = self.first_of(name)
        return flat[first : first + self.parameters[name].size]

    def first_of(self, name: str) -> int:
        """A parameter's first element in its bucket."""
        place = self.parameters[name]
        return (place.offset - self.buckets[self.bucket_of[name]].offset) // place.numpy_dtype.itemsize

    @cached_property
    def statistics_range(self) -> tuple[int, int]:
        """First byte and end of the statistics in the push region."""
        start = self.buckets[-1].end if self.buckets else 0
        return _aligned(start), self.push_bytes


@dataclass(frozen=True)
class Layout:
    """A model, spread over partitions."""

    partitions: tuple[PartitionLayout, ...]
    trained: tuple[str, ...]
    """Names of the trained parameters, in the order of the model."""


def make_layout(plan: Plan, model: nn.Module | Outline) -> Layout:
    """The layout of a plan's model, or of its outline; a function of these alone, so that all processes agree on it."""
    outline = model if isinstance(model, Outline) else outline_of(model)
    parameters, buffers = outline.parameters, outline.buffers
    trained = tuple(name for name in parameters if is_trained(name, plan.config.trainable))
    rules = batch_norm_rules(outline)
    tracked = {name for rule in rules for name in (rule.mean, rule.variance, rule.count)}
    frozen = {name: spec for name, spec in parameters.items() if name not in trained}
    frozen |= {name: spec for name, spec in buffers.items() if name not in tracked}

    wanted = {name: parameters[name] for name in reversed(trained)}
    count = max(1, plan.config.partitions)
    if plan.config.clip_norm or plan.config.non_finite == "skip" or plan.config.staleness:
        count = 1  # all gradients together decide about the step; shards are at one place only if not at one tick
    shares = _spread(wanted, min(count, max(1, len(wanted))))
    return Layout(
        tuple(
            replace(
                _partition_layout(index, share, rules if index == 0 else (), buffers, frozen if index == 0 else {}),
                averaged=plan.config.ema_decay > 0,
            )
            for index, share in enumerate(shares)
        ),
        trained,
    )


def with_partitions(plan: Plan, *, nodes: int) -> Plan:
    """The plan with a number of partitions, where none is asked for: one for each node of the cluster, as far as each
    has enough to do. It does not change the results, so attempts on different clusters may differ in it."""
    if plan.config.partitions:
        return plan
    parameters = plan.architecture.outline().parameters
    size = sum(_bytes(spec) for name, spec in parameters.items() if is_trained(name, plan.config.trainable))
    count = max(1, min(nodes, size // PARTITION_BYTES))
    return replace(plan, config=replace(plan.config, partitions=count))


def count_partitions(plan: Plan) -> int:
    """How many partitions a plan has."""
    return len(make_layout(plan, plan.architecture.outline()).partitions)


def is_trained(name: str, patterns: Iterable[str]) -> bool:
    """Whether a parameter's name fits one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def batch_norm_rules(model: nn.Module | Outline) -> tuple[BatchNormRule, ...]:
    """How the running statistics of a model are updated."""
    outline = model if isinstance(model, Outline) else outline_of(model)
    return tuple(BatchNormRule(*statistics_of(path), momentum) for path, momentum in outline.batch_norms.items())


def views(places: Mapping[str, Place], memory: memoryview) -> Arrays:
    """The arrays of a region by name."""
    return {name: place.view(memory) for name, place in places.items()}


# --- private ---------------------------------------------------------------------------------------------------


def _partition_layout(
    index: int,
    share: Mapping[str, Spec],
    rules: tuple[BatchNormRule, ...],
    buffers: Mapping[str, Spec],
    frozen: Mapping[str, Spec],
) -> PartitionLayout:
    parameters, buckets, bucket_of, end = _in_buckets(share)
    means = [name for rule in rules for name in (rule.mean, rule.variance)]
    statistics, push_bytes = _packed({name: buffers[name] for name in means}, _aligned(end))
    counters, moving_bytes = _packed({rule.count: buffers[rule.count] for rule in rules}, _aligned(push_bytes))
    constants, constant_bytes = _packed(frozen, 0)
    return PartitionLayout(
        index=index,
        buckets=tuple(buckets),
        bucket_of=bucket_of,
        parameters=parameters,
        statistics=statistics,
        counters=counters,
        constants=constants,
        rules=rules,
        push_bytes=push_bytes,
        moving_bytes=moving_bytes,
        constant_bytes=constant_bytes,
    )


def _in_buckets(share: Mapping[str, Spec]) -> tuple[dict[str, Place], list[Place], dict[str, int], int]:
    places: dict[str, Place] = {}
    bucket_of: dict[str, int] = {}
    bounds: list[tuple[int, int, str]] = []
    offset = start = 0
    dtype = ""
    for name, spec in share.items():
        offset = _aligned(offset)
        if dtype and (spec[0] != dtype or offset - start >= BUCKET_BYTES):
            bounds.append((start, offset, dtype))
            start = offset
        dtype = spec[0]
        places[name] = Place(offset, *spec)
        bucket_of[name] = len(bounds)
        offset = places[name].end
    if dtype:
        offset = _aligned(offset)
        bounds.append((start, offset, dtype))
    buckets = [Place(a, kind, ((b - a) // _dtype(kind).itemsize,)) for a, b, kind in bounds]
    return places, buckets, bucket_of, offset


def _packed(specs: Mapping[str, Spec], offset: int) -> tuple[dict[str, Place], int]:
    places = {}
    for name, spec in specs.items():
        places[name] = Place(_aligned(offset), *spec)
        offset = places[name].end
    return places, offset


def _spread(specs: Mapping[str, Spec], count: int) -> list[dict[str, Spec]]:
    """Parameters over partitions, the largest first to where there is least; each keeps the order of all."""
    sizes = [0] * count
    home: dict[str, int] = {}
    for name in sorted(specs, key=lambda name: -_bytes(specs[name])):
        least = sizes.index(min(sizes))
        home[name] = least
        sizes[least] += _bytes(specs[name])
    return [{name: spec for name, spec in specs.items() if home[name] == index} for index in range(count)]


def _bytes(spec: Spec) -> int:
    return math.prod(spec[1]) * _dtype(spec[0]).itemsize


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
