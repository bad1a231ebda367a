"""`chainrule jobs verify`: whether two jobs computed the same bits."""

from typing import Annotated

import typer

from chainrule.client.cli.exits import ExitCode
from chainrule.client.cli.session import AddressOption, FormatOption, open_session


def verify(
    ctx: typer.Context,
    first: Annotated[str, typer.Argument(metavar="JOB", help="A job, for example jobs/bea3phtux7dd.")],
    second: Annotated[str, typer.Argument(metavar="OTHER", help="The job to compare it with.")],
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Compare two jobs bit by bit: the losses of their steps, the states in their receipts, their final weights.

    Tells the first step at which they part, or up to which step they agree; and what fixes the weights and is not the
    same in both, such as another configuration.
    """
    with open_session(ctx, address, form) as session:
        found = session.client.jobs.get(first).verify(second)
        losses = "1 loss" if found.losses_compared == 1 else f"{found.losses_compared} losses"
        states = "1 state" if found.states_compared == 1 else f"{found.states_compared} states"
        session.output.record(
            found,
            [
                ("verdict", found.message),
                ("compared", f"{losses}, {states}" + (", the final weights" if found.weights_compared else "")),
                *(("different", difference) for difference in found.differences),
                *(("not compared", reason) for reason in found.not_compared),
            ],
        )
        if not found.agree:
            raise typer.Exit(ExitCode.PARTED)
