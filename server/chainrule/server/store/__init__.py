"""The durable store: what the service remembers across restarts, in a SQL database."""

from chainrule.server.store.jobs import NewJob
from chainrule.server.store.paging import PageRequest
from chainrule.server.store.requests import NO_REQUEST, Request
from chainrule.server.store.store import Store

__all__ = ["NO_REQUEST", "NewJob", "PageRequest", "Request", "Store"]
