"""What a List call gives, over as many of its pages as are needed."""
# Derived from aio/paging.py by client/derive.py. Change that, and run `make client`.

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

MAX_PAGE_SIZE = 1000


class Page(Protocol):
    """The answer of a List call."""

    @property
    def next_page_token(self) -> str:
        """Token of the next page; empty on the last."""


AnyPage = TypeVar("AnyPage", bound=Page)
T = TypeVar("T")


def page_size(limit: int | None) -> int:
    """The page to ask for when `limit` things are wanted; 0 leaves it to the server."""
    return min(limit or 0, MAX_PAGE_SIZE)


def take(
    read_page: Callable[[str], AnyPage],
    things: Callable[[AnyPage], Iterable[T]],
    *,
    limit: int | None,
) -> tuple[T, ...]:
    """The things on all pages, at most `limit`.

    Args:
        read_page: gets the token of each page, empty for the first.
        things: what is on a page.
    """
    taken: list[T] = []
    token = ""
    while True:
        page = read_page(token)
        taken.extend(things(page))
        token = page.next_page_token
        if not token or (limit is not None and len(taken) >= limit):
            return tuple(taken[:limit])
