"""Filters of list calls, in the language of AIP-160, as conditions of SQL.

    expression = sequence {"AND" sequence}
    sequence   = factor {"OR" factor}                OR binds tighter than AND, as AIP-160 has it
    factor     = ["NOT"] (comparison | "(" expression ")")
    comparison = field ("=" | "!=" | "<" | "<=" | ">" | ">=" | ":") value
    field      = a declared name | "labels." key
    value      = a word | a string in quotes, with a backslash before a quote or a backslash in it

`:` is "has": a text has a part, labels have a key; `field:*` is true of what is set. `!=` is true exactly where `=` is
not, so also where there is nothing to compare with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import ge, gt, le, lt
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from chainrule.server.annotations import LABEL_KEY
from chainrule.server.errors import InvalidRequestError, echo

MAX_LENGTH = 2000
"""Characters of the longest filter."""
MAX_COMPARISONS = 50
MAX_DEPTH = 20
"""Parentheses within each other."""

Condition = sa.ColumnElement[bool]
Operator = Callable[[Any, Any], Any]


class Field(Protocol):
    """What can be compared: a column, and how what a client writes is read for it."""

    def condition(self, comparator: str, value: str) -> Condition:
        """Raises ValueError saying what is wrong, with the remedy."""


# --- kinds of fields -------------------------------------------------------------------------------------------

_ORDERS: Mapping[str, Operator] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True)
class Text:
    """Compared by its bytes; has any part of it, whatever the case of its letters (in SQLite, those of ASCII)."""

    column: sa.ColumnElement[str]

    def condition(self, comparator: str, value: str) -> Condition:
        if comparator == ":":
            return sa.and_(self.column.is_not(None), self._has(value))
        return _compared(by_bytes(self.column), comparator, sa.literal(value, sa.String), order=_ORDERS)

    def _has(self, part: str) -> Condition:
        if part == "*":
            return self.column != ""
        pattern = "%" + re.sub(r"[\\%_]", r"\\\g<0>", part) + "%"
        return sa.func.lower(self.column).like(sa.func.lower(pattern), escape="\\")


@dataclass(frozen=True)
class Number:
    """A whole number of 64 bits."""

    column: sa.ColumnElement[int]

    def condition(self, comparator: str, value: str) -> Condition:
        if comparator == ":" and value == "*":
            return self.column.is_not(None)
        if not re.fullmatch(r"-?[0-9]{1,19}", value) or not -(2**63) <= int(value) < 2**63:
            raise ValueError(f"{echo(value)} is no whole number; write one of 64 bits, for example 1000")
        return _compared(self.column, comparator, sa.literal(int(value), sa.BigInteger), order=_ORDERS)


@dataclass(frozen=True)
class Time:
    """A time, which the column has in microseconds since 1970; or none yet."""

    column: sa.ColumnElement[Any]

    def condition(self, comparator: str, value: str) -> Condition:
        if comparator == ":" and value == "*":
            return self.column.is_not(None)
        microseconds = sa.literal(_microseconds(value), sa.BigInteger)
        return _compared(self.column, comparator, microseconds, order=_ORDERS)


@dataclass(frozen=True)
class Choice:
    """One of some constants, which may also be written with a prefix, as enums of the API have them."""

    column: sa.ColumnElement[str]
    values: Sequence[str]
    prefix: str = ""

    def condition(self, comparator: str, value: str) -> Condition:
        if comparator == ":" and value == "*":
            return self.column != ""
        plain = value.removeprefix(self.prefix)
        if plain not in self.values:
            raise ValueError(f"{echo(value)} is none of its values; these are {', '.join(self.values)}")
        return _compared(self.column, comparator, sa.literal(plain, sa.String), order={})


@dataclass(frozen=True)
class Labels:
    """Labels, in a column of JSON: `labels:KEY`, and a text by each key."""

    column: sa.ColumnElement[Any]

    def condition(self, comparator: str, value: str) -> Condition:
        if comparator != ":":
            raise ValueError(f"labels are compared one by one; write labels.KEY {comparator} VALUE, or labels:KEY")
        if value == "*":
            return sa.cast(self.column, sa.Text) != "{}"
        return self.of(value).column.is_not(None)

    def of(self, key: str) -> Text:
        """The field that one label is. Raises ValueError if there is no such label."""
        if not LABEL_KEY.fullmatch(key):
            raise ValueError(
                f"{echo(key)} is no key of a label; one is 1 to 63 lower-case letters, digits, and characters of _-./, "
                "and begins with a letter"
            )
        return Text(self.column[key].as_string())


def _compared(
    column: sa.ColumnElement[Any], comparator: str, value: sa.ColumnElement[Any], *, order: Mapping[str, Operator]
) -> Condition:
    """The comparison, which is true or false even where the column has nothing: true of `!=` alone."""
    match comparator:
        case "=" | ":":
            return sa.and_(column.is_not(None), column == value)
        case "!=":
            return sa.or_(column.is_(None), column != value)
        case _ if comparator in order:
            compare: Condition = order[comparator](column, value)
            return sa.and_(column.is_not(None), compare)
    raise ValueError(f"its values have no order; compare it with = or !=, not with {comparator}")


def _microseconds(value: str) -> int:
    if not _RFC_3339.fullmatch(value):
        raise ValueError(f"{echo(value)} is no time; write one as in RFC 3339, for example 2026-01-31T12:00:00Z")
    try:
        return (datetime.fromisoformat(value.upper()) - _EPOCH) // timedelta(microseconds=1)
    except ValueError as error:
        raise ValueError(f"{echo(value)} is no time: {error}; an example is 2026-01-31T12:00:00Z") from error


class by_bytes(FunctionElement[str]):  # noqa: N801 — a function of SQL
    """A text whose order is that of its bytes, in every database."""

    inherit_cache = True
    type = sa.String()


@compiles(by_bytes)
def _plain(element: by_bytes, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(by_bytes, "postgresql")
def _collated(element: by_bytes, compiler: SQLCompiler, **options: Any) -> str:
    return f'({compiler.process(element.clauses, **options)} COLLATE "C")'


# --- the language ----------------------------------------------------------------------------------------------

_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"[A-Za-z]+")
_FIELD = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
_COMPARATOR = re.compile(r"!=|<=|>=|=|<|>|:")
_VALUE = re.compile(r"""[^\s()"'=!<>]+""")
_QUOTED = re.compile(r""""((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'""", re.DOTALL)
_LABELS = "labels"


