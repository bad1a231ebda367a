"""The command line `chainrule`."""

from chainrule.client.cli.app import main

__all__ = ["main"]
