"""`chainrule admin token-create|token-ls|token-revoke`: tokens, while the server does not run; the first one, say."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from chainrule.engine.io.files import write_private
from chainrule.server.access import NewToken, TokenCatalog, digest_of, draw_secret
from chainrule.server.admin import (
    DEFAULT_DATA_DIR,
    DataDirOption,
    Form,
    FormOption,
    StoreUrlOption,
    opened,
    reported,
)
from chainrule.server.callers import SCOPES, Token
from chainrule.server.data_folder import STORE_FILE
from chainrule.server.store import PageRequest
from chainrule.server.store.schema import DEFAULT_TENANT

_PAGE = 1000
MAX_DAYS = 36_500
"""For how long a token can be good at most, if not for ever."""
IdArgument = Annotated[str, typer.Argument(metavar="TOKEN", help="Its name: lower-case letters, digits, hyphens.")]


def token_create(
    token_id: IdArgument,
    scope: Annotated[
        list[str] | None,
        typer.Option(help=f"What it allows: {', '.join(SCOPES)}; each includes those before. [default: admin]"),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Whose models, datasets, jobs and blobs it opens.")] = DEFAULT_TENANT,
    expires_in_days: Annotated[
        float | None, typer.Option(min=0, max=MAX_DAYS, help="For how many days it is good. [default: for ever]")
    ] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="New file to write the secret into, for you alone to read. [default: print it]")
    ] = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    store_url: StoreUrlOption = None,
    form: FormOption = Form.TABLE,
) -> None:
    """Make a token, in the data folder of a server that does not run. Its secret is shown this once."""
    secret = draw_secret()
    lifetime = None if expires_in_days is None else timedelta(days=expires_in_days)
    with reported(), opened(data_dir, store_url, needed=None) as store:  # the first token may be there before the rest
        tokens = TokenCatalog(store)
        new = NewToken(
            token_id=token_id,
            tenant=tenant,
            scopes=tuple(scope or ["admin"]),
            secret_digest=digest_of(secret),
            description=description,
            expire_time=None if lifetime is None else datetime.now(UTC) + lifetime,
        )
        tokens.create(new, tenant=DEFAULT_TENANT, validate_only=True)
        if out is not None:
            write_private(out, secret.encode())
        made = tokens.create(new, tenant=DEFAULT_TENANT)
    shown = {} if out is not None else {"secret": secret}
    if form is Form.JSON:
        print(json.dumps({**_facts(made), **shown}))
    elif out is None:
        print(f"{made.name} of tenant {made.tenant}; its secret, which is shown this once:", file=sys.stderr)
        print(secret)
    else:
        print(f"{made.name} of tenant {made.tenant}; its secret is in {out}")


def token_ls(
    data_dir: DataDirOption = DEFAULT_DATA_DIR, store_url: StoreUrlOption = None, form: FormOption = Form.TABLE
) -> None:
    """List the tokens in the data folder of a server that does not run, newest first."""
    found: list[Token] = []
    with reported(), opened(data_dir, store_url, needed=_store(data_dir, store_url)) as store:
        tokens = TokenCatalog(store)
        page, after = tokens.page(PageRequest(_PAGE))
        found += page
        while after:
            page, after = tokens.page(PageRequest(_PAGE, after))
            found += page
    if form is Form.JSON:
        print(json.dumps([_facts(token) for token in found]))
        return
    for token in found:
        ends = f"revoked {token.revoke_time}" if token.revoke_time else f"expires {token.expire_time or 'never'}"
        print(f"{token.name}  tenant {token.tenant}  {','.join(token.scopes)}  {ends}  {token.description}")


def token_revoke(
    token_id: IdArgument, data_dir: DataDirOption = DEFAULT_DATA_DIR, store_url: StoreUrlOption = None
) -> None:
    """Make a token good for nothing, in the data folder of a server that does not run."""
    with reported(), opened(data_dir, store_url, needed=_store(data_dir, store_url)) as store:
        revoked = TokenCatalog(store).revoke(f"tokens/{token_id.removeprefix('tokens/')}")
    print(f"{revoked.name} was revoked at {revoked.revoke_time}")


def _store(folder: Path, store_url: str | None) -> Path:
    """What is there of a store that has tokens; of one that is elsewhere the folder, also before its first start."""
    return folder / STORE_FILE if store_url is None else folder


def _facts(token: Token) -> dict[str, object]:
    times = {"create_time": token.create_time, "expire_time": token.expire_time, "revoke_time": token.revoke_time}
    return {
        "name": token.name,
        "tenant": token.tenant,
        "scopes": list(token.scopes),
        "description": token.description,
        **{name: None if time is None else time.isoformat() for name, time in times.items()},
    }