def parse(text: str, fields: Mapping[str, Field]) -> Condition:
    """A filter as a condition over these fields; an empty one is true. Raises InvalidRequestError naming `filter`, the
    place in it that is wrong, and the remedy."""
    if len(text) > MAX_LENGTH:
        raise InvalidRequestError.of("filter", f"it has {len(text):,} characters; use at most {MAX_LENGTH:,}")
    if "\0" in text:
        raise _wrong(text.index("\0"), "there is a NUL, which no text has; leave it out")
    return _Parser(text, fields).whole() if text.strip() else sa.true()


class _Parser:
    """Reads a filter from left to right, a method for each rule of the grammar."""

    def __init__(self, text: str, fields: Mapping[str, Field]) -> None:
        self._text = text
        self._fields = fields
        self._at = 0
        self._depth = 0
        self._comparisons = 0

    def whole(self) -> Condition:
        condition = self._expression()
        if self._at < len(self._text):
            raise _wrong(
                self._at,
                f"{self._rest()} follows a comparison; join comparisons with AND or OR, in capital letters, and put "
                "values with blanks or other signs in quotes",
            )
        return condition

    def _expression(self) -> Condition:
        parts = [self._sequence()]
        while self._takes_word("AND"):
            parts.append(self._sequence())
        return sa.and_(*parts)

    def _sequence(self) -> Condition:
        parts = [self._factor()]
        while self._takes_word("OR"):
            parts.append(self._factor())
        return sa.or_(*parts)

    def _factor(self) -> Condition:
        if self._takes_word("NOT"):
            return sa.not_(self._factor_without_not())
        return self._factor_without_not()

    def _factor_without_not(self) -> Condition:
        self._skip_space()
        if not self._text.startswith("(", self._at):
            return self._comparison()
        opened = self._at
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _wrong(opened, f"more than {MAX_DEPTH} parentheses are within each other; use fewer")
        self._at += 1
        condition = self._expression()
        if not self._text.startswith(")", self._at):
            raise _wrong(opened, f"the parenthesis is not closed before {self._rest()}; close it with )")
        self._at += 1
        self._depth -= 1
        self._skip_space()
        return condition.self_group()

    def _comparison(self) -> Condition:
        begin = self._at
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise _wrong(begin, f"there are more than {MAX_COMPARISONS} comparisons; use fewer")
        found = _FIELD.match(self._text, begin)
        if found is None or found[0] in ("AND", "OR", "NOT"):
            raise _wrong(begin, f"{self._rest()} is where a comparison belongs; write one as FIELD = VALUE")
        self._at = found.end()
        try:
            compared = self._field(found[0])
        except ValueError as error:
            raise _wrong(begin, str(error)) from error
        comparator = self._comparator(found[0])
        at = self._at
        try:
            return compared.condition(comparator, self._value(comparator))
        except ValueError as error:
            raise _wrong(at, f"{found[0]}: {error}") from error

    def _field(self, name: str) -> Field:
        known = self._fields.get(name)
        if known is not None:
            return known
        labels = self._fields.get(_LABELS)
        before, _, key = name.partition(".")
        if before == _LABELS and isinstance(labels, Labels):
            return labels.of(key)
        names = (f"{_LABELS}.KEY" if name == _LABELS else name for name in self._fields)
        raise ValueError(f"there is no field {echo(name)}; these are {', '.join(names)}")

    def _comparator(self, name: str) -> str:
        self._skip_space()
        found = _COMPARATOR.match(self._text, self._at)
        if found is None:
            raise _wrong(
                self._at, f"{self._rest()} follows {echo(name)}; compare it with one of =, !=, <, <=, >, >=, :"
            )
        self._at = found.end()
        self._skip_space()
        return found[0]

    def _value(self, comparator: str) -> str:
        if (quoted := _QUOTED.match(self._text, self._at)) is not None:
            self._at = quoted.end()
            value = re.sub(r"\\(.)", r"\1", quoted[1] or quoted[2] or "", flags=re.DOTALL)
        elif (word := _VALUE.match(self._text, self._at)) is not None:
            self._at = word.end()
            value = word[0]
        elif self._text.startswith(("'", '"'), self._at):
            raise _wrong(self._at, "the quote is not closed; close it with the same sign")
        else:
            raise _wrong(self._at, f"{self._rest()} follows {comparator}; give a value to compare with")
        self._skip_space()
        return value

    def _takes_word(self, word: str) -> bool:
        self._skip_space()
        found = _WORD.match(self._text, self._at)
        if found is None or found[0] != word:
            return False
        self._at = found.end()
        return True

    def _skip_space(self) -> None:
        space = _SPACE.match(self._text, self._at)
        assert space is not None  # it matches nothing, too
        self._at = space.end()

    def _rest(self) -> str:
        return echo(self._text[self._at :]) if self._at < len(self._text) else "the end"


def _wrong(at: int, what: str) -> InvalidRequestError:
    return InvalidRequestError.of("filter", f"at character {at + 1}: {what}")
