"""Arguments and options that commands of several groups share, and what becomes of their values."""

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from chainrule.client.cli.completion import complete_dataset, complete_model
from chainrule.client.cli.exits import ExitCode

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="The model, for example digits.", autocompletion=complete_model)
]
DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="The dataset, for example digits.", autocompletion=complete_dataset)
]

LabelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="KEY=VALUE",
        help="A note to find it by; may be given several times.",
        show_default=False,
    ),
]
NewLabelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="KEY=VALUE",
        help="All labels that it has from now on; may be given several times.",
        show_default=False,
    ),
]
NoLabelsOption = Annotated[bool, typer.Option("--no-labels", help="Take away all labels.")]
DescriptionOption = Annotated[
    str | None, typer.Option("--description", metavar="TEXT", help="What it is for.", show_default=False)
]
EtagOption = Annotated[
    str | None,
    typer.Option(
        "--etag", metavar="ETAG", help="Only if it still has this one; --format json shows it.", show_default=False
    ),
]
FilterOption = Annotated[
    str,
    typer.Option(
        "--filter",
        metavar="EXPRESSION",
        help='Which to list, as \'labels.team = "vision" AND create_time > "2026-01-01T00:00:00Z"\'.',
        show_default=False,
    ),
]
OrderByOption = Annotated[
    str,
    typer.Option(
        "--order-by",
        metavar="FIELD",
        help="In which order, as name or 'name desc'. \\[default: create_time desc]",
        show_default=False,
    ),
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="The most to list.")]
MissingOkOption = Annotated[bool, typer.Option("--missing-ok", help="Succeed if it is not there.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; away from a terminal nothing is asked.")]


def parse_labels(texts: Sequence[str] | None) -> dict[str, str]:
    """Labels from what --label was given.

    >>> parse_labels(["team=vision", "formula=a=b"])
    {'team': 'vision', 'formula': 'a=b'}

    Raises:
        typer.BadParameter: a text is not key=value, or a key is given twice.
    """
    labels: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"'{text}' is not key=value, as team=vision.", param_hint="--label")
        if key in labels:
            raise typer.BadParameter(f'"{key}" is given twice; give it once.', param_hint="--label")
        labels[key] = value
    return labels


def new_labels(texts: Sequence[str] | None, *, none: bool) -> dict[str, str] | None:
    """The labels that a thing is to have from now on; None: those that it has.

    Raises:
        typer.BadParameter: as `parse_labels`; or --no-labels contradicts --label.
    """
    if none and texts:
        raise typer.BadParameter("it takes away what --label gives; leave one of them out.", param_hint="--no-labels")
    return {} if none else parse_labels(texts) if texts else None


def is_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


def confirm_removal(what: str, *, yes: bool) -> None:
    """Ask on a terminal whether a thing is to be removed, and end the command where it is not."""
    if yes or not is_terminal():
        return
    if not typer.confirm(f"remove {what} for good?", err=True):
        typer.echo("nothing was removed", err=True)
        raise typer.Exit(ExitCode.USAGE)


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels in one line, as they are given; "-" for none."""
    return ", ".join(f"{key}={value}" for key, value in labels.items()) or "-"
