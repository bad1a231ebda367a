"""The bar that shows on a terminal how far an upload or download is; elsewhere there is none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from chainrule.client.cli.exits import ExitCode
from chainrule.client.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console

KEPT = "interrupted; what has arrived is kept for a day, and the same command goes on from there"


@contextmanager
def transfer_shown(session: Session, what: str) -> Iterator[Callable[[int, int], None]]:
    """A function to be called with the bytes sent so far and in all. Ctrl-C says that nothing is lost by it."""
    sent_bytes = 0
    try:
        with _bar(session.output.stderr, f"sending {what}") as show:

            def transferred(done: int, total: int) -> None:
                nonlocal sent_bytes
                sent_bytes = done
                show(done, total)

            yield transferred
    except KeyboardInterrupt as error:
        if sent_bytes:
            session.output.note(KEPT)
        raise typer.Exit(ExitCode.INTERRUPTED) from error


@contextmanager
def download_shown(session: Session, what: str) -> Iterator[Callable[[int], None]]:
    """A function to be called with the bytes received so far; how many there are is not known."""
    with _bar(session.output.stderr, f"fetching {what}") as show:
        yield lambda done: show(done, None)


@contextmanager
def _bar(console: "Console", text: str) -> Iterator[Callable[[int, int | None], None]]:
    if not console.is_terminal:
        yield _show_nothing
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _show_nothing(_done: int, _total: int | None) -> None:
    """There is no place for it."""
