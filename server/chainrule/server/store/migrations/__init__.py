"""Which tables a database has, and how those of an earlier version become those of this one."""

from __future__ import annotations

import secrets
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from chainrule.server.errors import StartupError
from chainrule.server.store import schema

HEAD = "chainrule_0009"
"""The revision that `schema` describes: the last of those in `versions`."""

FIRST = "chainrule_0001"
_BEFORE_REVISIONS = 2
"""What SQLite files have as their user_version that were made before there were revisions, with the tables of FIRST."""
_VERSION = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))


def bring_up_to_date(db: Connection) -> None:
    """Make the tables, or convert those that are there; all of it or, if it fails, nothing. Raises StartupError if they
    are not ours, or of a version that cannot be converted."""
    tables = sa.inspect(db).get_table_names()
    if not tables:
        schema.metadata.create_all(db)
        db.execute(schema.identity.insert().values(id=secrets.token_hex(16)))
        _stamp(db, HEAD)
        return
    if _VERSION.name not in tables:
        _check_age(db)
        _stamp(db, FIRST)
    found = db.execute(sa.select(_VERSION.c.version_num)).scalar()
    if found != HEAD:
        _convert(db, str(found))


def _stamp(db: Connection, revision: str) -> None:
    _VERSION.create(db)
    db.execute(_VERSION.insert().values(version_num=revision))


def _check_age(db: Connection) -> None:
    """Tell tables that were made before there were revisions from others."""
    layout = int(db.exec_driver_sql("PRAGMA user_version").scalar_one()) if db.dialect.name == "sqlite" else 0
    if layout != _BEFORE_REVISIONS:
        raise StartupError(
            f"the tables in the database {_name(db)} are not those of a chainrule that this version can convert; "
            "serve from another --data-dir or --store-url, or with the version that made it"
        )


def _convert(db: Connection, found: str) -> None:
    from alembic import command  # seldom needed, and not small
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = db
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found not in known:
        raise StartupError(
            f"the database {_name(db)} was made by a newer chainrule, or by something else (revision {found}; this "
            f"version knows {HEAD}); serve with what made it, or from another --data-dir or --store-url"
        )
    command.upgrade(config, HEAD)


def _name(db: Connection) -> str:
    url = db.engine.url
    return str(url.database) if db.dialect.name == "sqlite" else url.render_as_string(hide_password=True)
