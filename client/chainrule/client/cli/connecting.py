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

_OPTIONS: Mapping[str, Any] = {
    "tls_ca": typer.Option(
        metavar="FILE",
        help="Encrypt, and trust servers of these authorities (PEM).",
        rich_help_panel=PANEL,
        show_default=False,
    ),
    "tls_cert": typer.Option(
        metavar="FILE",
        help="Certificate, for a server that asks for one (PEM).",
        rich_help_panel=PANEL,
        show_default=False,
    ),
    "tls_key": typer.Option(metavar="FILE", help="Its private key (PEM).", rich_help_panel=PANEL, show_default=False),
    "token_file": typer.Option(
        metavar="FILE", help="File with the token to show.", rich_help_panel=PANEL, show_default=False
    ),
}


class Commands(typer.Typer):
    """A group whose commands that have --address take what encrypts the connection, and the token, as well."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Command], Command]:
        """As typer's, for a function that gets the context by the name `ctx`."""
        register = super().command(name, **settings)

        def decorate(function: Command) -> Command:
            register(_connected(function))
            return function

        return decorate


def _connected(function: Callable[..., Any]) -> Callable[..., Any]:
    told = inspect.signature(function)
    if "address" not in told.parameters:
        return function

    @functools.wraps(function)
    def with_options(ctx: typer.Context, **given: Any) -> Any:
        said = {name: value for name in _OPTIONS if (value := given.pop(name)) is not None}
        if said:
            ctx.obj = replace(ctx.find_object(Globals) or Globals(), **said)
        return function(ctx=ctx, **given)

    kinds = {name: Annotated[str | None, option] for name, option in _OPTIONS.items()}
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in kinds.items()
    ]
    with_options.__signature__ = told.replace(parameters=[*told.parameters.values(), *more])  # type: ignore[attr-defined]
    with_options.__annotations__ = {**function.__annotations__, **kinds}
    return with_options
