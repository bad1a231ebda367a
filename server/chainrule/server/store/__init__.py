"""The durable store: what the service remembers across restarts, in a SQL database."""

from chainrule.server.store.jobs import JobChange, NewJob
from chainrule.server.store.logs import LogPage
from chainrule.server.store.paging import PageRequest
from chainrule.server.store.requests import NO_REQUEST, Request
from chainrule.server.store.store import Store
from chainrule.server.store.versions import Inputs

__all__ = ["NO_REQUEST", "Inputs", "JobChange", "LogPage", "NewJob", "PageRequest", "Request", "Store"]
