"""`chainrule admin`: what is done around a service, to its data folder while it does not run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from chainrule.engine import ChainruleError
from chainrule.server.blobs import BlobStore
from chainrule.server.certificates import make_certificates
from chainrule.server.data_folder import BLOBS_FOLDER, STORE_FILE, open_blobs, open_store, own
from chainrule.server.errors import DamagedBlobError, NotFoundError, StartupError
from chainrule.server.store import Store

DataDirOption = Annotated[
    Path,
    typer.Option(help="Folder of the store and the blobs; no server may be using it.", envvar="CHAINRULE_DATA_DIR"),
]
StoreUrlOption = Annotated[
    str | None,
    typer.Option(help="SQLAlchemy URL of the store, if it is not in the folder.", envvar="CHAINRULE_STORE_URL"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_DATA_DIR = Path(".chainrule")


def gc(
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
    store_url: StoreUrlOption = None,
    grace_hours: Annotated[
        float, typer.Option(min=0, help="Keep what was uploaded, or asked for, in the last hours.")
    ] = 24.0,
    as_json: JsonOption = False,
) -> None:
    """Remove the blobs that no model, dataset, job or checkpoint refers to. A server does so by itself every hour."""
    with _opened(data_dir, store_url) as (store, blobs):
        found = blobs.collect(store.unreferenced, grace_s=grace_hours * 3600)
    if as_json:
        print(json.dumps({"blobs": found.blobs, "bytes": found.size_bytes}))
    else:
        print(
            f"removed {found.blobs} blobs, {found.size_bytes:,} bytes; what is younger than {grace_hours:g} h was kept"
        )


def check(
    data_dir: DataDirOption = DEFAULT_DATA_DIR, store_url: StoreUrlOption = None, as_json: JsonOption = False
) -> None:
    """Read every blob that something refers to and compare it with its digest. The exit code is 1 if one is damaged or
    missing. A damaged blob is moved aside: uploaded again, it is whole again."""
    wrong = []
    with _opened(data_dir, store_url) as (store, blobs):
        references = store.references()
        for digest, names in references.items():
            try:
                for _ in blobs.chunks(digest, chunk_bytes=1024**2):
                    pass
            except (DamagedBlobError, NotFoundError) as error:
                wrong.append({"digest": digest, "of": names, "error": error.message})
    if as_json:
        print(json.dumps({"blobs": len(references), "wrong": wrong}))
    else:
        for one in wrong:
            print(f"{', '.join(one['of'])}: {one['error']}")
        print(f"read {len(references)} blobs; {len(wrong)} are damaged or missing")
    if wrong:
        raise typer.Exit(1)


def certs(
    out: Annotated[Path, typer.Option(help="Folder to write to; made if missing.")],
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address that clients reach the server by; several times. [default: localhost]"),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How long the certificates are good.")] = 365,
) -> None:
    """Make an authority of your own, with certificates of a server and of a client: for trying TLS."""
    try:
        make_certificates(out, hosts=host or ["localhost", "127.0.0.1", "::1"], days=days)
    except OSError as error:
        print(f"error: {error}; choose another --out", file=sys.stderr)
        raise typer.Exit(1) from error
    except (ValueError, OverflowError) as error:
        print(f"error: no certificate can have this --host or --days: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(
        f"chainrule serve --tls-cert {out}/server.pem --tls-key {out}/server.key --tls-client-ca {out}/ca.pem\n"
        f"chainrule --tls-ca {out}/ca.pem --tls-cert {out}/client.pem --tls-key {out}/client.key jobs ls"
    )


@contextmanager
def _opened(folder: Path, store_url: str | None) -> Iterator[tuple[Store, BlobStore]]:
    try:
        if not (folder / (STORE_FILE if store_url is None else BLOBS_FOLDER)).exists():
            raise StartupError(f"--data-dir {folder} is no data folder of a server: its store or its blobs are missing")
        with own(folder):
            store = open_store(folder, store_url)
            try:
                yield store, open_blobs(folder, store)
            finally:
                store.close()
    except ChainruleError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
