"""`chainrule demo`: the whole service in one command."""

from typing import Annotated

import typer

from chainrule.client.cli.session import Globals, refuse_globals, reported, tls_of, token_of


def demo(
    ctx: typer.Context,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training examples.")] = 15,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Workers, at most --shards; does not change the weights. \\[default: 2, with one shard 1]",
            show_default=False,
        ),
    ] = None,
    shards: Annotated[int, typer.Option(min=1, help="Slices of each batch; fixes the weights.")] = 4,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            help="A running server. \\[default: one started for the demo; $CHAINRULE_ADDRESS is not used]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train a network on handwritten digits through the whole service, and test it.

    Starts a server of its own in a temporary directory and stops it in the end, unless --address names a running one.
    $CHAINRULE_ADDRESS is not used, and its own server takes no settings from the environment.
    """
    refuse_globals(ctx, json=True)
    given = ctx.find_object(Globals) or Globals()
    with reported(ctx, None):
        from chainrule.client.demo.run import DemoConfig, run

        config = DemoConfig(epochs=epochs, workers=min(2, shards) if workers is None else workers, shards=shards)
        address = address or given.address
        if address is None:
            run(config)
        else:
            run(config, address=address, tls=tls_of(given), token=token_of(given))
