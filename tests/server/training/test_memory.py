"""Memory that processes share: who sees what in it, and what is said when there is not enough."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from chainrule.server.training import memory
from chainrule.server.training.layout import PartitionLayout, make_layout
from chainrule.server.training.memory import (
    IN_PLACE,
    WRITING,
    Segment,
    SharedMemoryError,
    Slot,
    Weights,
    available_bytes,
)
from chainrule.server.training.plan import AVERAGED
from tests.server.training.runs import small_plan


def small_layout() -> PartitionLayout:
    plan = small_plan(trainable=("*weight",))
    [layout] = make_layout(plan, plan.architecture.build()).partitions
    return layout


LAYOUT = small_layout()
AVERAGED_LAYOUT = replace(LAYOUT, averaged=True)
A_STEP = {name: np.full(place.shape, 7, place.numpy_dtype) for name, place in LAYOUT.moving.items()}


def make_weights() -> Weights:
    segment = Segment.make("test", Weights.size(LAYOUT))
    weights = Weights(segment, LAYOUT)
    segment.close()
    return weights


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- segments --------------------------------------------------------------------------------------------------


def test_a_segment_begins_as_zeros_and_has_the_size_asked_for() -> None:
    segment = Segment.make("test", 1000)
    assert bytes(segment.memory) == bytes(1000)
    assert os.fstat(segment.descriptor).st_size == 1000
    segment.close()


def test_whoever_has_the_descriptor_sees_the_same_memory() -> None:
    first = Segment.make("test", 100)
    second = Segment.of(os.dup(first.descriptor))
    first.memory[42] = 17
    assert second.memory[42] == 17
    assert second.size == 100
    first.close()
    second.close()
    second.memory[43] = 18  # it stays as long as it is mapped
    assert first.memory[43] == 18


def test_another_process_sees_the_same_memory() -> None:
    segment = Segment.make("test", 10)
    code = "import mmap, sys; mmap.mmap(int(sys.argv[1]), 10)[:5] = b'hello'"
    subprocess.run([sys.executable, "-c", code, str(segment.descriptor)], pass_fds=[segment.descriptor], check=True)
    assert bytes(segment.memory) == b"hello" + bytes(5)
    segment.close()


def test_nothing_is_an_amount_too() -> None:
    segment = Segment.make("test", 0)
    assert segment.size == 1
    segment.close()


def test_to_close_twice_is_to_close_once() -> None:
    before = open_descriptors()
    segment = Segment.make("test", 10)
    segment.close()
    segment.close()
    del segment
    assert open_descriptors() == before


def test_it_has_a_name_for_people_and_none_in_a_folder() -> None:
    segment = Segment.make("chainrule/odd name " + "x" * 300, 4096)
    seen = os.readlink(f"/proc/self/fd/{segment.descriptor}")
    assert seen.startswith("/memfd:chainrule/odd name xxx")
    assert seen.endswith("(deleted)")
    segment.close()


# --- too much --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1 << 45, 1 << 62, 1 << 63, 1 << 100])
def test_more_than_there_is_is_refused_before_anything_is_taken(size: int) -> None:
    before = open_descriptors()
    with pytest.raises(
        SharedMemoryError, match=rf"cannot share {size:,} bytes of memory for weights: [\d,]+ are avail"
    ):
        Segment.make("weights", size)
    assert open_descriptors() == before


def test_what_the_system_refuses_is_told_and_leaves_nothing() -> None:
    """Here it is the largest file that this process may make."""
    before = open_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(SharedMemoryError, match=r"cannot share 2,097,152 bytes of memory for weights: .*too large"):
            Segment.make("weights", 2 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert open_descriptors() == before


def test_what_is_available_is_asked_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available_bytes() <= total
    monkeypatch.setattr(memory, "available_bytes", lambda: 100)
    Segment.make("test", 100).close()
    with pytest.raises(SharedMemoryError, match="cannot share 101 bytes of memory for test: 100 are available"):
        Segment.make("test", 101)


# --- weights ---------------------------------------------------------------------------------------------------


def test_two_steps_lie_beside_each_other() -> None:
    weights = make_weights()
    for name, array in A_STEP.items():
        weights.arrays(3)[name][...] = array
        weights.arrays(4)[name][...] = array + 1
    for name, array in A_STEP.items():
        np.testing.assert_array_equal(weights.arrays(3)[name], array)
        np.testing.assert_array_equal(weights.arrays(4)[name], array + 1)
        assert np.shares_memory(weights.arrays(5)[name], weights.arrays(3)[name])
    for array in weights.constants.values():
        assert not array.any()


def test_readers_are_told_which_versions_there_are() -> None:
    weights = make_weights()
    weights.versions[:] = (4, 3)
    assert [step for step in range(8) if weights.holds(step)] == [3, 4]
    weights.versions[5 % 2] = WRITING
    assert [step for step in range(8) if weights.holds(step)] == [4]
    weights.versions[5 % 2] = 5
    assert [step for step in range(8) if weights.holds(step)] == [4, 5]


def test_an_average_lies_beside_both_steps() -> None:
    segment = Segment.make("test", Weights.size(AVERAGED_LAYOUT))
    segment.close()
    weights = Weights(segment, AVERAGED_LAYOUT)
    weights.versions[:] = (4, 3, AVERAGED + 4)
    assert [version for version in (3, 4, AVERAGED + 3, AVERAGED + 4) if weights.holds(version)] == [3, 4, AVERAGED + 4]
    weights.arrays(AVERAGED + 4)["fc.weight"][...] = 1.0
    assert not any(weights.arrays(step)["fc.weight"].any() for step in (3, 4))
    assert not any(array.any() for array in weights.constants.values())
    weights.versions[2] = WRITING
    assert not weights.holds(AVERAGED + 4)


def test_weights_in_place_are_those_of_every_step() -> None:
    weights = make_weights()
    weights.versions[:] = IN_PLACE
    assert all(weights.holds(step) for step in range(5))
    assert [weights.region(step) for step in range(3)] == [0, 0, 0]
    assert np.shares_memory(weights.arrays(0)["fc.weight"], weights.arrays(1)["fc.weight"])


def test_a_bucket_and_its_parameters_are_the_same_memory() -> None:
    weights = make_weights()
    [bucket] = LAYOUT.buckets
    weights.flat(1, bucket)[...] = 2.5
    assert all((weights.arrays(1)[name] == 2.5).all() for name in LAYOUT.parameters)
    assert not any(weights.arrays(0)[name].any() for name in LAYOUT.parameters)


def test_the_other_side_reads_what_was_written() -> None:
    segment = Segment.make("test", Weights.size(LAYOUT))
    ours, theirs = Weights(segment, LAYOUT), Weights(Segment.of(os.dup(segment.descriptor)), LAYOUT)
    ours.arrays(2)["fc.weight"][...] = 1.5
    ours.constants["fc.bias"][...] = 0.25
    ours.versions[0] = 2
    assert theirs.holds(2)
    assert (theirs.arrays(2)["fc.weight"] == 1.5).all()
    assert (theirs.constants["fc.bias"] == 0.25).all()
    segment.close()
    theirs.segment.close()


# --- slots -----------------------------------------------------------------------------------------------------


def test_a_slot_says_of_which_tick_it_is() -> None:
    ours = Slot.make("test", LAYOUT)
    theirs = Slot.of(os.dup(ours.segment.descriptor), LAYOUT)
    ours.begin(5)
    ours.memory[:4] = b"grad"
    assert int(theirs.tick[0]) == 5
    assert bytes(theirs.memory[:4]) == b"grad"
    assert len(theirs.memory) == LAYOUT.push_bytes
    ours.close()
    theirs.close()
