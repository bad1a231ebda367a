"""`chainrule demo`: the whole service in one command."""

from typing import Annotated

import typer

from chainrule.client.cli.session import AddressOption, reported


def demo(
    ctx: typer.Context,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training examples.")] = 15,
    workers: Annotated[int, typer.Option(min=1, help="Workers; does not change the weights.")] = 2,
    shards: Annotated[int, typer.Option(min=1, help="Slices of each batch; fixes the weights.")] = 4,
    address: AddressOption = None,
) -> None:
    """Train a network on handwritten digits through the whole service, and test it.

    Starts a server of its own in a temporary directory and stops it in the end, unless --address names a running one.
    """
    with reported(ctx, None):
        from chainrule.client.demo.run import DemoConfig, run

        run(DemoConfig(epochs=epochs, workers=workers, shards=shards), address=address)
