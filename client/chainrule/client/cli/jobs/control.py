"""`chainrule jobs pause`, `resume`, `scale`, `cancel`, `update` and `rm`: steering a job, changing and removing it."""

from typing import Annotated

import typer

from chainrule.client.cli.jobs.options import JobArgument
from chainrule.client.cli.jobs.show import show
from chainrule.client.cli.options import (
    DescriptionOption,
    EtagOption,
    MissingOkOption,
    NewLabelsOption,
    NoLabelsOption,
    YesOption,
    confirm_removal,
    new_labels,
)
from chainrule.client.cli.session import AddressOption, FormatOption, open_session


def pause(ctx: typer.Context, job: JobArgument, address: AddressOption = None, form: FormatOption = None) -> None:
    """Ask a job to stop after the running step, store a checkpoint and give its workers back."""
    with open_session(ctx, address, form) as session:
        status = session.client.jobs.get(job).pause()
        show(session, status)
        session.output.note(f"let it go on with: {session.command(f'jobs resume {status.name}')}")


def resume(ctx: typer.Context, job: JobArgument, address: AddressOption = None, form: FormatOption = None) -> None:
    """Let a paused job go on, at the very example it stopped at."""
    with open_session(ctx, address, form) as session:
        status = session.client.jobs.get(job).resume()
        show(session, status)
        session.output.note(f"follow it with: {session.command(f'jobs watch {status.name}')}")


def scale(
    ctx: typer.Context,
    job: JobArgument,
    workers: Annotated[
        int | None,
        typer.Argument(metavar="WORKERS", help="The most workers: short for --max-workers.", show_default=False),
    ] = None,
    min_workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Fewest workers to train with. \\[default: as it is]", show_default=False),
    ] = None,
    max_workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Most workers, at most --shards. \\[default: as it is]", show_default=False),
    ] = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Change how many workers a job has, also while it runs. Its weights stay the same."""
    if workers is not None and max_workers is not None and workers != max_workers:
        raise typer.BadParameter(
            f"it is {max_workers}, but WORKERS is {workers}; give one of them.", param_hint="--max-workers"
        )
    with open_session(ctx, address, form) as session:
        most = max_workers if workers is None else workers
        show(session, session.client.jobs.get(job).scale(most, min_workers=min_workers))


def cancel(ctx: typer.Context, job: JobArgument, address: AddressOption = None, form: FormatOption = None) -> None:
    """Ask a job to stop for good."""
    with open_session(ctx, address, form) as session:
        show(session, session.client.jobs.get(job).cancel())


def update(
    ctx: typer.Context,
    job: JobArgument,
    labels: NewLabelsOption = None,
    no_labels: NoLabelsOption = False,
    description: DescriptionOption = None,
    priority: Annotated[
        int | None,
        typer.Option(metavar="N", help="Which waiting job goes first: the highest, -100 to 100.", show_default=False),
    ] = None,
    etag: EtagOption = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Change labels, description or priority of a job."""
    notes = new_labels(labels, none=no_labels)
    with open_session(ctx, address, form) as session:
        changed = session.client.jobs.update(job, labels=notes, description=description, priority=priority, etag=etag)
        show(session, changed)


def remove(
    ctx: typer.Context,
    job: JobArgument,
    etag: EtagOption = None,
    missing_ok: MissingOkOption = False,
    yes: YesOption = False,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Remove a job that has ended, with its metrics, logs and checkpoints. The model version it has made stays."""
    confirm_removal(f"{job} with its metrics, logs and checkpoints", yes=yes)
    with open_session(ctx, address, form) as session:
        session.client.jobs.delete(job, etag=etag, missing_ok=missing_ok)
        session.output.note(f"removed {job}")
