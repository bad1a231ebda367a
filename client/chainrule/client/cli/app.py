"""The root of the command line: its groups, its global options, and the commands of other packages."""

import os
from importlib.metadata import version
from typing import Annotated

import typer

from chainrule.client.cli import access, cluster, datasets, demo, jobs, models, plugins, predict, weights
from chainrule.client.cli.connecting import (
    VARIABLES,
    TlsCaOption,
    TlsCertOption,
    TlsKeyOption,
    TokenFileOption,
    with_connection,
)
from chainrule.client.cli.session import AddressOption, FormatOption, Globals

app = typer.Typer(
    name="chainrule",
    help="Train neural networks as a service: the same bits whatever the workers.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("demo")(with_connection(demo.demo))
app.command("predict")(with_connection(predict.predict))
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.add_typer(datasets.app, name="datasets")
app.add_typer(weights.app, name="weights")
app.add_typer(cluster.app, name="cluster")
app.add_typer(access.tokens, name="tokens")
app.add_typer(access.audit, name="audit")
plugins.add_commands(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"chainrule {version('chainrule')}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    address: AddressOption = None,
    form: FormatOption = None,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    token_file: TokenFileOption = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Keep the options that were given before the command."""
    given = {"tls_ca": tls_ca, "tls_cert": tls_cert, "tls_key": tls_key, "token_file": token_file}
    said = {name: value or os.environ.get(VARIABLES[name]) or None for name, value in given.items()}
    ctx.obj = Globals(address, form, **said)
