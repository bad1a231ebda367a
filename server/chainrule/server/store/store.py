"""Reads and writes of the store. Each method is one transaction; all block, so coroutines call them in a thread."""

from __future__ import annotations

from chainrule.server.store.access import AccessTables
from chainrule.server.store.catalog import CatalogTables
from chainrule.server.store.census import CensusTables
from chainrule.server.store.grants import GrantTables
from chainrule.server.store.jobs import JobTables
from chainrule.server.store.logs import LogTables
from chainrule.server.store.training import TrainingTables


class Store(AccessTables, CatalogTables, CensusTables, GrantTables, JobTables, LogTables, TrainingTables):
    """The store at a SQLAlchemy URL. Close it when done. Raises StartupError if its tables are of another version."""
