"""Resource names: models/{id}, models/{id}/versions/{number}, datasets/{id}, jobs/{id}."""

from __future__ import annotations

import re
import secrets

from chainrule.server.errors import InvalidRequestError, NotFoundError, echo

ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
"""Of resources within their collection, and of tenants."""
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # no 0/o, 1/i/l


def new_name(collection: str, resource_id: str, *, field: str) -> str:
    """The name a new resource gets. Raises InvalidRequestError naming `field` if the id is not well formed."""
    if not ID.fullmatch(resource_id):
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
    if not ID.fullmatch(resource_id):
        raise NotFoundError(f"there is no {echo(name)}; list what there is with: chainrule {collection} ls", name=name)
    return name


def version(model: str, number: int) -> str:
    """The name of a version of a model."""
    return f"{model}/versions/{number}"


def existing_version(name: str, *, field: str = "name") -> tuple[str, int | None]:
    """The model and the number that the name of a version stands for; None: the newest, "latest".

    Raises NotFoundError, or InvalidRequestError naming `field`.
    """
    model, mark, number = name.partition("/versions/")
    if not mark:
        raise InvalidRequestError.of(
            field, f'{echo(name)} is no name of a version; one looks like "models/ID/versions/NUMBER"'
        )
    existing("models", model, field=field)
    if number == "latest":
        return model, None
    if not _NUMBER.fullmatch(number):
        raise NotFoundError(f"there is no {echo(name)}; versions have numbers, from 1", name=name)
    return model, int(number)


def served_version(name: str, *, field: str) -> tuple[str, int | None]:
    """The model and the number of the version that predictions are to be made with: as of `existing_version`, or the
    newest one of models/{id}. Raises what that raises."""
    if "/versions/" in name:
        return existing_version(name, field=field)
    return existing("models", name, field=field), None


def model_source(name: str, *, field: str) -> tuple[str, int | None]:
    """The model and the number of the version that a job is to begin with: as of `existing_version`, or the first one
    of models/{id}. Raises what that raises."""
    if "/versions/" in name:
        return existing_version(name, field=field)
    return existing("models", name, field=field), 1


def random_id() -> str:
    """A new job's id: short enough to type, 60 bits, beginning with a letter."""
    return secrets.choice(_ALPHABET[:23]) + "".join(secrets.choice(_ALPHABET) for _ in range(11))
