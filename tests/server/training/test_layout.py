"""Where arrays lie: each once, apart, aligned, in buckets of one dtype, and the same for everybody."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule.engine as cr
from chainrule.engine import models, nn
from chainrule.server.architecture import Builtin
from chainrule.server.training import layout as layouts
from chainrule.server.training.config import TrainingConfig
from chainrule.server.training.layout import (
    ALIGNMENT,
    BatchNormRule,
    Layout,
    PartitionLayout,
    Place,
    batch_norm_rules,
    is_trained,
    make_layout,
    views,
    with_partitions,
)
from chainrule.server.training.plan import Plan

GPT: dict[str, Any] = {"vocab_size": 11, "context": 6, "dim": 8, "heads": 2, "layers": 2}
FAMILIES = {"small_cnn": {"width": 3}, "gpt": GPT, "mlp": {"in_features": 5, "hidden": [7, 3]}}
MODELS = {family: models.build(family, config) for family, config in FAMILIES.items()}


def plan(family: str = "small_cnn", **config: Any) -> Plan:
    return Plan(Builtin(family, FAMILIES[family]), 10, 0, TrainingConfig(**config))


def laid_out(family: str = "small_cnn", **config: Any) -> Layout:
    return make_layout(plan(family, **config), MODELS[family])


def saved_buffers(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_buffers() if name in model.state_dict()]


def assert_apart(places: Iterable[Place], size: int) -> None:
    """They are aligned, do not overlap, and end within a region."""
    ordered = sorted(places, key=lambda place: place.offset)
    assert all(place.offset % ALIGNMENT == 0 for place in ordered)
    assert all(left.end <= right.offset for left, right in itertools.pairwise(ordered))
    assert not ordered or ordered[-1].end <= size


def assert_sound(part: PartitionLayout) -> None:
    assert_apart(part.moving.values(), part.moving_bytes)
    assert_apart(part.constants.values(), part.constant_bytes)
    assert_apart([*part.buckets, *part.statistics.values()], part.push_bytes)
    assert all(part.push_bytes <= place.offset for place in part.counters.values())
    assert part.bucket_of.keys() == part.parameters.keys()
    for name, place in part.parameters.items():
        bucket = part.buckets[part.bucket_of[name]]
        assert bucket.offset <= place.offset
        assert place.end <= bucket.end
        assert bucket.dtype == place.dtype


class Mixed(nn.Module):
    """Parameters of three dtypes, in turns."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(cr.zeros(3))
        self.b = nn.Parameter(cr.zeros(2, 2))
        self.c = nn.Parameter(cr.zeros(5, dtype=cr.float64))
        self.d = nn.Parameter(cr.zeros(1, dtype=cr.bfloat16))
        self.e = nn.Parameter(cr.zeros(()))


# --- where things lie ------------------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(FAMILIES)), st.integers(0, 30), st.sampled_from([("*",), ("*weight",), ("fc.*", "*.0.*")])
)
def test_every_array_lies_once_and_apart(family: str, partitions: int, trainable: tuple[str, ...]) -> None:
    model = MODELS[family]
    found = laid_out(family, partitions=partitions, trainable=trainable)
    for part in found.partitions:
        assert_sound(part)
    homes = [name for part in found.partitions for name in (*part.moving, *part.constants)]
    expected = [name for name, _ in model.named_parameters()] + saved_buffers(model)
    assert sorted(homes) == sorted(expected)
    trained = [name for part in found.partitions for name in part.parameters]
    assert sorted(trained) == sorted(found.trained)
    assert list(found.trained) == [name for name, _ in model.named_parameters() if is_trained(name, trainable)]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_places_have_the_shapes_and_dtypes_of_the_model(family: str) -> None:
    [part] = laid_out(family).partitions
    state = MODELS[family].state_dict()
    for name, place in {**part.moving, **part.constants}.items():
        assert (place.shape, place.dtype) == (state[name].shape, state[name].data.dtype.name)


def test_only_the_first_partition_has_statistics_and_what_is_frozen() -> None:
    first, *others = laid_out(partitions=3, trainable=("*weight",)).partitions
    assert [name for name in first.statistics if name.startswith("bn1")] == ["bn1.running_mean", "bn1.running_var"]
    assert set(first.counters) == {"bn1.num_batches_tracked", "bn2.num_batches_tracked"}
    assert {"conv1.bias", "bn1.bias", "fc.bias"} <= set(first.constants)
    assert len(others) == 2
    for other in others:
        assert (other.statistics, other.counters, other.constants, other.rules) == ({}, {}, {}, ())
        assert other.push_bytes == other.moving_bytes


def test_statistics_are_sent_behind_the_buckets() -> None:
    [part] = laid_out().partitions
    start, stop = part.statistics_range
    assert start == part.buckets[-1].end
    assert stop == part.push_bytes
    assert {place.offset for place in part.statistics.values()} <= set(range(start, stop))


