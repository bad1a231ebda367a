"""`chainrule jobs events`, `checkpoints` and `receipts`: what is recorded of a job."""

from typing import Annotated

import typer

from chainrule.client.cli.jobs.options import JobArgument
from chainrule.client.cli.output import short_digest, size, when
from chainrule.client.cli.session import AddressOption, FormatOption, open_session


def events(
    ctx: typer.Context,
    job: JobArgument,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", help="Only this kind; may be given several times.", show_default=False),
    ] = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Show what happened to a job, oldest first: recoveries, stragglers, corruption, scaling, warnings."""
    with open_session(ctx, address, form) as session:
        session.output.rows(
            [event for event in session.client.jobs.get(job).status().events if not kinds or event.kind in kinds],
            {
                "TIME": lambda e: when(e.time),
                "STEP": lambda e: str(e.step),
                "KIND": lambda e: e.kind,
                "LOST": lambda e: f"{e.seconds_lost:.1f} s" if e.seconds_lost else "-",
                "WHAT": lambda e: e.message,
            },
        )


def checkpoints(
    ctx: typer.Context,
    job: JobArgument,
    limit: Annotated[int, typer.Option(min=1, help="The most to list.")] = 50,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """List the checkpoints of a job that are kept, newest first."""
    with open_session(ctx, address, form) as session:
        session.output.rows(
            session.client.jobs.get(job).checkpoints(limit=limit),
            {
                "STEP": lambda c: str(c.step),
                "EPOCH": lambda c: str(c.epoch),
                "BEST": lambda c: "best" if c.is_best else "-",
                "SIZE": lambda c: size(c.size_bytes),
                "SHA256": lambda c: short_digest(c.digest),
                "CREATED": lambda c: when(c.create_time),
            },
        )


def receipts(
    ctx: typer.Context,
    job: JobArgument,
    after: Annotated[int, typer.Option(min=0, metavar="STEP", help="Leave out those up to this step.")] = 0,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """List the receipts of a job: digests of its whole state after steps, each chained to those before.

    Two jobs with the same chain after a step had the same states so far; "chainrule jobs verify" compares them.
    """
    with open_session(ctx, address, form) as session:
        session.output.rows(
            session.client.jobs.get(job).receipts(after=after),
            {
                "STEP": lambda r: str(r.step),
                "STATE SHA256": lambda r: r.state_digest,
                "CHAIN": lambda r: short_digest(r.chain_digest),
            },
        )
