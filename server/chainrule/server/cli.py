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
    """Serve until SIGINT (Ctrl-C) or SIGTERM; a second one does not wait for calls. Jobs that run then go on at the next
    start. Each option has a variable, CHAINRULE_SERVE_ and its name, and a key in the file of --config."""
    try:
        loaded = Loaded(ServerConfig, given, file=config_file)
        if show_config:
            print(loaded.template(), end="")
            return
        config = loaded.config
        logs.set_up(config.log_format, verbose=config.verbose)
        run(config)
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


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever waits for it never sees half of it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)
