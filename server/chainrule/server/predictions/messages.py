"""What the service and a predictor say to each other, and how it becomes the body of a frame.

Both are one program, parent and child, so bodies are pickles; the memory of arrays lies behind the pickle, not in it.
"""

from __future__ import annotations

import enum
import pickle
import struct
from dataclasses import dataclass
from typing import Any

from chainrule.server.predictions.network import Array, Named, NetworkSpec

COUNT = struct.Struct("<I")
SIZE = struct.Struct("<Q")


@dataclass(frozen=True)
class Asked:
    """One request."""

    inputs: Named
    top_k: int = 0
    """How many classes to name; 0: none."""
    omit_outputs: bool = False

    @property
    def rows(self) -> int:
        """How many examples it has."""
        return int(self.inputs[0][1].shape[0])


@dataclass(frozen=True)
class Batch:
    """Requests to one network, with inputs of the same shapes but for the number of examples."""

    network: NetworkSpec
    requests: tuple[Asked, ...]


@dataclass(frozen=True)
class Predicted:
    """What came of a request."""

    outputs: Named
    classes: Array | None = None
    """(N, k) int64, the most likely first, if they were asked for."""
    probabilities: Array | None = None
    """(N, k) float32."""


class Reason(enum.Enum):
    """Why there is nothing that came of a request."""

    INPUTS = "inputs"
    """They do not fit the network, or are more than an answer can hold."""
    WEIGHTS = "weights"
    """The network could not be loaded: its file is not there, or damaged."""
    MEMORY = "memory"
    """There was too little."""
    DEFECT = "defect"
    """Something that should not happen."""


@dataclass(frozen=True)
class Refused:
    """Why a request was not computed."""

    reason: Reason
    text: str
    field: str = "inputs"
    """What of the request is wrong, for INPUTS."""


Result = Predicted | Refused


@dataclass(frozen=True)
class Ready:
    """The predictor has started."""


@dataclass(frozen=True)
class Answered:
    """A batch is done."""

    results: tuple[Result, ...]
    """Of each request, in their order."""
    held: frozenset[str]
    """Keys of the networks that the predictor has loaded."""


def packed(message: object) -> list[bytes | memoryview]:
    """The parts of a message's body."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts: list[bytes | memoryview] = [body, *(buffer.raw() for buffer in buffers)]
    return [COUNT.pack(len(parts)) + b"".join(SIZE.pack(len(part)) for part in parts), *parts]


def unpacked(body: bytes) -> Any:
    """The message of a body; its arrays lie in the body's memory and cannot be written to."""
    [count] = COUNT.unpack_from(body)
    at = COUNT.size + count * SIZE.size
    parts = []
    for index in range(count):
        [size] = SIZE.unpack_from(body, COUNT.size + index * SIZE.size)
        parts.append(memoryview(body)[at : at + size])
        at += size
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301 — of our own process
