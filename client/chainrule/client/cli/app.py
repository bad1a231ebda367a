"""The root of the command line: its groups, its global options, and the commands of other packages."""

from importlib.metadata import version
from typing import Annotated

import typer

from chainrule.client.cli import access, cluster, datasets, demo, jobs, models, plugins, weights
from chainrule.client.cli.session import AddressOption, FormatOption, Globals

app = typer.Typer(
    name="chainrule",
    help="Train neural networks as a service: the same bits whatever the workers.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
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
    tls_ca: Annotated[
        str | None,
        typer.Option(envvar="CHAINRULE_TLS_CA", help="Encrypt, and trust servers of these authorities (PEM)."),
    ] = None,
    tls_cert: Annotated[
        str | None,
        typer.Option(envvar="CHAINRULE_TLS_CERT", help="Certificate, for a server that asks for one (PEM)."),
    ] = None,
    tls_key: Annotated[str | None, typer.Option(envvar="CHAINRULE_TLS_KEY", help="Its private key (PEM).")] = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            envvar="CHAINRULE_TOKEN_FILE",
            metavar="FILE",
            help="File with the token to show, or set CHAINRULE_TOKEN. There is no option for the token itself: other "
            "users see command lines (ps).",
        ),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Keep the options that were given before the command."""
    ctx.obj = Globals(address, form, tls_ca, tls_cert, tls_key, token_file)
