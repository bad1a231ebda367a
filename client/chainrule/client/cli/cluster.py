"""`chainrule cluster`: the server and the nodes it trains on. The server's package adds what manages clusters."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from chainrule.client.cli.connecting import with_connection
from chainrule.client.cli.output import size, when
from chainrule.client.cli.session import AddressOption, FormatOption, Globals, open_session

if TYPE_CHECKING:
    from chainrule.client.resources import Node, ServerInfo


app = typer.Typer(invoke_without_command=True)


@dataclass(frozen=True)
class Overview:
    """All that the command shows."""

    address: str
    server: "ServerInfo"
    nodes: "tuple[Node, ...]"


@app.callback()
@with_connection
def cluster(ctx: typer.Context, address: AddressOption = None, form: FormatOption = None) -> None:
    """Show the server and the nodes it trains on; or start and end clusters on this machine."""
    if ctx.invoked_subcommand is not None:
        given = ctx.find_object(Globals) or Globals()
        ctx.obj = replace(given, address=address or given.address, form=form or given.form)
        return
    with open_session(ctx, address, form) as session:
        client = session.client
        overview = Overview(address=client.address, server=client.server_info(), nodes=client.nodes())
        server = overview.server
        owner = "started by this server" if server.owns_ray_cluster else "not its own"
        session.output.record(
            overview,
            [
                ("server", overview.address),
                ("version", server.version),
                ("started", when(server.start_time)),
                ("kernels", server.kernels),
                ("families", ", ".join(family.name for family in server.families)),
                ("ray", f"{server.ray_address} ({owner})"),
                *(
                    ("node", f"{node.id}  {node.address}  {node.cpus:g} CPUs  {size(node.memory_bytes)}")
                    for node in overview.nodes
                ),
            ],
        )
