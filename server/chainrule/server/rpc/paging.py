"""Pages as list calls ask for them."""

from __future__ import annotations

from chainrule.server.errors import InvalidRequestError
from chainrule.server.store.paging import DEFAULT_PAGE_SIZE, PageRequest

MAX_PAGE_SIZE = 1000


def page_size(asked: int, *, default: int = DEFAULT_PAGE_SIZE, most: int = MAX_PAGE_SIZE) -> int:
    """The size to use: the default for 0, at most `most`. Raises InvalidRequestError for a negative one."""
    if asked < 0:
        raise InvalidRequestError.of("page_size", f"is {asked}; use 1 to {most:,}, or 0 for {default}")
    return min(asked or default, most)


def page_request(size: int, token: str, *, filter: str = "", order_by: str = "") -> PageRequest:
    """A page as asked for. Raises InvalidRequestError for a negative size."""
    return PageRequest(page_size(size), token, filter, order_by)
