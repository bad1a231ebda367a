"""How Alembic reaches the database: through the connection that the service has, or the URL given on its command line,
as in `alembic -x url=sqlite:///copy.db revision --autogenerate -m "what changes"`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context
from sqlalchemy.engine import Connection

from chainrule.server.store import schema


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=schema.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    with sa.create_engine(context.get_x_argument(as_dictionary=True)["url"]).begin() as made:
        _run(made)
