"""Arguments and options that several commands of `chainrule jobs` share."""

from typing import Annotated

import typer

from chainrule.client.cli.completion import complete_job

JobArgument = Annotated[
    str,
    typer.Argument(metavar="JOB", help="The job, for example jobs/bea3phtux7dd.", autocompletion=complete_job),
]


def _positive(seconds: float | None) -> float | None:
    if seconds is not None and not seconds > 0:
        raise typer.BadParameter(f"{seconds:g} is not above 0.")
    return seconds


TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", help="The longest to wait, above 0.", callback=_positive, show_default=False
    ),
]
