"""Small translations between the API's messages and Python values: names, times, pages."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from chainrule.client.errors import InvalidInputError


class Page(Protocol):
    """The answer of a List call."""

    @property
    def next_page_token(self) -> str:
        """Token of the next page; empty on the last."""


AnyPage = TypeVar("AnyPage", bound=Page)

MAX_PAGE_SIZE = 1000
INT32 = f"a whole number from 0 to {2**31 - 1}"
POSITIVE_INT32 = f"a whole number from 1 to {2**31 - 1}"
UINT64 = f"a whole number from 0 to {2**64 - 1}"


def resource_name(collection: str, name: str) -> str:
    """The full name of a resource; a name that is already full is returned as it is.

    >>> resource_name("models", "digits")
    'models/digits'
    """
    return name if name.startswith(f"{collection}/") else f"{collection}/{name}"


def short_name(name: str) -> str:
    """The last part of a resource name.

    >>> short_name("models/digits")
    'digits'
    """
    return name.rpartition("/")[2]


def moment(timestamp: Timestamp) -> datetime:
    """A timestamp as a datetime in UTC."""
    return timestamp.ToDatetime(tzinfo=UTC)


def put(message: Message, field: str, value: object, *, allowed: str) -> None:
    """Set a field of a message, also to 0: what makes sense is the server's to say, only what fits is checked here.

    Args:
        allowed: what the API takes there, for the error's text.

    Raises:
        InvalidInputError: the value has the wrong type, or is too large or too small for the field.
    """
    try:
        setattr(message, field, value)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{field} is {value!r}; it must be {allowed}") from error


def texts(field: str, values: Sequence[str]) -> tuple[str, ...]:
    """A list of texts; a single text, which is a sequence of its letters, is none.

    Raises:
        InvalidInputError: it is something else.
    """
    if isinstance(values, str):
        raise InvalidInputError(f'{field} is {values!r}; it must be a list, as ["{values}"]')
    if not isinstance(values, Sequence) or not all(isinstance(value, str) for value in values):
        raise InvalidInputError(f"{field} is {values!r}; it must be a list of texts")
    return tuple(values)


def plain(value: Any) -> Any:
    """A JSON value that came as a google.protobuf.Struct: whole numbers as int again, keys in alphabetical order.

    A Struct holds its numbers as floats, and its keys in an order that changes from message to message.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
    return [plain(item) for item in value] if isinstance(value, list) else value


def pages(read_page: Callable[[str], AnyPage]) -> Iterator[AnyPage]:
    """All pages of a List call; `read_page` gets the token of each, empty for the first."""
    page = read_page("")
    yield page
    while page.next_page_token:
        page = read_page(page.next_page_token)
        yield page


def page_size(limit: int | None) -> int:
    """The page to ask for when `limit` things are wanted; 0 leaves it to the server."""
    return min(limit or 0, MAX_PAGE_SIZE)
