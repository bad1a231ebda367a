"""Page sizes and tokens."""

from __future__ import annotations

import pytest

from chainrule.server.errors import InvalidRequestError
from chainrule.server.rpc.paging import MAX_PAGE_SIZE, page_size, page_token


@pytest.mark.parametrize(("asked", "size"), [(0, 50), (1, 1), (1000, 1000), (2**31 - 1, MAX_PAGE_SIZE)])
def test_a_page_has_a_default_and_a_largest_size(asked: int, size: int) -> None:
    assert page_size(asked) == size


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="page_size: is -1; use 1 to 1,000, or 0 for 50"):
        page_size(-1)


@pytest.mark.parametrize("token", ["", "0", "17", "9" * 18])
def test_a_token_of_a_page_before_is_taken(token: str) -> None:
    assert page_token(token) == token


@pytest.mark.parametrize("token", ["x", "-1", "1.5", " 1", "٣", "9" * 19, "9" * 20, "9" * 5000])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"page_token: .* is no token; use next_page_token") as caught:
        page_token(token)
    assert len(str(caught.value)) < 300
