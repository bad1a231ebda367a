"""What every command that calls the server shares: its options, its client, and how its errors are told."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from chainrule.client.cli.exits import ExitCode
from chainrule.client.cli.output import Format, Output

if TYPE_CHECKING:
    from chainrule.client.client import Client
    from chainrule.client.encryption import Tls

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="The server. \\[default: $CHAINRULE_ADDRESS, else localhost:50051]",
        show_default=False,
    ),
]
FormatOption = Annotated[
    Format | None,
    typer.Option("--format", help="Tables for people or JSON for programs. \\[default: table]", show_default=False),
]


@dataclass(frozen=True)
class Globals:
    """The options given before the command; those given after it come first."""

    address: str | None = None
    form: Format | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    token_file: str | None = None


@dataclass(frozen=True)
class Session:
    """A command's connection and its output."""

    client: "Client"
    output: Output
    address_option: str | None

    def command(self, words: str) -> str:
        """A command line for the same server, to be shown to people."""
        return f"chainrule {words}" + (f" --address {self.address_option}" if self.address_option else "")


@contextmanager
def open_session(ctx: typer.Context, address: str | None, form: Format | None) -> Iterator[Session]:
    """A client of the server that the options name; errors inside the block end the command with one line."""
    given = ctx.find_object(Globals) or Globals()
    address = address or given.address
    with reported(ctx, form) as output:
        from chainrule.client.client import Client

        with Client.connect(address, tls=tls_of(given), token=token_of(given)) as client:
            yield Session(client, output, address)


def tls_of(given: Globals) -> "Tls | None":
    """What the options say of encryption; None: nothing."""
    from chainrule.client.encryption import Tls

    if not (given.tls_ca or given.tls_cert or given.tls_key):
        return None
    return Tls(ca=given.tls_ca, cert=given.tls_cert, key=given.tls_key)


def token_of(given: Globals) -> str | None:
    """The token in the file that the options name; None: they name none.

    Raises:
        InvalidInputError: the file cannot be read.
    """
    from chainrule.client.credentials import read_token

    return None if given.token_file is None else read_token(given.token_file)


def refuse_globals(ctx: typer.Context, *, address: bool = False, json: bool = False) -> None:
    """End a command with wrong usage where options before it have no meaning for it, instead of ignoring them."""
    given = ctx.find_object(Globals) or Globals()
    if address and given.address is not None:
        raise typer.BadParameter(f'"chainrule {ctx.info_name}" calls no server.', param_hint="--address")
    if json and given.form is Format.JSON:
        raise typer.BadParameter(
            f'"chainrule {ctx.info_name}" prints for people; it has no JSON form.', param_hint="--format"
        )


@contextmanager
def reported(ctx: typer.Context, form: Format | None) -> Iterator[Output]:
    """The output of a command; errors of the project inside the block are printed and become its exit code.

    So does Ctrl-C, which not every version of typer ends with 130.
    """
    from chainrule.engine import ChainruleError

    given = ctx.find_object(Globals) or Globals()
    output = Output(form or given.form or Format.TABLE)
    try:
        with _warnings_shown():
            yield output
    except ChainruleError as error:
        _end(output, error)
    except KeyboardInterrupt as error:
        raise typer.Exit(ExitCode.INTERRUPTED) from error


class _Stderr(logging.Handler):
    """Prints warnings on stderr: as it is at that moment, since a progress display replaces it to stay in one piece."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Show what the client warns of, such as a server that does not answer for a while."""
    logger = logging.getLogger("chainrule.client")
    handler = _Stderr(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _end(output: Output, error: Exception) -> NoReturn:
    from chainrule.client.errors import InvalidInputError, JobCancelledError, JobFailedError

    output.error(error)
    if isinstance(error, JobFailedError):
        raise typer.Exit(ExitCode.FAILED)
    if isinstance(error, JobCancelledError):
        raise typer.Exit(ExitCode.CANCELLED)
    raise typer.Exit(ExitCode.USAGE if isinstance(error, InvalidInputError) else ExitCode.SERVICE)
