"""`chainrule serve`: the service in the foreground."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chainrule.engine import ChainruleError
from chainrule.server import logs
from chainrule.server.config import ServerConfig
from chainrule.server.errors import StartupError
from chainrule.server.settings import Loaded, options_of

if TYPE_CHECKING:  # Ray and gRPC are imported when the service starts, not by `chainrule --help`
    from chainrule.server.cluster import RayCluster


logger = logging.getLogger(__name__)


@options_of(ServerConfig)
def serve(
    given: Mapping[str, object],
    config_file: Annotated[
        Path | None, typer.Option("--config", help="TOML file with settings; an option, or a variable, comes first.")
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print all settings as they are, as a file for --config, and end.")
    ] = False,
) -> None:
    """Serve until SIGINT (Ctrl-C) or SIGTERM; a second one does not wait for calls. Jobs that run then go on at the
    next start. Each option has a variable, CHAINRULE_SERVE_ and its name, and a key in the file of --config."""
    try:
        loaded = Loaded(ServerConfig, given, file=config_file)
        if show_config:
            print(loaded.template(), end="")
            return
        config = loaded.config
        _refuse_halves(config)
        logs.set_up(config.log_format, verbose=config.verbose)
        for name in loaded.unknown_variables:
            logger.warning("the variable %s is no setting; chainrule serve --help lists them", name)
        run(config)
    except ImportError as error:
        print(
            f"chainrule serve needs the server's packages ({error}): pip install 'chainrule[server]'", file=sys.stderr
        )
        raise typer.Exit(1) from error
    except ChainruleError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


def _refuse_halves(config: ServerConfig) -> None:
    if (config.tls_cert is None) != (config.tls_key is None):
        raise typer.BadParameter("a certificate needs its key, and a key its certificate.", param_hint="--tls-cert")
    if config.tls_client_ca is not None and config.tls_cert is None:
        raise typer.BadParameter("is of no use without --tls-cert and --tls-key.", param_hint="--tls-client-ca")
    if config.tenant_storage_limit_gb is not None and not config.require_tokens:
        raise typer.BadParameter("is of no use without --tokens.", param_hint="--tenant-storage-limit")


def run(config: ServerConfig) -> None:
    """Serve until told to stop by a signal. Raises StartupError."""
    from chainrule.server.cluster import RayCluster  # isort: split  — before gRPC: it sets the environment of both
    from chainrule.server.data_folder import removed_on_failure
    from chainrule.server.service import check_startable

    path = config.address_file
    if path is not None and not path.parent.is_dir():
        raise StartupError(f"--address-file {path}: there is no folder {path.parent}; make it first")
    with removed_on_failure(config.data_dir):
        check_startable(config)
        cluster = RayCluster(config.ray_address, num_cpus=config.num_cpus, warm_workers=config.warm_workers)
        asyncio.run(_serve(config, cluster))


async def _serve(config: ServerConfig, cluster: RayCluster) -> None:
    signals = _Signals()
    where = f"joining the Ray cluster at {config.ray_address}" if config.ray_address else "starting a Ray cluster"
    print(f"{where} ...", flush=True)
    try:
        if await _started(cluster, signals.stop):
            await _serve_on(cluster, config, signals)
    finally:
        await cluster.stop()


class _Signals:
    """What SIGINT and SIGTERM say: the first to stop, the second to hurry; the third has its ordinary effect."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry: Callable[[], None] = lambda: None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._told)

    def _told(self) -> None:
        if not self.stop.is_set():
            self.stop.set()
            return
        self.hurry()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)


async def _serve_on(cluster: RayCluster, config: ServerConfig, signals: _Signals) -> None:
    from chainrule.server.service import Service

    async with Service(config, cluster, cluster) as service:
        signals.hurry = service.hurry
        if config.address_file is not None:
            _write_whole(config.address_file, f"{service.address}\n")
        metrics = f", metrics on http://{service.metrics_address}/metrics" if service.metrics_address else ""
        print(
            f"chainrule is serving on {service.address} (Ray at {cluster.address}){metrics}; stop with Ctrl-C",
            flush=True,
        )
        await signals.stop.wait()
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


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever waits for it never sees half of it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)