def test_all_that_is_frozen_is_constant() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    [part] = make_layout(plan(trainable=("1.*",)), model).partitions
    assert list(part.constants) == ["0.weight", "0.bias"]
    assert list(part.parameters) == ["1.bias", "1.weight"]


# --- buckets ---------------------------------------------------------------------------------------------------


def test_what_becomes_final_first_is_first() -> None:
    found = laid_out()
    [part] = found.partitions
    assert list(part.parameters) == list(reversed(found.trained))
    offsets = [place.offset for place in part.parameters.values()]
    assert offsets == sorted(offsets)


def test_a_bucket_has_one_dtype() -> None:
    [part] = make_layout(plan(), Mixed()).partitions
    assert_sound(part)
    assert [bucket.dtype for bucket in part.buckets] == ["float32", "bfloat16", "float64", "float32"]
    assert part.bucket_of == {"e": 0, "d": 1, "c": 2, "b": 3, "a": 3}
    assert part.parameters["d"].numpy_dtype == ml_dtypes.bfloat16


def test_a_bucket_that_is_large_enough_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {name: p.data.nbytes for name, p in MODELS["mlp"].named_parameters()}
    monkeypatch.setattr(layouts, "BUCKET_BYTES", 1)
    [part] = laid_out("mlp").partitions
    assert_sound(part)
    assert len(part.buckets) == len(sizes)
    monkeypatch.setattr(layouts, "BUCKET_BYTES", 2 * ALIGNMENT)
    [part] = laid_out("mlp").partitions
    assert_sound(part)
    assert 1 < len(part.buckets) < len(sizes)
    assert all(bucket.end - bucket.offset >= 2 * ALIGNMENT for bucket in part.buckets[:-1])


def test_a_bucket_is_its_parameters_as_one_flat_array() -> None:
    [part] = laid_out().partitions
    memory = memoryview(bytearray(part.push_bytes))
    [bucket] = part.buckets
    bucket.view(memory)[...] = np.arange(bucket.size)
    for name, array in views(part.parameters, memory).items():
        first = (part.parameters[name].offset - bucket.offset) // 4
        np.testing.assert_array_equal(array.reshape(-1), np.arange(first, first + array.size))


# --- partitions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "given_"), [(0, 1), (1, 1), (3, 3), (10, 10), (11, 10), (500, 10)])
def test_there_are_as_many_partitions_as_asked_for_and_parameters_to_fill_them(asked: int, given_: int) -> None:
    found = laid_out(partitions=asked)
    assert [part.index for part in found.partitions] == list(range(given_))
    assert all(part.parameters for part in found.partitions)


def test_partitions_are_about_as_large() -> None:
    found = laid_out("gpt", partitions=3)
    sizes = [sum(place.end - place.offset for place in part.parameters.values()) for part in found.partitions]
    largest = max(p.data.nbytes for _, p in MODELS["gpt"].named_parameters())
    assert max(sizes) - min(sizes) <= largest


@pytest.mark.parametrize("config", [{"clip_norm": 1.0}, {"non_finite": "skip"}])
def test_what_all_gradients_decide_takes_one_partition(config: dict[str, Any]) -> None:
    assert len(laid_out(partitions=3, **config).partitions) == 1


def test_the_number_of_partitions_follows_size_and_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(p.data.nbytes for _, p in MODELS["small_cnn"].named_parameters())
    monkeypatch.setattr(layouts, "PARTITION_BYTES", size // 2)
    found = [with_partitions(plan(), nodes=nodes).config.partitions for nodes in (1, 2, 3, 100)]
    assert found == [1, 2, 2, 2]
    monkeypatch.setattr(layouts, "PARTITION_BYTES", size + 1)
    assert with_partitions(plan(), nodes=8).config.partitions == 1


def test_what_is_frozen_needs_no_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = sum(p.data.nbytes for name, p in MODELS["small_cnn"].named_parameters() if name.startswith("fc."))
    monkeypatch.setattr(layouts, "PARTITION_BYTES", trained // 3)
    assert with_partitions(plan(trainable=("fc.*",)), nodes=100).config.partitions == 3


def test_a_number_that_was_asked_for_stays() -> None:
    asked = plan(partitions=5)
    assert with_partitions(asked, nodes=2) is asked


# --- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("fc.weight", ("fc.*",), True),
        ("fc.weight", ("conv*", "*.weight"), True),
        ("FC.weight", ("fc.*",), False),
        ("layer1.0.fc.weight", ("fc.*",), False),
        ("fc.weight", (), False),
    ],
)
def test_patterns_say_what_is_trained(name: str, patterns: tuple[str, ...], expected: bool) -> None:
    assert is_trained(name, patterns) is expected


def test_only_layers_that_track_have_rules() -> None:
    model = nn.Sequential(
        nn.BatchNorm1d(2, momentum=None), nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(4, momentum=0.3)
    )
    assert batch_norm_rules(model) == (
        BatchNormRule("0.running_mean", "0.running_var", "0.num_batches_tracked", None),
        BatchNormRule("2.running_mean", "2.running_var", "2.num_batches_tracked", 0.3),
    )
