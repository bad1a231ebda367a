"""Page sizes and tokens of list calls."""

from __future__ import annotations

from chainrule.server.errors import InvalidRequestError, echo

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_TOKEN_LENGTH = 18
"""Digits of the longest token, so that its number fits into 64 bits."""


def page_size(asked: int, *, default: int = DEFAULT_PAGE_SIZE, most: int = MAX_PAGE_SIZE) -> int:
    """The size to use: the default for 0, at most `most`. Raises InvalidRequestError for a negative one."""
    if asked < 0:
        raise InvalidRequestError.of("page_size", f"is {asked}; use 1 to {most:,}, or 0 for {default}")
    return min(asked or default, most)


def page_token(asked: str) -> str:
    """The token, if it can be one at all. Raises InvalidRequestError."""
    if asked and not (asked.isascii() and asked.isdigit() and len(asked) <= MAX_TOKEN_LENGTH):
        raise InvalidRequestError.of(
            "page_token",
            f"{echo(asked)} is no token; use next_page_token of the page before, or leave it empty for the first page",
        )
    return asked
