"""Which requests are computed together, and when."""

from __future__ import annotations

import numpy as np
import pytest

from chainrule.server.architecture import Builtin
from chainrule.server.errors import TooManyCallsError
from chainrule.server.predictions import batching
from chainrule.server.predictions.batching import Batcher, Limits, Request
from chainrule.server.predictions.messages import Asked
from chainrule.server.predictions.network import NetworkSpec


def spec(model: str = "models/m") -> NetworkSpec:
    return NetworkSpec(model, Builtin("mlp"), weights_digest=model, weights_file="/nowhere")


def request(
    rows: int = 1,
    *,
    model: str = "models/m",
    width: int = 3,
    since_s: float = 0.0,
    alone: bool = False,
    dtype: type = np.float32,
    prepared: bool = False,
) -> Request:
    asked = Asked((("", np.zeros((rows, width), dtype)),), prepared=prepared)
    return Request(spec(model), asked, since_s, alone=alone)


def filled(*requests: Request, **limits: float) -> Batcher:
    batcher = Batcher(Limits(**limits))  # type: ignore[arg-type]  # of each field its type
    for one in requests:
        batcher.add(one)
    return batcher


def test_what_waits_for_the_same_network_in_the_same_shape_is_one_batch() -> None:
    first, other, second = request(1), request(1, model="models/n"), request(2)
    batcher = filled(first, other, second)
    assert batcher.next(0.0) == [first, second]
    assert batcher.next(0.0) == [other]
    assert batcher.next(0.0) == []
    assert len(batcher) == 0


@pytest.mark.parametrize(
    "other", [request(width=4), request(dtype=np.float64), request(model="models/n"), request(prepared=True)]
)
def test_what_differs_is_computed_apart(other: Request) -> None:
    first = request()
    batcher = filled(first, other)
    assert [batcher.next(0.0), batcher.next(0.0)] == [[first], [other]]


def test_a_batch_has_at_most_so_many_examples() -> None:
    first, second, third = request(2), request(2), request(1)
    batcher = filled(first, second, third, max_rows=4)
    assert batcher.next(0.0) == [first, second]
    assert batcher.next(0.0) == [third]


def test_a_request_of_more_examples_is_a_batch_by_itself() -> None:
    large, small = request(9), request(1)
    batcher = filled(large, small, max_rows=4)
    assert [batcher.next(0.0), batcher.next(0.0)] == [[large], [small]]


def test_a_batch_has_at_most_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_BATCH_BYTES", 24)
    requests = [request(1) for _ in range(3)]  # of 12 bytes each
    assert filled(*requests).next(0.0) == requests[:2]


def test_the_oldest_request_comes_first_also_if_others_of_its_kind_were_taken() -> None:
    old = [request(1) for _ in range(3)]
    other = request(1, model="models/n")
    batcher = filled(*old[:2], other, old[2], max_rows=1)
    assert [batcher.next(0.0) for _ in range(4)] == [[old[0]], [old[1]], [other], [old[2]]]


def test_what_wants_to_be_alone_is() -> None:
    first, alone, second = request(), request(alone=True), request()
    batcher = filled(first, alone, second)
    assert [batcher.next(0.0), batcher.next(0.0)] == [[first, second], [alone]]


def test_with_a_window_a_request_waits_for_others() -> None:
    first, second = request(since_s=1.0), request(since_s=1.004)
    batcher = filled(first, window_s=0.005)
    assert batcher.next(1.003) == []
    assert batcher.due_s() == pytest.approx(1.005)
    batcher.add(second)
    assert batcher.next(1.005) == [first, second]
    assert batcher.due_s() is None


def test_a_full_batch_and_what_is_alone_do_not_wait() -> None:
    waiting, full, alone = request(model="models/n"), request(4), request(alone=True)
    batcher = filled(waiting, full, alone, window_s=1.0, max_rows=4)
    assert [batcher.next(0.0) for _ in range(3)] == [[full], [alone], []]


def test_a_request_that_is_discarded_is_in_no_batch() -> None:
    first, second = request(), request()
    batcher = filled(first, second)
    batcher.discard(first)
    batcher.discard(first)
    assert batcher.next(0.0) == [second]
    batcher.discard(second)
    assert len(batcher) == 0


def test_what_was_lost_comes_first_and_one_by_one() -> None:
    lost, waiting = [request(), request()], request()
    batcher = filled(*lost)
    assert batcher.next(0.0) == lost
    batcher.add(waiting)
    batcher.give_back(lost)
    assert len(batcher) == 3
    assert batcher.due_s() == 0.0
    batcher.discard(lost[0])
    assert [batcher.next(0.0), batcher.next(0.0)] == [[lost[1]], [waiting]]


def test_so_many_requests_to_a_network_wait_and_no_more() -> None:
    batcher = filled(request(), request(), max_waiting=2)
    with pytest.raises(TooManyCallsError, match='2 requests to "models/m" wait for predictions already') as caught:
        batcher.add(request())
    assert caught.value.retry_after_s == batching.RETRY_S
    batcher.add(request(model="models/n"))
    batcher.next(0.0)
    batcher.add(request())


def test_so_many_bytes_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_WAITING_BYTES", 24)
    batcher = filled(request(), request())
    with pytest.raises(TooManyCallsError, match="requests with 24 bytes of inputs wait"):
        batcher.add(request())
    batcher.next(0.0)
    batcher.add(request(100))  # one is always taken


def test_all_are_taken_at_once() -> None:
    lost, waiting = request(), request()
    batcher = filled(lost)
    batcher.give_back(batcher.next(0.0))
    batcher.add(waiting)
    assert batcher.take_all() == [lost, waiting]
    assert len(batcher) == 0
    assert batcher.next(0.0) == []
    batcher.add(request())
