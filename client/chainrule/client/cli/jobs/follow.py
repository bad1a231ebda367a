"""`chainrule jobs watch`, `metrics` and `logs`: following a job while it trains."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from chainrule.client.cli.exits import ExitCode
from chainrule.client.cli.jobs.options import JobArgument, TimeoutOption
from chainrule.client.cli.jobs.show import show
from chainrule.client.cli.output import Format, when
from chainrule.client.cli.session import AddressOption, FormatOption, Session, open_session
from chainrule.client.printable import printable

if TYPE_CHECKING:
    from chainrule.client.job import Job
    from chainrule.client.records import LogEntry, Metric


def watch(
    ctx: typer.Context,
    job: JobArgument,
    timeout_s: TimeoutOption = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Follow a job until it has ended; the exit code tells how. Ctrl-C stops watching, not the job.

    A PAUSED job has not ended. With --format json, every status on the way is one line.
    """
    with open_session(ctx, address, form) as session:
        handle = session.client.jobs.get(job)
        if session.output.form is not Format.JSON:
            follow(session, handle, timeout_s=timeout_s)
            return
        try:
            handle.wait(progress=session.output.line, timeout_s=timeout_s)
        except KeyboardInterrupt:
            _stop_watching(session, handle)


def metrics(
    ctx: typer.Context,
    job: JobArgument,
    after: Annotated[int, typer.Option(min=0, metavar="N", help="Leave out the first N.")] = 0,
    following: Annotated[bool, typer.Option("--follow", help="Go on until the job has ended.")] = False,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Show what each step measured; with --follow --format json, one object per line."""

    def text(metric: "Metric") -> str:
        from chainrule.client.progress import named_values

        parts = [
            f"epoch {metric.epoch}  step {metric.step}  loss {metric.loss:.6f}",
            "" if metric.accuracy is None else f"accuracy {metric.accuracy:.4f}",
            named_values(metric.values, digits=6),
            f"examples {metric.num_examples}",
        ]
        return "  ".join(part for part in parts if part)

    with open_session(ctx, address, form) as session:
        handle = session.client.jobs.get(job)
        if not following:
            measured = handle.metrics(after=after)
            session.output.rows(
                measured,
                {
                    "STEP": lambda m: str(m.step),
                    "EPOCH": lambda m: str(m.epoch),
                    "LOSS": lambda m: f"{m.loss:.6f}",
                    "ACCURACY": lambda m: "-" if m.accuracy is None else f"{m.accuracy:.4f}",
                    **{printable(name).upper(): _column(name) for name in measured.names if name != "accuracy"},
                    "EXAMPLES": lambda m: str(m.num_examples),
                    "TIME": lambda m: when(m.time),
                },
            )
            return
        try:
            for metric in handle.stream_metrics(after=after):
                session.output.line(metric, text)
        except KeyboardInterrupt:
            _stop_watching(session, handle)


def _column(name: str) -> Callable[["Metric"], str]:
    return lambda metric: f"{metric.values[name]:.6f}" if name in metric.values else "-"


def logs(
    ctx: typer.Context,
    job: JobArgument,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    min_severity: Annotated[
        str | None,
        typer.Option(metavar="debug|info|warning|error", help="Leave out what matters less.", show_default=False),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            metavar="PROCESS",
            help="Only of this one: service, coordinator, 'worker 3'.",
            show_default=False,
        ),
    ] = "",
    after: Annotated[int, typer.Option(min=0, metavar="N", help="Leave out entries up to this number.")] = 0,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Show what the processes of a job have logged; with --format json, one object per line."""

    def text(entry: "LogEntry") -> str:
        return f"{when(entry.time)}  {entry.severity:<7}  {entry.source}  {entry.message}"

    with open_session(ctx, address, form) as session:
        handle = session.client.jobs.get(job)
        try:
            for entry in handle.logs(follow=following, min_severity=min_severity, source=source, after=after):
                session.output.line(entry, text)
        except KeyboardInterrupt:
            _stop_watching(session, handle)


def follow(session: Session, job: "Job", *, timeout_s: float | None) -> None:
    """Show a job's progress until it has ended; a bad end is raised, after the job was shown."""
    from chainrule.client.errors import JobCancelledError, JobFailedError

    try:
        with session.output.progress() as show_progress:
            ended = job.wait(progress=show_progress, timeout_s=timeout_s)
    except (JobCancelledError, JobFailedError):
        show(session, job.status(), error=False)  # it is reported on stderr
        raise
    except KeyboardInterrupt:
        _stop_watching(session, job)
    show(session, ended)


def _stop_watching(session: Session, job: "Job") -> NoReturn:
    session.output.note(
        f"\nstopped watching; {job.name} goes on. Cancel it with: {session.command(f'jobs cancel {job.name}')}"
    )
    raise typer.Exit(ExitCode.INTERRUPTED)
