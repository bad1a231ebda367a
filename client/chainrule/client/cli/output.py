"""What commands print: tables for people or JSON for programs, and errors in the same form on stderr.

Much of it was written by others; in what is for people, nothing of it does more to a terminal than print.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from chainrule.client.printable import printable

if TYPE_CHECKING:
    from chainrule.client.status import JobStatus

T = TypeVar("T")
WIDE = 250  # columns where there is no terminal: a table in a file is not cut


class Format(StrEnum):
    """The form of what is printed."""

    TABLE = "table"
    JSON = "json"


class Output:
    """Prints in one format: data on stdout, notes and errors on stderr.

    Args:
        form: tables for people, or JSON: one document, or one per line for what is followed.
    """

    def __init__(self, form: Format) -> None:
        self.form = form
        self.stdout = _console(stderr=False)
        self.stderr = _console(stderr=True)

    def record(self, value: object, lines: Iterable[tuple[str, str]]) -> None:
        """Print one thing: as JSON, or as the labelled lines."""
        if self.form is Format.JSON:
            self._json(value)
            return
        table = Table.grid(padding=(0, 2))
        for label, text in lines:
            table.add_row(Text(label, style="dim"), Text(printable(text)))
        self._table(table)

    def rows(self, values: Iterable[T], columns: Mapping[str, Callable[[T], str]]) -> None:
        """Print several things: as a JSON array, or as a table with what each column says of each."""
        values = list(values)
        if self.form is Format.JSON:
            self._json(values)
            return
        table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for value in values:
            table.add_row(*(Text(printable(column(value))) for column in columns.values()))
        self._table(table)

    def line(self, value: T, text: Callable[[T], str] = str) -> None:
        """Print one of a series as it comes: a line of JSON, or the line of text made of it."""
        if self.form is Format.JSON:
            self._json(value, indent=None)
        else:
            self.stdout.print(Text(printable(text(value))), soft_wrap=True)

    def note(self, text: str) -> None:
        """Tell people something that is not data."""
        self.stderr.print(Text(printable(text)), soft_wrap=True)

    def progress(self) -> "AbstractContextManager[Callable[[JobStatus], None]]":
        """A function that shows a job's progress; away from stdout where that is JSON."""
        from chainrule.client.progress import show_progress

        return show_progress(self.stderr if self.form is Format.JSON else self.stdout)

    def error(self, error: Exception) -> None:
        """Report an error: its message and each refused field that this does not tell yet, or a JSON object."""
        if self.form is Format.JSON:
            self.stderr.print(Text(json.dumps({"error": error_to_json(error)})), soft_wrap=True)
            return
        message = str(error)
        violations = [str(violation) for violation in getattr(error, "violations", ())]
        if message == "; ".join(violations):
            message = "\n  ".join(violations)
        elif hasattr(error, "traceback"):
            message = first_line(message)
        self.stderr.print(Text.assemble(("error: ", "bold red"), printable(message)), soft_wrap=True)
        for violation in violations:
            if violation not in message:
                self.stderr.print(Text(printable(f"  {violation}")), soft_wrap=True)

    def _table(self, table: Table) -> None:
        """Print a table without the spaces that fill its lines."""
        for line in self.stdout.render_lines(table, pad=False):
            text = Text.assemble(*((segment.text, segment.style or "") for segment in line))
            text.rstrip()
            self.stdout.print(text, soft_wrap=True)

    def _json(self, value: object, *, indent: int | None = 2) -> None:
        self.stdout.print(Text(json.dumps(to_json(value), indent=indent)), soft_wrap=True)


def to_json(value: object) -> Any:
    """A value of the client as JSON knows it: times as ISO 8601, numbers that are not finite as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value) if not f.name.startswith("_")}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def error_to_json(error: Exception) -> dict[str, Any]:
    """An error as JSON: its type and message, and what else it carries."""
    code = getattr(error, "code", None)
    return {
        "type": type(error).__name__,
        "message": str(error),
        "code": code.name if code else None,
        "job": getattr(error, "job", "") or None,
        "reason": getattr(error, "reason", "") or None,
        "metadata": getattr(error, "metadata", {}),
        "resource": getattr(error, "resource_name", "") or None,
        "violations": to_json(getattr(error, "violations", ())),
    }


# Texts in cells.


def when(time: datetime | None) -> str:
    """A time in this machine's zone, to the second."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else "-"


def first_line(text: str) -> str:
    """A text up to its first line break."""
    return text.partition("\n")[0]


def short_name(name: str) -> str:
    """The last part of a resource name."""
    return name.rpartition("/")[2]


def short_digest(digest: str | None) -> str:
    """Enough of a digest to recognise it."""
    return digest[:12] if digest else "-"


def size(num_bytes: float) -> str:
    """A number of bytes for people.

    >>> size(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.3g} TiB"


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=WIDE)
