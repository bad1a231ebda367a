"""Groups of commands that call a server: their commands take the options of the connection behind their names, too."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import typer

from chainrule.client.cli.session import Globals

Command = TypeVar("Command", bound=Callable[..., Any])
PANEL = "Connection"

TlsCaOption = Annotated[
    str | None,
    typer.Option(
        "--tls-ca",
        metavar="FILE",
        help="Encrypt, and trust servers of these authorities (PEM). \\[default: $CHAINRULE_TLS_CA]",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
TlsCertOption = Annotated[
    str | None,
    typer.Option(
        "--tls-cert",
        metavar="FILE",
        help="Certificate, for a server that asks for one (PEM). \\[default: $CHAINRULE_TLS_CERT]",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
TlsKeyOption = Annotated[
    str | None,
    typer.Option(
        "--tls-key",
        metavar="FILE",
        help="Its private key (PEM). \\[default: $CHAINRULE_TLS_KEY]",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
TokenFileOption = Annotated[
    str | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="File with the token to show, or set CHAINRULE_TOKEN. There is no option for the token itself: other "
        "users see command lines (ps). \\[default: $CHAINRULE_TOKEN_FILE]",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
_OPTIONS: Mapping[str, Any] = {
    "tls_ca": TlsCaOption,
    "tls_cert": TlsCertOption,
    "tls_key": TlsKeyOption,
    "token_file": TokenFileOption,
}
VARIABLES: Mapping[str, str] = {name: f"CHAINRULE_{name.upper()}" for name in _OPTIONS}
"""Option, by the name of its parameter → environment variable that holds where it is not given at all."""


class Commands(typer.Typer):
    """A group whose commands that have --address take what encrypts the connection, and the token, as well."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Command], Command]:
        """As typer's, for a function that gets the context by the name `ctx`."""
        register = super().command(name, **settings)

        def decorate(function: Command) -> Command:
            register(with_connection(function))
            return function

        return decorate


def with_connection(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command that takes, besides --address, what encrypts the connection, and the token."""
    told = inspect.signature(function)
    if "address" not in told.parameters:
        return function

    @functools.wraps(function)
    def with_options(ctx: typer.Context, **given: Any) -> Any:
        said = {name: value for name in _OPTIONS if (value := given.pop(name)) is not None}
        if said:
            ctx.obj = replace(ctx.find_object(Globals) or Globals(), **said)
        return function(ctx=ctx, **given)

    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _OPTIONS.items()
    ]
    with_options.__signature__ = told.replace(parameters=[*told.parameters.values(), *more])  # type: ignore[attr-defined]
    with_options.__annotations__ = {**function.__annotations__, **_OPTIONS}
    return with_options
