"""The durable store: what the service remembers across restarts, in a SQL database."""

from chainrule.server.store.store import NewJob, Store

__all__ = ["NewJob", "Store"]
