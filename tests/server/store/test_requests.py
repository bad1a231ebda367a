"""Request ids: one effect for each, whatever is repeated."""

from __future__ import annotations

import pytest

from chainrule.server.errors import InvalidRequestError
from chainrule.server.store import Request
from chainrule.server.store.requests import payload_digest


def test_the_digest_tells_payloads_apart_and_not_the_order_of_their_fields() -> None:
    one = payload_digest({"a": 1, "b": {"x": [1, 2], "y": "é"}})
    assert one == payload_digest({"b": {"y": "é", "x": [1, 2]}, "a": 1})
    assert one == "c61632cce24d55a4926632c0317d7347208ce711f152ab2469a3dcba55dba443"  # is stored: it must stay so
    assert len({one, payload_digest({"a": 2, "b": {"x": [1, 2], "y": "é"}}), payload_digest({"a": 1})}) == 3


def test_what_is_not_set_does_not_change_the_digest() -> None:
    """A field that comes with a later version must not make a retry of an earlier client another call."""
    assert payload_digest({"a": 1, "labels": {}, "description": "", "priority": 0}) == payload_digest({"a": 1})


def test_a_request_is_its_id_and_what_it_asks_for() -> None:
    assert Request.of("x", a=1) == Request.of("x", a=1, b="")
    assert Request.of("x", a=1) != Request.of("x", a=2)
    assert Request.of("x" * 128).id == "x" * 128


@pytest.mark.parametrize(
    ("request_id", "said"),
    [("x" * 129, "request_id: it has 129 characters; use at most 128"), ("a\0", "request_id: .*leave out the NUL")],
)
def test_an_id_that_can_be_none_is_refused(request_id: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        Request.of(request_id)
