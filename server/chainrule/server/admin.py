"""`chainrule admin`: what is done around a service, to its data folder while it does not run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from chainrule.engine import ChainruleError
from chainrule.server.backup import Manifest, restore_backup, write_backup
from chainrule.server.blobs import BlobStore
from chainrule.server.certificates import add_client, make_certificates
from chainrule.server.data_folder import BLOBS_FOLDER, STORE_FILE, open_blobs, open_store, own
from chainrule.server.errors import DamagedBlobError, NotFoundError, StartupError
from chainrule.server.store import Store


class Form(StrEnum):
    """The form of what is printed."""

    TABLE = "table"
    JSON = "json"


DataDirOption = Annotated[
    Path,
    typer.Option(help="Folder of the store and the blobs; no server may be using it.", envvar="CHAINRULE_DATA_DIR"),
]
StoreUrlOption = Annotated[
    str | None,
    typer.Option(help="SQLAlchemy URL of the store, if it is not in the folder.", envvar="CHAINRULE_STORE_URL"),
]
FormOption = Annotated[Form, typer.Option("--format", help="Lines for people or JSON for programs.")]
DEFAULT_DATA_DIR = Path(".chainrule")


def gc(
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    store_url: StoreUrlOption = None,
    grace_hours: Annotated[
        float, typer.Option(min=0, help="Keep what was uploaded, or asked for, in the last hours.")
    ] = 24.0,
    form: FormOption = Form.TABLE,
) -> None:
    """Remove the blobs that no model, dataset, job or checkpoint refers to. A server does so by itself every hour."""
    with _opened(data_dir, store_url) as (store, blobs):
        found = blobs.collect(store.unreferenced, grace_s=grace_hours * 3600)
    if form is Form.JSON:
        print(json.dumps({"blobs": found.blobs, "bytes": found.size_bytes}))
    else:
        print(
            f"removed {found.blobs} blobs, {found.size_bytes:,} bytes; what is younger than {grace_hours:g} h was kept"
        )


def check(
    data_dir: DataDirOption = DEFAULT_DATA_DIR, store_url: StoreUrlOption = None, form: FormOption = Form.TABLE
) -> None:
    """Check the store, then read every blob that it refers to and compare it with its digest. The exit code is 1 if
    something is inconsistent, damaged or missing. A damaged blob is moved aside: uploaded again, it is whole again."""
    wrong = []
    with _opened(data_dir, store_url) as (store, blobs):
        faults = store.faults()
        references = store.references()
        for digest, names in references.items():
            try:
                blobs.check(digest)
            except (DamagedBlobError, NotFoundError) as error:
                wrong.append({"digest": digest, "of": names, "error": error.message})
    if form is Form.JSON:
        print(json.dumps({"blobs": len(references), "wrong": wrong, "store": faults}))
    else:
        for fault in faults:
            print(f"store: {fault}")
        for one in wrong:
            print(f"{', '.join(one['of'])}: {one['error']}")
        inconsistent = f"; {len(faults)} things in the store are inconsistent" if faults else ""
        print(f"read {len(references)} blobs; {len(wrong)} are damaged or missing{inconsistent}")
    if wrong or faults:
        raise typer.Exit(1)


def backup(
    to: Annotated[Path, typer.Option("--to", help="File to write, a tar; it must not be there yet.")],
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    store_url: StoreUrlOption = None,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave out blobs that are damaged or missing, and name them.")
    ] = False,
    form: FormOption = Form.TABLE,
) -> None:
    """Write the store and every blob that it refers to into one file, with a list of their digests. Of a store in
    PostgreSQL only the blobs: pg_dump copies the rows, taken while no server runs, too."""
    with _opened(data_dir, store_url) as (store, blobs):
        made = write_backup(to, store, blobs, has_store=store_url is None, skip_damaged=skip_damaged)
    if form is Form.JSON:
        print(json.dumps({"file": str(to), **_facts(made)}))
        return
    rows = "the store" if made.store is not None else "no rows (pg_dump copies those)"
    print(f"wrote {rows} and {len(made.blobs)} blobs, {made.size_bytes:,} bytes, to {to}")
    for digest in made.left_out:
        print(f"left out: {digest}")


def restore(
    source: Annotated[Path, typer.Option("--from", help="File that chainrule admin backup has written.")],
    data_dir: Annotated[Path, typer.Option(help="Folder to make; it must not be there yet.")],
    form: FormOption = Form.TABLE,
) -> None:
    """Make a data folder of a backup. Every digest is checked, and nothing is there if one is wrong. Tokens are as they
    were then: one that was revoked since is good again."""
    with reported():
        restored = restore_backup(source, data_dir)
        good = [] if restored.store is None else _good_tokens(data_dir)
    if form is Form.JSON:
        print(json.dumps({"data_dir": str(data_dir), **_facts(restored), "good_tokens": good}))
        return
    print(f"restored {len(restored.blobs)} blobs, {restored.size_bytes:,} bytes in all, of {restored.time}")
    if restored.store is None:
        print("the rows are not in this backup: restore them with pg_restore or psql")
        print(f"chainrule serve --data-dir {data_dir} --store-url postgresql+psycopg://...")
        return
    if good:
        print(f"these tokens are good, also if they were revoked since: {', '.join(good)}")
        print(f"chainrule admin token-revoke TOKEN --data-dir {data_dir}")
    print(f"chainrule serve --data-dir {data_dir}")


def _good_tokens(folder: Path) -> list[str]:
    """Names of the tokens that let somebody in, in their order."""
    with opened(folder, None, needed=folder / STORE_FILE) as store:
        now = datetime.now(UTC)
        tokens = store.tokens_by_digest().values()
        return sorted(token.name for token in tokens if token.expire_time is None or token.expire_time > now)


def _facts(manifest: Manifest) -> dict[str, object]:
    return {
        "time": manifest.time,
        "store": manifest.store is not None,
        "blobs": len(manifest.blobs),
        "bytes": manifest.size_bytes,
        "left_out": list(manifest.left_out),
    }


def certs(
    out: Annotated[Path, typer.Option(help="Folder to write to; made if missing.")],
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address that clients reach the server by; several times. [default: localhost]"),
    ] = None,
    client: Annotated[
        str | None,
        typer.Option(help="Name of a further client: add a certificate of the authority that is in the folder."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How long the certificates are good.")] = 365,
) -> None:
    """Make an authority of your own, with certificates of a server and of a client: for trying TLS."""
    if client is not None and host:
        raise typer.BadParameter("is for a new authority, not for a further --client.", param_hint="--host")
    try:
        if client is not None:
            cert, key = add_client(out, client, days=days)
            print(f"chainrule --tls-ca {out}/ca.pem --tls-cert {cert} --tls-key {key} jobs ls")
            return
        make_certificates(out, hosts=host or ["localhost", "127.0.0.1", "::1"], days=days)
    except FileNotFoundError as error:
        print(f"error: {error}; make the authority first, without --client", file=sys.stderr)
        raise typer.Exit(1) from error
    except OSError as error:
        print(f"error: {error}; choose another {'--client' if client else '--out'}", file=sys.stderr)
        raise typer.Exit(1) from error
    except (ValueError, OverflowError) as error:
        given = "--client" if client is not None else "--host"
        print(f"error: no certificate can have this {given} or --days: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(
        f"chainrule serve --tls-cert {out}/server.pem --tls-key {out}/server.key --tls-client-ca {out}/ca.pem\n"
        f"chainrule --tls-ca {out}/ca.pem --tls-cert {out}/client.pem --tls-key {out}/client.key jobs ls"
    )


@contextmanager
def _opened(folder: Path, store_url: str | None) -> Iterator[tuple[Store, BlobStore]]:
    """The store and the blobs of a data folder that there is; what goes wrong is reported."""
    needed = folder / (STORE_FILE if store_url is None else BLOBS_FOLDER)
    with reported(), opened(folder, store_url, needed=needed) as store:
        yield store, open_blobs(folder, store)


@contextmanager
def opened(folder: Path, store_url: str | None, *, needed: Path | None) -> Iterator[Store]:
    """The store of a data folder, which is this process's meanwhile.

    Args:
        needed: what has to be there; None: the folder is made if it is missing.

    Raises StartupError.
    """
    if needed is not None and not needed.exists():
        raise StartupError(f"--data-dir {folder} is no data folder of a server: {needed} is missing")
    with own(folder):
        store = open_store(folder, store_url)
        try:
            yield store
        finally:
            store.close()


@contextmanager
def reported() -> Iterator[None]:
    """End the command with a line about what it could not do."""
    try:
        yield
    except (ChainruleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
