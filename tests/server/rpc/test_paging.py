"""Pages as list calls ask for them."""

from __future__ import annotations

import pytest

from chainrule.server.errors import InvalidRequestError
from chainrule.server.rpc.paging import MAX_PAGE_SIZE, page_request, page_size
from chainrule.server.store import PageRequest


@pytest.mark.parametrize(("asked", "size"), [(0, 50), (1, 1), (1000, 1000), (2**31 - 1, MAX_PAGE_SIZE)])
def test_a_page_has_a_default_and_a_largest_size(asked: int, size: int) -> None:
    assert page_size(asked) == size


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="page_size: is -1; use 1 to 1,000, or 0 for 50"):
        page_size(-1)


def test_a_page_is_asked_for_as_the_request_has_it() -> None:
    assert page_request(7, "t", filter="f", order_by="o") == PageRequest(7, "t", "f", "o")
    assert page_request(0, "") == PageRequest()
