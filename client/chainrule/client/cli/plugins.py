"""Commands that other packages add: entry points of the group `chainrule.commands`, loaded when they are called."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

import typer

from chainrule.client.cli.exits import ExitCode
from chainrule.client.cli.session import refuse_globals

GROUP = "chainrule.commands"
SUMMARIES = {"serve": "Start a server on this machine. Needs chainrule\\[server]."}


def add_commands(app: typer.Typer, found: tuple[EntryPoint, ...] | None = None) -> None:
    """Add the commands of other packages to `app` without importing those packages.

    Args:
        found: the entry points to add; by default those of the packages that are installed.
    """
    for entry_point in tuple(entry_points(group=GROUP)) if found is None else found:
        app.command(
            entry_point.name,
            help=SUMMARIES.get(entry_point.name, f"Added by {entry_point.module}."),
            add_help_option=False,  # the command has its own
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_forward_to(entry_point))


def _forward_to(entry_point: EntryPoint) -> Callable[[typer.Context], None]:
    def forward(ctx: typer.Context) -> None:
        refuse_globals(ctx, address=True, json=True)  # the command would never see them
        try:
            function = entry_point.load()
        except (ImportError, AttributeError) as error:
            typer.echo(
                f'error: "chainrule {entry_point.name}" cannot be loaded from {entry_point.value}: {error}; '
                "is it installed? Try: pip install 'chainrule[server]'",
                err=True,
            )
            raise typer.Exit(ExitCode.USAGE) from error
        command = typer.Typer(add_completion=False, rich_markup_mode="rich")
        command.command(entry_point.name)(function)
        command(args=ctx.args, prog_name=ctx.command_path)

    return forward
