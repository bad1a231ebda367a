"""`chainrule tokens` and `chainrule audit`: who may call a server, and what was asked of it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from chainrule.client.cli.connecting import Commands
from chainrule.client.cli.output import when
from chainrule.client.cli.session import AddressOption, FormatOption, Session, open_session

MAX_DAYS = 36_500


def _days(days: float | None) -> float | None:
    if days is not None and not 0 < days <= MAX_DAYS:
        raise typer.BadParameter(f"{days:g} is not above 0, and at most {MAX_DAYS:,}.")
    return days


tokens = Commands(help="Make, list and revoke the tokens that let callers in.", no_args_is_help=True)
audit = Commands(help="Show what was asked of a server.", no_args_is_help=True)

TokenArgument = Annotated[
    str, typer.Argument(metavar="TOKEN", help="Its name: lower-case letters, digits, hyphens.", show_default=False)
]


@tokens.command("create")
def create(
    ctx: typer.Context,
    token: TokenArgument,
    scope: Annotated[
        list[str],
        typer.Option(metavar="SCOPE", help="What it allows: read, submit or admin; each includes those before."),
    ],
    tenant: Annotated[str, typer.Option(help="Whose models, datasets, jobs and blobs it opens.")] = "default",
    expires_in_days: Annotated[
        float | None,
        typer.Option(
            help="For how many days it is good. \\[default: for ever]",
            callback=_days,
            metavar="DAYS",
            show_default=False,
        ),
    ] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="New file for the secret, for you alone to read. \\[default: it is printed]",
            show_default=False,
        ),
    ] = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Make a token. Its secret is shown, or written to a file, this once; the server does not have it."""
    expire_time = None if expires_in_days is None else datetime.now(UTC) + timedelta(days=expires_in_days)
    with open_session(ctx, address, form) as session:
        from chainrule.client.credentials import draw_secret

        secret = draw_secret()
        with nullcontext() if out is None else _kept(session, out, secret):
            made = session.client.access.create(
                token, scopes=scope, tenant=tenant, expire_time=expire_time, description=description, secret=secret
            )
        session.output.record(
            {"token": made.name, "tenant": made.tenant, "scopes": made.scopes, "expire_time": made.expire_time}
            | ({"secret": secret} if out is None else {"file": str(out)}),
            [
                ("token", made.name),
                ("tenant", made.tenant),
                ("scopes", ", ".join(made.scopes)),
                ("expires", when(made.expire_time)),
                ("secret", secret if out is None else f"in {out}"),
            ],
        )


@tokens.command("ls")
def list_tokens(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="The most to list.")] = 50,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """List tokens, newest first."""
    with open_session(ctx, address, form) as session:
        session.output.rows(
            session.client.access.list(limit=limit),
            {
                "TOKEN": lambda t: t.name,
                "TENANT": lambda t: t.tenant,
                "SCOPES": lambda t: ", ".join(t.scopes),
                "CREATED": lambda t: when(t.create_time),
                "EXPIRES": lambda t: when(t.expire_time),
                "REVOKED": lambda t: when(t.revoke_time),
                "DESCRIPTION": lambda t: t.description,
            },
        )


@tokens.command("revoke")
def revoke(ctx: typer.Context, token: TokenArgument, address: AddressOption = None, form: FormatOption = None) -> None:
    """Make a token good for nothing, at once."""
    with open_session(ctx, address, form) as session:
        revoked = session.client.access.revoke(token)
        session.output.record(revoked, [("token", revoked.name), ("revoked", when(revoked.revoke_time))])


@audit.command("ls")
def list_entries(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="The most to list.")] = 50,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """List what changed something, and what was refused, newest first."""
    with open_session(ctx, address, form) as session:
        session.output.rows(
            session.client.access.audit(limit=limit),
            {
                "TIME": lambda e: when(e.time),
                "TOKEN": lambda e: e.token or "-",
                "TENANT": lambda e: e.tenant or "-",
                "PEER": lambda e: e.peer,
                "METHOD": lambda e: e.method.removeprefix("chainrule.v1."),
                "RESOURCE": lambda e: e.resource or "-",
                "RESULT": lambda e: e.code,
            },
        )


@contextmanager
def _kept(session: Session, file: Path, secret: str) -> Iterator[None]:
    """Write the secret to a new file, before there is a token that it could be lost of. Where the block ends without a
    token the file is removed, and where nobody knows whether there is one, it stays."""
    from chainrule.client.errors import Cancelled, DeadlineExceeded, Internal, InvalidInputError, Unavailable, Unknown
    from chainrule.engine.io.files import write_private

    try:
        write_private(file, secret.encode())
    except OSError as error:
        raise InvalidInputError(
            f"cannot write {file}: {(error.strerror or str(error)).lower()}; choose another --out"
        ) from error
    try:
        yield
    except (Cancelled, DeadlineExceeded, Internal, KeyboardInterrupt, Unavailable, Unknown):
        session.output.note(
            f"the token may have been made: {session.command('tokens ls')} shows it. Its secret is in {file}; if "
            "there is no token, remove that file"
        )
        raise
    except BaseException:
        file.unlink(missing_ok=True)
        raise
