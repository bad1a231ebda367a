"""Checkpoints: whole or refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from chainrule.engine import io
from chainrule.server.training import checkpoint
from chainrule.server.training.checkpoint import CheckpointError, Manifest
from chainrule.server.training.state import TrainingState

STATE = TrainingState(
    step=7,
    parameters={"fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3)},
    buffers={"bn.num_batches_tracked": np.array(7), "bn.running_mean": np.zeros(2, np.float32)},
    momentum={"fc.weight": np.ones((2, 3), np.float32)},
)
CONTENT = checkpoint.pack(STATE)
MANIFEST = Manifest("jobs/j", epoch=1, step=7, state_digest=io.digest(CONTENT), state_bytes=len(CONTENT))


def test_a_state_comes_back_as_it_was() -> None:
    state = checkpoint.unpack(CONTENT, MANIFEST)
    assert state.step == 7
    for section in ("parameters", "buffers", "momentum"):
        expected, actual = getattr(STATE, section), getattr(state, section)
        assert set(actual) == set(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(actual[name], array)
            assert actual[name].dtype == array.dtype


def test_a_manifest_comes_back_as_it_was() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST


def test_a_flipped_byte_is_noticed() -> None:
    damaged = bytearray(CONTENT)
    damaged[-1] ^= 1
    with pytest.raises(CheckpointError, match="checkpoint of jobs/j at step 7 is damaged"):
        checkpoint.unpack(bytes(damaged), MANIFEST)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", json.dumps({"job": "jobs/j", "surprise": 1}).encode()],
)
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint manifest"):
        Manifest.from_json(content)


def test_a_manifest_of_another_format_is_refused() -> None:
    other = replace(MANIFEST, format="chainrule.checkpoint/9")
    with pytest.raises(CheckpointError, match=r"checkpoint of format 'chainrule.checkpoint/9'"):
        Manifest.from_json(other.to_json())
