"""Predictions as values: arrays cut into requests, and answers put together again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.client.errors import InvalidInputError
from chainrule.client.examples import to_float32, to_int64
from chainrule.client.wire import put
from chainrule.v1 import predict_pb2

REQUEST_ROWS = 64
"""Most examples of one request, unless told otherwise."""
REQUEST_BYTES = 4 * 1024 * 1024
"""Most bytes of inputs of one request; a single example may have more."""
DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64")
"""What elements may be when they are sent."""

Array = NDArray[Any]
Inputs = Mapping[str, Array]
"""By name; the name of the only input may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedClass:
    """A class and how likely it is."""

    index: int
    """Its place in the last dimension of the outputs."""
    label: str | None
    """What it is called; None: the model does not say."""
    probability: float
    """From 0 to 1: the softmax over all classes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What a network has made of some examples. `np.asarray` gives its only output."""

    version: str
    """Resource name of the version that was computed with, for example "models/digits/versions/2"."""
    outputs: Mapping[str, Array]
    """The outputs by name; the first dimension is that of the examples."""
    class_labels: tuple[str, ...] = ()
    """What the classes are called, in the order of the outputs' last dimension; empty: the model does not say."""

    @property
    def output(self) -> Array:
        """The only output; where a network tells classes apart, the scores before a softmax.

        Raises:
            InvalidInputError: the network has several.
        """
        if len(self.outputs) != 1:
            raise InvalidInputError(
                f"{self.version} has {len(self.outputs)} outputs, {', '.join(self.outputs)}; take one from `outputs`"
            )
        return next(iter(self.outputs.values()))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.output, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        """How many examples there were."""
        return len(next(iter(self.outputs.values())))

    def classes(self, k: int = 1) -> tuple[tuple[RankedClass, ...], ...]:
        """Of each example the `k` most likely classes, the most likely one first; of equals the one with the lower
        index.

        Raises:
            InvalidInputError: `k` is not positive, or the network does not tell classes apart: its only output must
                have shape (N, classes).
        """
        if k < 1:
            raise InvalidInputError(f"k is {k}; it must be a whole number from 1")
        scores = self.output
        if scores.ndim != 2 or scores.shape[1] < 2:
            raise InvalidInputError(
                f"the output of {self.version} has shape {scores.shape}; classes are told apart by one of shape "
                "(N, classes)"
            )
        odds = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return tuple(
            tuple(self._ranked(int(index), float(probabilities[row, index])) for index in best)
            for row, best in enumerate(order)
        )

    def _ranked(self, index: int, probability: float) -> RankedClass:
        label = self.class_labels[index] if index < len(self.class_labels) else None
        return RankedClass(index=index, label=label, probability=probability)


def to_inputs(x: ArrayLike | Mapping[str, ArrayLike], *, tokens: bool = False) -> Inputs:
    """The arrays to send. One array becomes float32 or, if it holds tokens, int64, as those of datasets do, and stays
    uint8, of which the server makes numbers as the version's dataset has them; named ones keep their dtypes, but for
    float64, which becomes float32.

    Raises:
        InvalidInputError: they do not convert, have no examples, or not the same number.
    """
    if isinstance(x, Mapping):
        inputs = {name: _as_sent(name, np.asarray(value)) for name, value in x.items()}
    else:
        array = np.asarray(x)
        if not tokens and array.dtype != np.uint8:
            array = to_float32(array)
        inputs = {"": to_int64(array, "inputs", "tokens") if tokens else array}
    rows = {name: array.shape[0] if array.ndim else 0 for name, array in inputs.items()}
    if not rows or min(rows.values()) < 1 or len(set(rows.values())) > 1:
        shapes = ", ".join(f"{name or 'x'} {array.shape}" for name, array in inputs.items())
        raise InvalidInputError(
            f"inputs have shapes {shapes or 'of nothing'}; the first dimension is that of the examples, the same for "
            "all, at least 1: x[None] makes one example of an array"
        )
    return inputs


def pieces_of(inputs: Inputs, batch_size: int | None = None) -> list[Inputs]:
    """The inputs cut into requests.

    Args:
        batch_size: most examples of each; None: as many as make a request of moderate size.

    Raises:
        InvalidInputError: it is not positive.
    """
    rows = len(next(iter(inputs.values())))
    if batch_size is None:
        row_bytes = sum(array.nbytes for array in inputs.values()) // rows
        batch_size = max(1, min(REQUEST_ROWS, REQUEST_BYTES // max(row_bytes, 1)))
    elif batch_size < 1:
        raise InvalidInputError(f"batch_size is {batch_size}; it must be a whole number from 1")
    return [
        {name: array[start : start + batch_size] for name, array in inputs.items()}
        for start in range(0, rows, batch_size)
    ]


def to_request(
    model: str, inputs: Inputs, *, alone: bool, prepared: bool, with_class_labels: bool
) -> predict_pb2.PredictRequest:
    """One request."""
    request = predict_pb2.PredictRequest(model=model, with_class_labels=with_class_labels)
    put(request, "alone", alone, allowed="True or False")
    put(request, "prepared", prepared, allowed="True or False")
    for name, array in inputs.items():
        data = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
        request.inputs.add(name=name, dtype=array.dtype.name, shape=array.shape, data=data)
    return request


def to_stream(
    model: str, pieces: Sequence[Inputs], *, alone: bool, prepared: bool
) -> Iterator[predict_pb2.StreamPredictRequest]:
    """The requests of a stream, each made when it is sent."""
    for inputs in pieces:
        request = to_request(model, inputs, alone=alone, prepared=prepared, with_class_labels=False)
        yield predict_pb2.StreamPredictRequest(request=request)


class Answers:
    """The answers to the pieces of some inputs, in their order."""

    def __init__(self, first: predict_pb2.PredictResponse) -> None:
        self._all = [first]

    def add(self, answer: predict_pb2.PredictResponse) -> None:
        """The answer to the next piece."""
        self._all.append(answer)

    def prediction(self) -> Prediction:
        """All of them as one."""
        parts = [{tensor.name: _array(tensor) for tensor in answer.outputs} for answer in self._all]
        return Prediction(
            version=self._all[0].version,
            outputs={name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
            class_labels=tuple(self._all[0].class_labels),
        )


def _array(tensor: predict_pb2.Tensor) -> Array:
    return np.frombuffer(tensor.data, np.dtype(tensor.dtype).newbyteorder("<")).reshape(tuple(tensor.shape))


def _as_sent(name: str, array: Array) -> Array:
    if array.dtype == np.float64:
        return to_float32(array)
    if array.dtype.name not in DTYPES:
        raise InvalidInputError(f'input "{name}" has dtype {array.dtype}; it must be one of {", ".join(DTYPES)}')
    return array
