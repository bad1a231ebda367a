"""The command line `chainrule`."""

from chainrule.client.cli.entry import main

__all__ = ["main"]
