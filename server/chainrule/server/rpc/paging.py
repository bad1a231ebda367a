"""Page sizes of list calls."""

from __future__ import annotations

from chainrule.server.errors import InvalidRequestError

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000


def page_size(asked: int, *, default: int = DEFAULT_PAGE_SIZE, most: int = MAX_PAGE_SIZE) -> int:
    """The size to use: the default for 0, at most `most`. Raises InvalidRequestError for a negative one."""
    if asked < 0:
        raise InvalidRequestError.of("page_size", f"is {asked}; use 1 to {most:,}, or 0 for {default}")
    return min(asked or default, most)
