"""Checkpoints: whole or refused."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from chainrule.engine import io
from chainrule.server.training import checkpoint
from chainrule.server.training.checkpoint import CheckpointError, Manifest, Packed
from chainrule.server.training.config import Adam, Sgd
from chainrule.server.training.state import Arrays, TrainingState
from tests.server.training.bench import make_partition, random_results, tiny_plan

STATE = TrainingState(
    step=7,
    parameters={"fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.empty((0, 3), np.float32)},
    buffers={"bn.num_batches_tracked": np.array(7), "bn.running_mean": np.zeros(2, np.float32)},
    slots={"momentum_buffer": {"fc.weight": np.ones((2, 3), np.float32)}},
    updates=5,
)
CONTENT = checkpoint.pack(STATE)
MANIFEST = Manifest("jobs/j", epoch=1, step=7, state_digest=io.digest(CONTENT), state_bytes=len(CONTENT))


def assert_same(found: TrainingState, expected: TrainingState) -> None:
    assert (found.step, found.updates) == (expected.step, expected.updates)
    assert found.array_digests() == expected.array_digests()
    assert found.digest() == expected.digest()


# --- states ----------------------------------------------------------------------------------------------------


def test_a_state_comes_back_as_it_was() -> None:
    assert_same(checkpoint.unpack(CONTENT, MANIFEST), STATE)


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.1), Sgd(lr=0.1, momentum=0.9), Adam()], ids=str)
@pytest.mark.parametrize("steps", [0, 2])
def test_the_state_of_a_partition_comes_back_as_it_was(steps: int, optimizer: Sgd | Adam) -> None:
    partition = make_partition(tiny_plan(optimizer=optimizer))
    for number in range(steps):
        for result in random_results(partition.layout, 4, seed=number):
            result.push(partition)
    state = partition.state_now()
    again = checkpoint.unpacked(checkpoint.pack(state))
    assert_same(again, state)
    assert_same(make_partition(partition.plan, state=again).state_now(), state)


def test_a_state_packed_into_memory_is_the_same() -> None:
    memory = bytearray(checkpoint.packed_bytes(STATE))
    there = checkpoint.pack_into(STATE, memoryview(memory))
    assert memory == CONTENT
    assert_same(there, STATE)


def test_a_packed_state_goes_beside_a_pickle() -> None:
    beside: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(Packed(CONTENT), protocol=5, buffer_callback=beside.append)
    assert len(pickled) < 200
    again = pickle.loads(pickled, buffers=[bytearray(buffer.raw()) for buffer in beside])
    assert again == Packed(CONTENT) == pickle.loads(pickle.dumps(Packed(CONTENT), protocol=5))
    assert again != Packed(CONTENT[:-1])
    assert len(again) == len(CONTENT)


def test_the_same_state_is_the_same_bytes() -> None:
    turned = {name: np.asfortranarray(array) for name, array in reversed(STATE.parameters.items())}
    assert checkpoint.pack(replace(STATE, parameters=turned)) == CONTENT


def test_every_flipped_byte_is_noticed() -> None:
    for place in range(len(CONTENT)):
        damaged = bytearray(CONTENT)
        damaged[place] ^= 1
        with pytest.raises(CheckpointError, match="checkpoint of jobs/j at step 7 is damaged: its content has SHA-256"):
            checkpoint.unpack(bytes(damaged), MANIFEST)


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"\0", CONTENT[: len(CONTENT) // 2]])
def test_what_is_cut_off_or_too_long_is_noticed(content: bytes) -> None:
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.unpack(content, MANIFEST)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 9, CONTENT[:40]])
def test_what_is_no_file_of_weights_is_refused_as_such(content: bytes) -> None:
    with pytest.raises(CheckpointError, match="this is no checkpoint: not safetensors"):
        checkpoint.unpacked(content)


@pytest.mark.parametrize(
    "tensors", [{}, {"fc.weight": np.ones(3, np.float32)}, {"position": np.array([7])}, {"position": np.array(7)}]
)
def test_weights_that_are_no_checkpoint_are_refused(tensors: Arrays) -> None:
    with pytest.raises(CheckpointError, match="a checkpoint has no position: it is not one of this version"):
        checkpoint.unpacked(io.save(tensors))


# --- manifests -------------------------------------------------------------------------------------------------


def test_a_manifest_comes_back_as_it_was() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"\xff\xfe", b"7", json.dumps({"job": "jobs/j", "surprise": 1}).encode()],
)
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint manifest"):
        Manifest.from_json(content)


def test_a_manifest_of_another_format_is_refused() -> None:
    other = replace(MANIFEST, format="chainrule.checkpoint/9")
    with pytest.raises(CheckpointError, match=r"checkpoint of format 'chainrule.checkpoint/9'"):
        Manifest.from_json(other.to_json())
