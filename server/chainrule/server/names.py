"""Resource names: models/{id}, datasets/{id}, jobs/{id}."""

from __future__ import annotations

import re
import secrets

from chainrule.server.errors import InvalidRequestError, NotFoundError, echo

_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # no 0/o, 1/i/l


def new_name(collection: str, resource_id: str, *, field: str) -> str:
    """The name a new resource gets. Raises InvalidRequestError naming `field` if the id is not well formed."""
    if not _ID.fullmatch(resource_id):
        raise InvalidRequestError.of(
            field,
            f"{echo(resource_id)} is not an id; use lower-case letters, digits and hyphens, at most 63, beginning with "
            'a letter and not ending with a hyphen, for example "digits"',
        )
    return f"{collection}/{resource_id}"


def existing(collection: str, name: str, *, field: str = "name") -> str:
    """The name, if it can be one of the collection's at all.

    Raises NotFoundError, or InvalidRequestError naming `field`.
    """
    prefix, _, resource_id = name.partition("/")
    if prefix != collection or not resource_id:
        raise InvalidRequestError.of(
            field, f'{echo(name)} is no name in {collection}; one looks like "{collection}/ID"'
        )
    if not _ID.fullmatch(resource_id):
        raise NotFoundError(f"there is no {echo(name)}; list what there is with: chainrule {collection} ls", name=name)
    return name


def model_source(name: str, *, field: str) -> tuple[str, int | None]:
    """The model and the number of its version that a job begins with: that of models/{id}/versions/{number}; None for
    the latest, models/{id}/versions/latest; 1 for models/{id}.

    Raises NotFoundError, or InvalidRequestError naming `field`.
    """
    model, mark, version = name.partition("/versions/")
    if mark and version != "latest" and not _VERSION.fullmatch(version):
        raise InvalidRequestError.of(
            field, f'{echo(version)} is no version of a model; use a number from 1, or "latest" for the newest'
        )
    number = None if version == "latest" else int(version or 1)
    return existing("models", model, field=field), number


def random_id() -> str:
    """A new job's id: short enough to type, 60 bits, beginning with a letter."""
    return secrets.choice(_ALPHABET[:23]) + "".join(secrets.choice(_ALPHABET) for _ in range(11))
