"""`chainrule serve`: the service in the foreground."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chainrule.engine import ChainruleError
from chainrule.server.config import DEFAULT_PORT, ServerConfig, Tls
from chainrule.server.errors import StartupError

if TYPE_CHECKING:  # Ray and gRPC are imported when the service starts, not by `chainrule --help`
    from chainrule.server.cluster import RayCluster


def serve(
    data_dir: Annotated[
        Path, typer.Option(help="Folder of the store and the blobs; made if missing.", envvar="CHAINRULE_DATA_DIR")
    ] = Path(".chainrule"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than loopback with TLS and --tokens or --tls-client-ca.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = DEFAULT_PORT,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Ray cluster to join, as HOST:PORT (see chainrule cluster up). Without it one starts here."),
    ] = None,
    num_cpus: Annotated[
        int | None, typer.Option(min=1, help="Worker places of a cluster started here. [default: the machine's CPUs]")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Encrypt: the server's certificate (PEM); with --tls-key.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Let in only clients with a certificate of these authorities (PEM).")
    ] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Let in only calls with a token (see chainrule admin token-create).")
    ] = False,
    insecure_public: Annotated[
        bool, typer.Option("--insecure-public", help="Listen on any --host, unprotected: for networks you trust.")
    ] = False,
    rate_limit: Annotated[
        float | None,
        typer.Option(min=0.001, help="Calls a second of one caller. [default: 200 with --tokens, else any number]"),
    ] = None,
    stream_limit: Annotated[
        int | None,
        typer.Option(min=1, help="Open streams of one caller. [default: 100 with --tokens, else any number]"),
    ] = None,
    tenant_storage_limit: Annotated[
        float | None,
        typer.Option(min=0, help="GB (10⁹ bytes) up to which uploads of one tenant are taken; with --tokens."),
    ] = None,
    store_url: Annotated[
        str | None,
        typer.Option(
            help="SQLAlchemy URL of the store, as postgresql+psycopg://USER@HOST/DATABASE. "
            "[default: a SQLite file in the data folder]",
            envvar="CHAINRULE_STORE_URL",
            show_default=False,
            show_envvar=True,
        ),
    ] = None,
    storage_limit: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="GB (10⁹ bytes) up to which uploads are taken; what jobs store counts. [default: what the disk holds]",
        ),
    ] = None,
    address_file: Annotated[
        Path | None, typer.Option(help="File to write HOST:PORT into once the service is ready.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Serve until SIGINT (Ctrl-C) or SIGTERM. Jobs that run then go on at the next start."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("a certificate needs its key, and a key its certificate.", param_hint="--tls-cert")
    if tls_client_ca is not None and tls_cert is None:
        raise typer.BadParameter("is of no use without --tls-cert and --tls-key.", param_hint="--tls-client-ca")
    if tenant_storage_limit is not None and not tokens:
        raise typer.BadParameter("is of no use without --tokens.", param_hint="--tenant-storage-limit")
    tls = Tls(tls_cert, tls_key, tls_client_ca) if tls_cert is not None and tls_key is not None else None
    config = ServerConfig(
        data_dir=data_dir,
        host=host,
        port=port,
        ray_address=ray_address,
        num_cpus=num_cpus,
        tls=tls,
        store_url=store_url,
        storage_limit_bytes=_bytes(storage_limit),
        require_tokens=tokens,
        insecure_public=insecure_public,
        rate_limit_per_s=rate_limit,
        stream_limit=stream_limit,
        tenant_storage_limit_bytes=_bytes(tenant_storage_limit),
    )
    try:
        run(config, address_file)
    except ImportError as error:
        print(
            f"chainrule serve needs the server's packages ({error}): pip install 'chainrule[server]'", file=sys.stderr
        )
        raise typer.Exit(1) from error
    except ChainruleError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


def run(config: ServerConfig, address_file: Path | None = None) -> None:
    """Serve until told to stop by a signal. Raises StartupError."""
    from chainrule.server.cluster import RayCluster
    from chainrule.server.service import check_startable

    if address_file is not None and not address_file.parent.is_dir():
        raise StartupError(f"--address-file {address_file}: there is no folder {address_file.parent}; make it first")
    check_startable(config)
    asyncio.run(_serve(config, RayCluster(config.ray_address, num_cpus=config.num_cpus), address_file))


async def _serve(config: ServerConfig, cluster: RayCluster, address_file: Path | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        if await _started(cluster, stop):
            await _serve_on(cluster, config, address_file, stop)
    finally:
        await cluster.stop()


async def _serve_on(cluster: RayCluster, config: ServerConfig, address_file: Path | None, stop: asyncio.Event) -> None:
    from chainrule.server.service import Service

    async with Service(config, cluster, cluster) as service:
        if address_file is not None:
            _write_whole(address_file, f"{service.address}\n")
        print(f"chainrule is serving on {service.address} (Ray at {cluster.address}); stop with Ctrl-C", flush=True)
        await stop.wait()
        print("stopping ...", flush=True)


async def _started(cluster: RayCluster, stop: asyncio.Event) -> bool:
    """Start a cluster, unless told to stop meanwhile. Raises StartupError."""
    starting = asyncio.create_task(cluster.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            print("stopping ...", flush=True)
            return False
        starting.result()
        return True
    finally:
        starting.cancel()
        stopping.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else round(gigabytes * 1e9)


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever waits for it never sees half of it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)
