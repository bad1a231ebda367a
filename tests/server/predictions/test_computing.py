"""Batches computed: joined, cut apart, ranked."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.server.predictions import computing
from chainrule.server.predictions.computing import ranking, results_of
from chainrule.server.predictions.messages import Asked, Predicted, Question, Reason, Refused, pack_batch, unpack_batch
from chainrule.server.predictions.network import Array, InputError, Named
from tests.server.predictions.test_network import named


def asked(*rows: float, top_k: int = 0, omit_outputs: bool = False) -> Asked:
    return Asked((("input", np.asarray(rows, np.float32)),), top_k=top_k, omit_outputs=omit_outputs)


def batch(*requests: Asked) -> tuple[Named, tuple[Question, ...]]:
    """As a predictor gets them."""
    crossed = unpack_batch(pack_batch(named("models/m"), requests, is_held=True))
    return crossed.inputs, crossed.questions


class Squares:
    """Scores (N, 3): 0, x and x²; negative numbers do not fit."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, inputs: Named) -> Named:
        [(_, x)] = inputs
        self.sizes.append(len(x))
        if (x < 0).any():
            raise InputError("inputs[0]", "is negative")
        return (("output", np.stack([np.zeros_like(x), x, x * x], axis=1)),)


def output(result: object) -> Array:
    assert isinstance(result, Predicted)
    [(name, array)] = result.outputs
    assert name == "output"
    return array


def test_requests_are_computed_together_and_cut_apart() -> None:
    forward = Squares()
    first, second = results_of(forward, *batch(asked(1, 2), asked(3)), max_rows=32)
    assert forward.sizes == [3]
    assert output(first).tolist() == [[0, 1, 1], [0, 2, 4]]
    assert output(second).tolist() == [[0, 3, 9]]


def test_one_that_is_wrong_harms_no_other() -> None:
    forward = Squares()
    first, wrong, last = results_of(forward, *batch(asked(1), asked(-2), asked(3)), max_rows=32)
    assert forward.sizes == [3, 1, 1, 1]
    assert wrong == Refused(Reason.INPUTS, "is negative", "inputs[0]")
    assert (output(first).tolist(), output(last).tolist()) == ([[0, 1, 1]], [[0, 3, 9]])


def test_one_that_asks_for_what_there_is_not_harms_no_other() -> None:
    def plain(inputs: Named) -> Named:
        return (("output", inputs[0][1]),)

    first, wrong = results_of(plain, *batch(asked(1), asked(2, top_k=1)), max_rows=32)
    assert output(first).tolist() == [1]
    assert isinstance(wrong, Refused)
    assert wrong.field == "top_k"
    assert "does not tell classes apart" in wrong.text
    assert "\"output\" float32 ('N',)" in wrong.text


def test_a_large_request_is_computed_in_pieces() -> None:
    forward = Squares()
    [result] = results_of(forward, *batch(asked(*range(9))), max_rows=4)
    assert forward.sizes == [4, 4, 1]
    assert output(result)[:, 2].tolist() == [x * x for x in range(9)]


def test_too_large_an_answer_is_refused_before_it_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "MAX_ANSWER_BYTES", 100)
    forward = Squares()
    [result] = results_of(forward, *batch(asked(*range(9))), max_rows=4)
    assert isinstance(result, Refused)
    assert "have 9 examples, whose outputs take 108 bytes, more than the 100 of an answer" in result.text
    assert forward.sizes == [4]
    first, small = results_of(forward, *batch(asked(*range(9)), asked(1)), max_rows=32)
    assert isinstance(first, Refused)
    assert isinstance(small, Predicted)
    [classes] = results_of(forward, *batch(asked(*range(9), top_k=1, omit_outputs=True)), max_rows=4)
    assert isinstance(classes, Predicted)
    assert classes.outputs == ()


def test_an_output_without_examples_is_refused() -> None:
    def total(inputs: Named) -> Named:
        return (("output", inputs[0][1].sum()),)

    [result] = results_of(total, *batch(asked(1, 2)), max_rows=32)
    assert isinstance(result, Refused)
    assert "whose first dimension is not that of the 2 examples" in result.text


def test_a_batch_that_needs_too_much_memory_is_computed_one_by_one() -> None:
    def forward(inputs: Named) -> Named:
        if len(inputs[0][1]) > 1:
            raise MemoryError
        return (("output", inputs[0][1]),)

    first, large = results_of(forward, *batch(asked(1), asked(2, 3)), max_rows=32)
    assert output(first).tolist() == [1]
    assert large == Refused(Reason.MEMORY, "2 examples need more memory than the predictor has")


def test_the_most_likely_classes_come_first_with_their_probabilities() -> None:
    scores = np.log(np.asarray([[1, 2, 5], [4, 4, 0.5]], np.float32))
    classes, probabilities = ranking(scores, 2)
    assert classes.tolist() == [[2, 1], [0, 1]]  # of equals the first
    np.testing.assert_allclose(probabilities, [[5 / 8, 2 / 8], [4 / 8.5, 4 / 8.5]], rtol=1e-6)
    assert (classes.dtype.name, probabilities.dtype.name) == ("int64", "float32")


def test_more_classes_than_there_are_are_all() -> None:
    classes, _ = ranking(np.asarray([[1.0, 1000.0]], np.float32), 5)
    assert classes.tolist() == [[1, 0]]


def test_classes_and_outputs_come_together_where_both_are_wanted() -> None:
    [result] = results_of(Squares(), *batch(asked(2, top_k=1)), max_rows=32)
    assert isinstance(result, Predicted)
    assert output(result).tolist() == [[0, 2, 4]]
    assert result.classes is not None
    assert result.classes.tolist() == [[2]]
