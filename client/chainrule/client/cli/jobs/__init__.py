"""`chainrule jobs`: submit training runs, follow, steer and compare them."""

from chainrule.client.cli.jobs.commands import app

__all__ = ["app"]
