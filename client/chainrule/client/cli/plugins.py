"""Commands that other packages add: entry points of the group `chainrule.commands`, loaded when they are called.

An entry point `serve` is `chainrule serve`; `cluster.up` is `chainrule cluster up`, a command of the group `cluster`.
"""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

import typer

from chainrule.client.cli.exits import ExitCode
from chainrule.client.cli.output import Format
from chainrule.client.cli.session import Globals

GROUP = "chainrule.commands"
GROUPS = {"admin": "Look after a server: its data folder while it does not run, and certificates."}
SUMMARIES = {
    "serve": "Start a server on this machine. Needs chainrule\\[server].",
    "admin.backup": "Write the data of a server that does not run into one file.",
    "admin.certs": "Make certificates of an authority of your own, for trying TLS.",
    "admin.check": "Look for what is damaged or missing in the data folder of a server that does not run.",
    "admin.gc": "Remove what nothing refers to from the data folder of a server that does not run.",
    "admin.restore": "Make a data folder of such a file.",
    "admin.token-create": "Make a token in the data folder of a server that does not run; the first one, say.",
    "admin.token-ls": "List the tokens in the data folder of a server that does not run.",
    "admin.token-revoke": "Revoke a token in the data folder of a server that does not run.",
    "cluster.up": "Start a Ray cluster on this machine. Needs chainrule\\[server].",
    "cluster.down": "End a cluster that was started on this machine.",
    "cluster.status": "Show the nodes of a cluster that was started on this machine.",
}


def add_commands(app: typer.Typer, found: tuple[EntryPoint, ...] | None = None) -> None:
    """Add the commands of other packages to `app` without importing those packages.

    Args:
        found: the entry points to add; by default those of the packages that are installed.
    """
    for entry_point in tuple(entry_points(group=GROUP)) if found is None else found:
        group, _, name = entry_point.name.rpartition(".")
        _group(app, group).command(
            name,
            help=SUMMARIES.get(entry_point.name, f"Added by {entry_point.module}."),
            add_help_option=False,  # the command has its own
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_forward_to(entry_point))


def _group(app: typer.Typer, name: str) -> typer.Typer:
    """The group of commands with a name, made if there is none yet; `app` itself for the empty name."""
    if not name:
        return app
    for registered in app.registered_groups:
        if registered.name == name and registered.typer_instance is not None:
            return registered.typer_instance
    group = typer.Typer(no_args_is_help=True, help=GROUPS.get(name))
    app.add_typer(group, name=name)
    return group


def _refuse_globals(ctx: typer.Context, words: str) -> None:
    """End the command with wrong usage where options were given before it, which it would never see."""
    given = ctx.find_object(Globals) or Globals()
    for option, is_given in (("--address", given.address is not None), ("--format", given.form is Format.JSON)):
        if is_given:
            message = f'"chainrule {words}" takes its options behind it, if it has this one.'
            raise typer.BadParameter(message, param_hint=option)


def _forward_to(entry_point: EntryPoint) -> Callable[[typer.Context], None]:
    def forward(ctx: typer.Context) -> None:
        words = entry_point.name.replace(".", " ")
        _refuse_globals(ctx, words)
        try:
            function = entry_point.load()
        except (ImportError, AttributeError) as error:
            typer.echo(
                f'error: "chainrule {words}" cannot be loaded from {entry_point.value}: {error}; '
                "is it installed? Try: pip install 'chainrule[server]'",
                err=True,
            )
            raise typer.Exit(ExitCode.USAGE) from error
        command = typer.Typer(add_completion=False, rich_markup_mode="rich")
        command.command()(function)
        command(args=ctx.args, prog_name=ctx.command_path)

    return forward
