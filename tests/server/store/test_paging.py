"""Pages: every row once, in the order asked for, whatever comes and goes meanwhile."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from chainrule.server.errors import InvalidRequestError
from chainrule.server.store import schema
from chainrule.server.store.filtering import Number
from chainrule.server.store.paging import Listing, PageRequest, page
from tests.server.conftest import refusal

TABLE = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("ended", sa.BigInteger),
)
LISTING = Listing(
    TABLE.c.id,
    fields={"rank": Number(TABLE.c.rank)},
    orders={"made": TABLE.c.id, "name": TABLE.c.name, "rank": TABLE.c.rank, "ended": TABLE.c.ended},
)
NAMES = ["b", "a-c", "ab", "a", "c", "a-b", "ba"]


@pytest.fixture
def db(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        TABLE.metadata.create_all(connection)
        schema.identity.create(connection)
        connection.execute(schema.identity.insert().values(id="0" * 32))
        for number, name in enumerate(NAMES, 1):
            ended = None if number % 3 == 0 else 10**15 + number % 2
            connection.execute(TABLE.insert().values(id=number, name=name, rank=number % 2, ended=ended))
        yield connection
    engine.dispose()


def ids(db: sa.Connection, asked: PageRequest) -> tuple[list[int], str]:
    rows, token = page(db, sa.select(TABLE), LISTING, asked)
    return [row["id"] for row in rows], token


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("", [7, 6, 5, 4, 3, 2, 1]),
        ("made desc", [7, 6, 5, 4, 3, 2, 1]),
        ("made", [1, 2, 3, 4, 5, 6, 7]),
        ("name", [4, 6, 2, 3, 1, 7, 5]),
        ("  name   desc ", [5, 7, 1, 3, 2, 6, 4]),
        ("rank asc", [2, 4, 6, 1, 3, 5, 7]),
        ("rank desc", [7, 5, 3, 1, 6, 4, 2]),
        ("ended", [3, 6, 2, 4, 1, 5, 7]),
        ("ended desc", [7, 5, 1, 4, 2, 6, 3]),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pages_have_every_row_once_in_their_order(
    db: sa.Connection, order_by: str, expected: list[int], size: int
) -> None:
    seen, token = ids(db, PageRequest(size, order_by=order_by))
    while token:
        more, token = ids(db, PageRequest(size, token, order_by=order_by))
        assert 0 < len(more) <= size
        seen += more
    assert seen == expected


def test_what_comes_and_goes_meanwhile_moves_nothing_else(db: sa.Connection) -> None:
    first, token = ids(db, PageRequest(3, order_by="rank"))
    db.execute(TABLE.delete().where(TABLE.c.id == first[-1]))
    db.execute(TABLE.insert().values(id=8, name="x", rank=0))
    db.execute(TABLE.insert().values(id=9, name="y", rank=-1))
    assert ids(db, PageRequest(3, token, order_by="rank")) == ([8, 1, 3], ids(db, PageRequest(6, order_by="rank"))[1])


def test_filters_and_pages_go_together(db: sa.Connection) -> None:
    first, token = ids(db, PageRequest(2, filter="rank = 1", order_by="name"))
    rest, end = ids(db, PageRequest(2, token, filter="rank = 1", order_by="name"))
    assert (first, rest, end) == ([3, 1], [7, 5], "")


@pytest.mark.parametrize(
    "other",
    [{"filter": "rank = 0"}, {"order_by": "name desc"}, {"filter": "", "order_by": "name"}, {"order_by": ""}],
)
def test_a_token_is_good_for_its_filter_and_order_only(db: sa.Connection, other: dict[str, str]) -> None:
    known = {"filter": "rank = 1", "order_by": "name"}
    _, token = ids(db, PageRequest(1, **known))
    with pytest.raises(InvalidRequestError, match="is of a list with another filter or order_by; send those that"):
        ids(db, PageRequest(1, token, **{**known, **other}))


def test_a_token_is_good_for_its_scope_only(db: sa.Connection) -> None:
    _, token = page(db, sa.select(TABLE), LISTING, PageRequest(1), scope="one")
    with pytest.raises(InvalidRequestError, match="page_token: "):
        page(db, sa.select(TABLE), LISTING, PageRequest(1, token), scope="other")


@pytest.mark.parametrize("order_by", ["size", "name up", "name, rank", "name desc desc", "desc", "ñame", "-name", ";"])
def test_an_order_that_there_is_not_is_refused_naming_those_there_are(db: sa.Connection, order_by: str) -> None:
    with pytest.raises(
        InvalidRequestError, match='use one of made, name, rank, ended, and " desc" after it for the falling order'
    ) as caught:
        ids(db, PageRequest(order_by=order_by))
    assert refusal(caught).field == "order_by"


@pytest.mark.parametrize(
    "token", ["x", "17", " ", "é", "=", "A" * 10_000, "bnVsbA", "W10", "e30", "MQ", "W1tbW1tbW1tb", "_w"]
)
def test_what_is_no_token_is_refused(db: sa.Connection, token: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"page_token: .* is no token; use next_page_token") as caught:
        ids(db, PageRequest(2, token))
    assert len(str(caught.value)) < 300


def test_a_token_tells_nothing_and_is_good_for_its_store_only(db: sa.Connection) -> None:
    first, token = ids(db, PageRequest(1, order_by="name"))
    assert ids(db, PageRequest(1, order_by="name")) == (first, token)
    content = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    with pytest.raises(ValueError, match=r"decode|Expecting"):
        json.loads(content)
    for place in (0, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        with pytest.raises(InvalidRequestError, match=r"page_token: .* is no token"):
            ids(db, PageRequest(1, base64.urlsafe_b64encode(changed).decode().rstrip("="), order_by="name"))
    db.execute(schema.identity.update().values(id="1" * 32))
    with pytest.raises(InvalidRequestError, match=r"page_token: .* is no token"):
        ids(db, PageRequest(1, token, order_by="name"))
