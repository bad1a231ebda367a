"""A batch computed: a forward pass, outputs cut apart, classes ranked. Without processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from chainrule.server.predictions.messages import Predicted, Question, Reason, Refused, Result
from chainrule.server.predictions.network import Array, InputError, Named

MAX_ANSWER_BYTES = 15 * 1024**2
"""Largest outputs of one request: a message of gRPC holds 16 MiB."""

Forward = Callable[[Named], Named]


def results_of(forward: Forward, inputs: Named, questions: Sequence[Question], *, max_rows: int) -> tuple[Result, ...]:
    """What comes of each request. If they cannot be computed together, each is computed by itself, so that one that is
    wrong harms no other.

    Args:
        forward: from inputs to outputs, whose first dimension is that of the examples. Raises InputError.
        inputs: of all requests, joined along the first dimension.
        questions: what each request asks, in their order.
        max_rows: most examples of a forward pass; what has more is computed in pieces.
    """
    if len(questions) > 1:
        try:
            return _cut(_forward(forward, inputs, max_rows=max_rows), questions)
        except (InputError, MemoryError):
            return tuple(
                results_of(forward, own, [question], max_rows=max_rows)[0]
                for question, own in _parts(inputs, questions)
            )
    [question] = questions
    try:
        most_bytes = None if question.omit_outputs else MAX_ANSWER_BYTES
        return (_result(_forward(forward, inputs, max_rows=max_rows, most_bytes=most_bytes), question),)
    except InputError as error:
        return (Refused(Reason.INPUTS, error.description, error.field),)
    except MemoryError:
        return (Refused(Reason.MEMORY, f"{question.rows} examples need more memory than the predictor has"),)


def ranking(scores: Array, k: int) -> tuple[Array, Array]:
    """The k most likely classes and their probabilities; of equals the first.

    Args:
        scores: (N, C), before the softmax.

    Returns:
        (N, k) int64 and (N, k) float32, the most likely first.
    """
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    odds = np.exp(shifted)
    classes = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int64)
    chosen = np.take_along_axis(odds, classes, axis=1) / odds.sum(axis=1, keepdims=True)
    return classes, chosen.astype(np.float32)


def _forward(forward: Forward, inputs: Named, *, max_rows: int, most_bytes: int | None = None) -> Named:
    rows = len(inputs[0][1])
    pieces = []
    for start in range(0, rows, max_rows):
        piece = tuple((name, array[start : start + max_rows]) for name, array in inputs)
        outputs = forward(piece)
        _check_outputs(outputs, len(piece[0][1]))
        pieces.append(outputs)
        size = sum(array.nbytes for _, array in outputs) * rows // len(piece[0][1])
        if most_bytes is not None and size > most_bytes:
            raise _too_large(rows, size)
    return pieces[0] if len(pieces) == 1 else _joined(pieces)


def _too_large(rows: int, size_bytes: int) -> InputError:
    return InputError(
        "inputs",
        f"have {rows} examples, whose outputs take {size_bytes:,} bytes, more than the {MAX_ANSWER_BYTES:,} of an "
        "answer; send fewer at a time, or only have their classes named: top_k and omit_outputs",
    )


def _check_outputs(outputs: Named, rows: int) -> None:
    for name, array in outputs:
        if array.ndim == 0 or len(array) != rows:
            raise InputError(
                "inputs",
                f'make the output "{name}" of shape {array.shape}, whose first dimension is not that of the {rows} '
                "examples; such a network cannot be used for predictions",
            )


def _joined(parts: Sequence[Named]) -> Named:
    names = [name for name, _ in parts[0]]
    return tuple((name, np.concatenate([part[i][1] for part in parts])) for i, name in enumerate(names))


def _parts(joined: Named, questions: Sequence[Question]) -> Iterator[tuple[Question, Named]]:
    """Each request with what is its own."""
    start = 0
    for question in questions:
        end = start + question.rows
        yield question, tuple((name, array[start:end]) for name, array in joined)
        start = end


def _cut(outputs: Named, questions: Sequence[Question]) -> tuple[Result, ...]:
    found: list[Result] = []
    for question, own in _parts(outputs, questions):
        try:
            found.append(_result(own, question))
        except InputError as error:
            found.append(Refused(Reason.INPUTS, error.description, error.field))
    return tuple(found)


def _result(outputs: Named, question: Question) -> Predicted:
    kept = () if question.omit_outputs else outputs
    if (size := sum(array.nbytes for _, array in kept)) > MAX_ANSWER_BYTES:
        raise _too_large(question.rows, size)
    if not question.top_k:
        return Predicted(kept)
    _, scores = outputs[0]
    if len(outputs) != 1 or scores.ndim != 2 or scores.shape[1] < 2 or scores.dtype.kind != "f":
        shapes = ", ".join(f'"{name}" {array.dtype} {("N", *array.shape[1:])}' for name, array in outputs)
        raise InputError(
            "top_k",
            f"is {question.top_k}, but the network does not tell classes apart, with one output of shape (N, classes): "
            f"it has {shapes}; use 0, and read the outputs",
        )
    return Predicted(kept, *ranking(scores, question.top_k))
