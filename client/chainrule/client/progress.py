"""The progress of a job for people to watch: one live line on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

from chainrule.client.printable import printable
from chainrule.client.status import JobState, JobStatus

BAR_WIDTH = 12
EVERY_S = 10.0
"""Longest time between two lines where there is no terminal, while there is something new."""
STANDING = frozenset({JobState.QUEUED, JobState.RECOVERING, JobState.PAUSING, JobState.PAUSED})


@contextmanager
def show_progress(
    console: Console | None = None, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[JobStatus], None]]:
    """A function that shows a job's status, to be called with each new one; the display ends with the block.

    Args:
        console: where to show it; stdout by default.
        clock: seconds from any origin, never going back.
    """
    console = console or Console()
    if not console.is_terminal:
        yield _Lines(console, clock)
        return
    with Bar(*_columns(), console=console) as bar:
        yield _LiveLine(bar, bar.add_task("", total=None))


def describe(status: JobStatus, *, width: int | None = None) -> str:
    """How far a job is, in one line without its name: state, epoch, step, loss, accuracy and other values, examples/s,
    ETA, workers; and why it stands still, where it does.

    Args:
        width: columns there are; what is missed least is left out until the line fits. State and epoch always stay.
    """
    progress = status.progress
    parts = {
        "state": f"{status.state:<10}",
        "epoch": f"epoch {progress.epoch}/{progress.total_epochs}",
        "step": f"step {progress.step}/{progress.total_steps}",
    }
    if progress.loss is not None:
        parts["loss"] = f"loss {progress.loss:.4f}"
    if progress.accuracy is not None:
        parts["accuracy"] = f"accuracy {progress.accuracy:.3f}"
    if others := named_values(progress.values, digits=4):
        parts["values"] = others
    if status.state not in STANDING and not status.state.is_final:
        if progress.examples_per_second:
            parts["pace"] = f"{progress.examples_per_second:,.0f} examples/s"
        if progress.eta_s is not None:
            parts["eta"] = f"ETA {duration(progress.eta_s)}"
    if status.running_workers and not status.state.is_final:
        parts["workers"] = workers(status.running_workers)
    if status.state in STANDING and status.reason:
        parts["reason"] = printable(f"({status.reason.partition(chr(10))[0]})")
    for part in (
        "values",
        "pace",
        "step",
        "accuracy",
        "workers",
        "loss",
        "eta",
        "reason",
    ):  # the bar shows the step too
        if width is None or len("  ".join(parts.values())) <= width:
            break
        parts.pop(part, None)
    return "  ".join(parts.values())


def named_values(values: Mapping[str, float], *, digits: int) -> str:
    """What was measured besides loss and accuracy, for people.

    >>> named_values({"accuracy": 0.5, "f1": 0.25, "top_3": 0.75}, digits=3)
    'f1 0.250  top_3 0.750'
    """
    shown = [f"{name} {value:.{digits}f}" for name, value in values.items() if name != "accuracy"]
    return printable("  ".join(shown))


def workers(number: int) -> str:
    """A number of workers for people.

    >>> workers(1)
    '1 worker'
    """
    return "1 worker" if number == 1 else f"{number} workers"


def duration(seconds: float) -> str:
    """A length of time for people.

    >>> duration(75)
    '1:15'
    >>> duration(3725)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _LiveLine:
    """Shows the status in a bar that is drawn anew."""

    def __init__(self, bar: Bar, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def __call__(self, status: JobStatus) -> None:
        self._bar.update(
            self._task,
            completed=status.progress.step,
            total=status.progress.total_steps or None,
            description=describe(status, width=self._bar.console.width - BAR_WIDTH - 1),
        )


class _Lines:
    """Prints the status when the state or the number of workers is another one, and as the training goes on: after a
    tenth of it, and after EVERY_S."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._shown: tuple[str, int, int] | None = None
        self._shown_at = 0.0

    def __call__(self, status: JobStatus) -> None:
        tenths = 10 * status.progress.step // status.progress.total_steps if status.progress.total_steps else 0
        seen = (status.state, tenths, status.running_workers)
        if seen != self._shown or self._clock() - self._shown_at >= EVERY_S:
            self._shown, self._shown_at = seen, self._clock()
            self._console.print(f"{status.name}  {describe(status)}", soft_wrap=True, highlight=False, markup=False)


def _columns() -> tuple[ProgressColumn, ...]:
    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
    return BarColumn(bar_width=BAR_WIDTH), text
