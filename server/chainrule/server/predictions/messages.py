"""What the service and a predictor say to each other, and how it becomes the body of a frame.

A body is a head and, behind it, the memory of arrays. The head is of plain values in `marshal`'s format, since both are
one program, parent and child; a pickle of the same objects took longer than all else that is done to a small request.
What requests of a batch have in common is said once, and their inputs lie one behind the other: joined, without anybody
joining them.
"""

from __future__ import annotations

import enum
import marshal
import pickle
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.server.predictions.network import Array, Named, NetworkSpec

SIZE = struct.Struct("<I")
"""Of the head, at the beginning of a body."""
ALIGNMENT = 16
"""Where arrays may begin in a body."""


@dataclass(frozen=True)
class Asked:
    """One request."""

    inputs: Named
    top_k: int = 0
    """How many classes to name; 0: none."""
    omit_outputs: bool = False
    prepared: bool = False
    """Whether the inputs are as the network takes them, without what prepares them for it."""

    @property
    def rows(self) -> int:
        """How many examples it has."""
        return int(self.inputs[0][1].shape[0])


@dataclass(frozen=True)
class Question:
    """What a request of a batch wants to know of its examples."""

    rows: int
    """How many they are."""
    top_k: int = 0
    omit_outputs: bool = False


@dataclass(frozen=True)
class Batch:
    """Requests to one network, as a predictor gets them."""

    key: str
    """Of the network."""
    network: NetworkSpec | None
    """What is needed to load it; None: the predictor has it."""
    inputs: Named
    """Of all requests, joined along the first dimension in their order."""
    questions: tuple[Question, ...]
    prepared: bool = False
    """Of all requests, too."""


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
class Answered:
    """A batch is done."""

    results: tuple[Result, ...]
    """Of each request, in their order."""
    held: frozenset[str] | None
    """Keys of the networks that the predictor has loaded; None: the same as before."""


READY = b""
"""The body that says that the predictor has started."""


def pack_batch(network: NetworkSpec, requests: Sequence[Asked], *, is_held: bool) -> bytes:
    """The body of a batch: requests to one network, all prepared or none, with inputs of the same names, dtypes and
    shapes but for the number of examples.

    Args:
        is_held: whether the predictor has the network loaded.
    """
    inputs = requests[0].inputs
    head = (
        network.key,
        None if is_held else pickle.dumps(network),
        requests[0].prepared,
        tuple((name, array.dtype.str, array.shape[1:]) for name, array in inputs),
        tuple((request.rows, request.top_k, request.omit_outputs) for request in requests),
    )
    return _body(head, ([request.inputs[place][1] for request in requests] for place in range(len(inputs))))


def unpack_batch(body: bytes) -> Batch:
    """The batch of a body; its arrays lie in the body's memory and cannot be written to."""
    (key, network, prepared, inputs, questions), arrays = _opened(body)
    rows = sum(rows for rows, _, _ in questions)
    return Batch(
        key,
        None if network is None else pickle.loads(network),  # noqa: S301 — of our own process
        tuple((name, arrays.next(dtype, (rows, *shape))) for name, dtype, shape in inputs),
        tuple(Question(*question) for question in questions),
        prepared,
    )


def pack_answered(answered: Answered) -> bytes:
    """The body of what comes of a batch."""
    results: list[tuple[Any, ...]] = []
    arrays: list[Array] = []
    for result in answered.results:
        if isinstance(result, Refused):
            results.append((result.reason.value, result.text, result.field))
            continue
        ranking = (
            () if result.classes is None or result.probabilities is None else (result.classes, result.probabilities)
        )
        own = [*result.outputs, *(("", array) for array in ranking)]
        results.append((len(ranking), *((name, array.dtype.str, array.shape) for name, array in own)))
        arrays += (array for _, array in own)
    return _body((answered.held, results), ([array] for array in arrays))


def unpack_answered(body: bytes) -> Answered:
    """What came of a batch; its arrays lie in the body's memory and cannot be written to."""
    (held, results), arrays = _opened(body)
    return Answered(tuple(_result(result, arrays) for result in results), held)


def _result(packed: tuple[Any, ...], arrays: _Arrays) -> Result:
    first, *rest = packed
    if isinstance(first, str):
        return Refused(Reason(first), *rest)
    own = [(name, arrays.next(dtype, shape)) for name, dtype, shape in rest]
    if not first:
        return Predicted(tuple(own))
    *outputs, (_, classes), (_, probabilities) = own
    return Predicted(tuple(outputs), classes, probabilities)


# --- bodies: a head, then arrays ----------------------------------------------------------------------------------


class _Arrays:
    """The arrays of a body, in their order."""

    def __init__(self, body: bytes, begin: int) -> None:
        self._body = body
        self._at = begin

    def next(self, dtype: str, shape: tuple[int, ...]) -> Array:
        at = _aligned(self._at)
        array: Array = np.ndarray(shape, dtype, self._body, at)
        self._at = at + array.nbytes
        return array


def _body(head: tuple[Any, ...], groups: Iterable[Iterable[Array]]) -> bytes:
    """A head and, behind it, groups of arrays; those of a group lie one behind the other without gaps."""
    plain = marshal.dumps(head)
    parts: list[bytes | memoryview] = [SIZE.pack(len(plain)), plain]
    size = SIZE.size + len(plain)
    for group in groups:
        parts.append(bytes(_aligned(size) - size))
        size = _aligned(size)
        for array in group:
            parts.append(np.ascontiguousarray(array).data)
            size += array.nbytes
    return b"".join(parts)


def _opened(body: bytes) -> tuple[Any, _Arrays]:
    """The head of a body, and its arrays."""
    [size] = SIZE.unpack_from(body)
    end = SIZE.size + size
    return marshal.loads(body[SIZE.size : end]), _Arrays(body, end)


def _aligned(place: int) -> int:
    return -(-place // ALIGNMENT) * ALIGNMENT
