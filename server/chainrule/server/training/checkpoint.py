"""Checkpoints: the training state as a safetensors file, and a manifest that says what it is and how to tell whether it
is whole."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from chainrule.engine import ChainruleError, FormatError, io
from chainrule.server.training.state import Arrays, TrainingState

FORMAT = "chainrule.checkpoint/2"

_POSITION = "position"
"""Name of the tensor with the steps done and the updates applied."""


class CheckpointError(ChainruleError):
    """A checkpoint that is not whole or not one of ours."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is."""

    job: str
    """Resource name of the job."""
    epoch: int
    """Epochs done."""
    step: int
    """Steps done."""
    state_digest: str
    """SHA-256 of the state's safetensors file."""
    state_bytes: int
    """Its size."""
    format: str = FORMAT
    """Name and version of the layout."""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Raises CheckpointError if it is not a manifest of this format."""
        try:
            manifest = cls(**json.loads(content))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"not a checkpoint manifest: {error}") from error
        if manifest.format != FORMAT:
            raise CheckpointError(f"checkpoint of format {manifest.format!r}; this version reads {FORMAT!r}")
        return manifest


class Packed:
    """A packed state, where it lies: it goes from process to process without being copied where that can be helped."""

    def __init__(self, memory: bytes | bytearray | memoryview) -> None:
        self.memory = memoryview(memory)

    def __len__(self) -> int:
        return len(self.memory)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed) and self.memory == other.memory

    __hash__ = None  # type: ignore[assignment]  # the memory may be written to

    def __reduce_ex__(self, protocol: Any) -> tuple[type[Packed], tuple[pickle.PickleBuffer]]:
        return Packed, (pickle.PickleBuffer(self.memory),)  # beside the pickle, if whoever pickles has a place for it


def pack(state: TrainingState) -> bytes:
    """The state as a safetensors file; its tensors are named section/name."""
    return io.save(_tensors(state))


def packed_bytes(state: TrainingState) -> int:
    """Length of `pack(state)` in bytes."""
    return io.saved_bytes(_tensors(state))


def pack_into(state: TrainingState, memory: memoryview) -> TrainingState:
    """Write `pack(state)` to the beginning of memory, copying each array once; the state as it lies there."""
    return _state(io.save_into(_tensors(state), memory))


def unpack(content: bytes, manifest: Manifest) -> TrainingState:
    """The state again. Raises CheckpointError if the content is not what the manifest says."""
    digest = io.digest(content)
    if digest != manifest.state_digest:
        raise CheckpointError(
            f"checkpoint of {manifest.job} at step {manifest.step} is damaged: "
            f"its content has SHA-256 {digest}, its manifest says {manifest.state_digest}"
        )
    return unpacked(content)


def unpacked(content: bytes | memoryview) -> TrainingState:
    """The state of a safetensors file that `pack` made, in memory of its own. Raises CheckpointError."""
    try:
        return _state(io.load(bytes(content)))
    except FormatError as error:
        raise CheckpointError(f"this is no checkpoint: {error}") from error


def _tensors(state: TrainingState) -> Arrays:
    sections = {"parameters": state.parameters, "buffers": state.buffers, **state.slots}
    tensors = {f"{s}/{name}": array for s, arrays in sections.items() for name, array in arrays.items()}
    return {_POSITION: np.array([state.step, state.updates], np.int64), **tensors}


def _state(tensors: Arrays) -> TrainingState:
    position = tensors.pop(_POSITION, None)
    if position is None or position.shape != (2,):
        raise CheckpointError(f"a checkpoint has no {_POSITION}: it is not one of this version")
    state = TrainingState(int(position[0]), {}, {}, {}, int(position[1]))
    for key, array in tensors.items():
        section, _, name = key.partition("/")
        if section == "parameters":
            state.parameters[name] = array
        elif section == "buffers":
            state.buffers[name] = array
        else:
            state.slots.setdefault(section, {})[name] = array
    return state
