"""Filters: what they find, in both databases, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from chainrule.server.errors import InvalidRequestError
from chainrule.server.store import filtering
from chainrule.server.store.filtering import Choice, Field, Labels, Number, Text, Time, parse
from tests.server.conftest import refusal

TABLE = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("made", sa.BigInteger),
)
FIELDS: Mapping[str, Field] = {
    "name": Text(TABLE.c.name),
    "size": Number(TABLE.c.size),
    "state": Choice(TABLE.c.state, ["RUNNING", "PAUSED"], prefix="STATE_"),
    "labels": Labels(TABLE.c.labels),
    "made": Time(TABLE.c.made),
}
NEW_YEAR_US = 1_767_225_600_000_000  # of 2026
ROWS: list[dict[str, Any]] = [
    {"name": "a-b", "size": 1, "state": "RUNNING", "labels": {"team": "vision"}, "made": NEW_YEAR_US},
    {"name": "aB", "size": 2, "state": "PAUSED", "labels": {"team": "text", "x/y.z": "1"}, "made": NEW_YEAR_US + 1},
    {"name": "100%_\\", "size": -3, "state": "RUNNING", "labels": {}, "made": None},
    {"name": 'é "x"', "size": 4, "state": "", "labels": {"team": ""}, "made": 0},
]


@pytest.fixture
def db(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        TABLE.metadata.create_all(connection)
        connection.execute(TABLE.insert(), ROWS)
        yield connection
    engine.dispose()


def found(db: sa.Connection, text: str) -> list[int]:
    """Which of the rows, from 1."""
    rows = db.execute(sa.select(TABLE.c.name).where(parse(text, FIELDS)))
    return sorted([row["name"] for row in ROWS].index(name) + 1 for (name,) in rows)


CASES = {
    "": [1, 2, 3, 4],
    "  \n": [1, 2, 3, 4],
    # text
    "name = aB": [2],
    "name=a-b": [1],
    'name = "aB"': [2],
    "name = 'aB'": [2],
    "name != aB": [1, 3, 4],
    r'name = "é \"x\""': [4],
    r"name = '100%_\\'": [3],
    "name < a-b": [3],
    "name >= a-b": [1, 2, 4],
    "name <= aB AND name > a-b": [2],
    "name:b": [1, 2],
    "name:A": [1, 2],
    "name:é": [4],
    'name:"%"': [3],
    "name:_": [3],
    r'name:"\\"': [3],
    "name:*": [1, 2, 3, 4],
    "name:AND": [],
    # numbers
    "size > 1": [2, 4],
    "size>=1": [1, 2, 4],
    "size = -3": [3],
    "size:2": [2],
    "size < 9223372036854775807": [1, 2, 3, 4],
    "size != 1": [2, 3, 4],
    # constants
    "state = RUNNING": [1, 3],
    "state = STATE_RUNNING": [1, 3],
    "state != RUNNING": [2, 4],
    "state:*": [1, 2, 3],
    # labels
    "labels.team = vision": [1],
    "labels.team != vision": [2, 3, 4],
    "NOT labels.team = vision": [2, 3, 4],
    "NOT labels.team != vision": [1],
    "NOT labels.team > text": [2, 3, 4],
    "labels.team = ''": [4],
    "labels.x/y.z = 1": [2],
    "labels:team": [1, 2, 4],
    "NOT labels:team": [3],
    "labels.team:*": [1, 2],
    "labels:*": [1, 2, 4],
    "labels.team:is": [1],
    "NOT labels.team:is": [2, 3, 4],
    "NOT labels.team:*": [3, 4],
    "labels.none = 1": [],
    # times
    "made = 2026-01-01T00:00:00Z": [1],
    'made > "2026-01-01T00:00:00Z"': [2],
    "made >= 2026-01-01T02:00:00+02:00": [1, 2],
    "made > 2026-01-01t00:00:00.000000z": [2],
    "made < 1970-01-01T00:00:00.000001Z": [4],
    "NOT made < 2030-01-01T00:00:00Z": [3],
    "made != 2026-01-01T00:00:00Z": [2, 3, 4],
    "made:*": [1, 2, 4],
    "made > 0001-01-01T00:00:00+14:00": [1, 2, 4],
    # together
    "size = 1 OR size = 2": [1, 2],
    "size > 0 AND NOT state = PAUSED": [1, 4],
    "size = 1 AND state = PAUSED OR size = 1": [1],  # OR binds tighter than AND
    "(size = 1 AND state = PAUSED) OR size = 1": [1],
    "(size = 4 AND state = PAUSED) OR size = 1": [1],
    "size = 4 AND state = PAUSED OR size = 1": [],
    "NOT (size = 1 OR size = 2)": [3, 4],
    "NOT (size = 1) AND (((size < 3)))": [2, 3],
    "(size=1)OR(size=2)": [1, 2],
}


@pytest.mark.parametrize("text", CASES)
def test_a_filter_finds_what_it_says(db: sa.Connection, text: str) -> None:
    assert found(db, text) == CASES[text]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = red", "at character 1: there is no field 'colour'; these are name, size, state, labels.KEY, made"),
        ("size > 1 AND colour = red", "at character 14: there is no field 'colour'"),
        ("labels.Team = x", "at character 1: 'Team' is no key of a label"),
        ("labels. = x", "at character 1: '' is no key of a label"),
        ("labels:9", "at character 8: labels: '9' is no key of a label"),
        ("labels = x", "at character 10: labels: labels are compared one by one; write labels.KEY = VALUE"),
        ("size = x", "at character 8: size: 'x' is no whole number; write one of 64 bits, for example 1000"),
        ("size = 1.5", "at character 8: size: '1.5' is no whole number"),
        ("size = ٣", "is no whole number"),
        ("size = 9223372036854775808", "is no whole number; write one of 64 bits"),
        ("size = ''", "at character 8: size: '' is no whole number"),
        ("state = NONSENSE", "at character 9: state: 'NONSENSE' is none of its values; these are RUNNING, PAUSED"),
        ("state < PAUSED", "at character 9: state: its values have no order; compare it with = or !=, not with <"),
        (
            "made > yesterday",
            "at character 8: made: 'yesterday' is no time; write one as in RFC 3339, for example 2026",
        ),
        ("made > 2026-01-31", "is no time; write one as in RFC 3339"),
        ("made > 2026-02-31T00:00:00Z", "is no time: day is out of range for month; an example is 2026-01-31T12"),
        ("made > 2026-01-01T00:00:00+99:00", "is no time: "),
        ("size", "at character 5: the end follows 'size'; compare it with one of =, !=, <, <=, >, >=, :"),
        ("size 1", "at character 6: '1' follows 'size'; compare it with one of"),
        ("size =", "at character 7: the end follows =; give a value to compare with"),
        ("size = )", "at character 8: ')' follows =; give a value"),
        ("size == 1", "at character 7: '= 1' follows =; give a value"),
        ("size = 1 and size = 2", "at character 10: 'and size = 2' follows a comparison; join comparisons with AND or"),
        (
            "name = two words",
            "at character 12: 'words' follows a comparison; join comparisons with AND or OR, in capital letters, and "
            "put values with blanks or other signs in quotes",
        ),
        ("size = 1)", "at character 9: ')' follows a comparison"),
        ("(size = 1", "at character 1: the parenthesis is not closed before the end; close it with"),
        ("(size = 1 name = x)", "at character 1: the parenthesis is not closed before 'name = x"),
        ("size = 1 AND", "at character 13: the end is where a comparison belongs; write one as FIELD = VALUE"),
        ("AND size = 1", "at character 1: 'AND size = 1' is where a comparison belongs"),
        ("size = 1 OR AND", "at character 13: 'AND' is where a comparison belongs"),
        ("NOT NOT size = 1", "at character 5: 'NOT size = 1' is where a comparison belongs"),
        ("-size = 1", "at character 1: '-size = 1' is where a comparison belongs"),
        ("()", "at character 2: ')' is where a comparison belongs"),
        ('name = "x', "at character 8: the quote is not closed; close it with the same sign"),
        (r'name = "x\"', "at character 8: the quote is not closed"),
        ("name = \0", "at character 8: there is a NUL, which no text has; leave it out"),
        ("name = " + "x" * 2000, "it has 2,007 characters; use at most 2,000"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_the_remedy(text: str, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(text, FIELDS)
    assert refusal(caught).field == "filter"
    assert said in refusal(caught).description


def test_a_field_that_has_no_labels_beside_it_has_none() -> None:
    with pytest.raises(InvalidRequestError, match=r"there is no field 'labels.x'; these are name"):
        parse("labels.x = 1", {"name": FIELDS["name"]})


def test_a_filter_has_no_more_comparisons_than_a_database_copes_with() -> None:
    parse(" OR ".join(["size=1"] * filtering.MAX_COMPARISONS), FIELDS)
    with pytest.raises(InvalidRequestError, match="at character 501: there are more than 50 comparisons; use fewer"):
        parse(" OR ".join(["size=1"] * (filtering.MAX_COMPARISONS + 1)), FIELDS)


def test_parentheses_do_not_go_deeper_than_the_stack() -> None:
    parse("(" * filtering.MAX_DEPTH + "size=1" + ")" * filtering.MAX_DEPTH, FIELDS)
    with pytest.raises(InvalidRequestError, match="at character 21: more than 20 parentheses are within each other"):
        parse("(" * 1990 + "size=1", FIELDS)


def test_the_largest_filter_is_one_that_databases_take(db: sa.Connection) -> None:
    comparisons = " AND ".join(["NOT (labels.team != x)"] * filtering.MAX_COMPARISONS)
    deep = "(" * filtering.MAX_DEPTH + "name:" + "%" * 1950 + ")" * filtering.MAX_DEPTH
    assert (found(db, comparisons), found(db, deep)) == ([], [])


PIECES = ["size", "name", "labels", ".team", "made", " ", "=", "!=", ":", "<", "(", ")", "NOT ", " AND ", " OR ", '"',
          "'", "\\", "1", "x", "*", "state", "RUNNING", "2026-01-01T00:00:00Z", "\0", "é", "-"]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join) | st.text(max_size=40))
def test_whatever_is_written_is_a_condition_or_refused(text: str) -> None:
    try:
        condition = parse(text, FIELDS)
    except InvalidRequestError as error:
        [violation] = error.violations
        assert violation.field == "filter"
    else:
        sa.select(TABLE).where(condition).compile(dialect=sqlite.dialect())
