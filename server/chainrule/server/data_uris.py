"""Where else than among the blobs the chunks of datasets may lie: in folders that the operator allows."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from chainrule.server.errors import InvalidRequestError, StartupError, echo
from chainrule.server.training.uris import SCHEMES, local_path

_PLAIN = re.compile(r"[a-z][a-z0-9]*://[A-Za-z0-9._~:/+=,-]*")


class AllowedUris:
    """The folders that an operator allows.

    Args:
        folders: URIs; what lies in one of them, at any depth, is allowed. None: nothing is.

    Raises:
        StartupError: one is no URI of a kind that can be read.
    """

    def __init__(self, folders: Sequence[str] = ()) -> None:
        self._folders = tuple(folder.rstrip("/") for folder in folders)
        for folder in folders:
            if (wrong := _wrong(folder.rstrip("/"))) is not None:
                raise StartupError(f"--data-uris has {echo(folder)}, which {wrong}")

    @classmethod
    def of(cls, text: str | None) -> AllowedUris:
        """The folders in a list with commas. Raises StartupError."""
        return cls([part.strip() for part in (text or "").split(",") if part.strip()])

    def check(self, uri: str, *, field: str) -> str:
        """The URI of a folder, without a slash at its end, if it is allowed. Raises InvalidRequestError naming the
        field."""
        uri = uri.rstrip("/")
        if (wrong := _wrong(uri)) is not None:
            raise InvalidRequestError.of(field, f"is {echo(uri)}, which {wrong}")
        if not any(uri == folder or uri.startswith(f"{folder}/") for folder in self._folders):
            allowed = ", ".join(self._folders) or "none"
            raise InvalidRequestError.of(
                field,
                f"is {echo(uri)}, which is in no folder that the service may read; it may read {allowed} (--data-uris)",
            )
        self._check_links(uri, field)
        return uri

    def _check_links(self, uri: str, field: str) -> None:
        """A link in a folder of files must not lead out of what is allowed."""
        path = local_path(uri)
        if path is None:
            return
        real = os.path.realpath(path)
        for folder in filter(None, map(local_path, self._folders)):
            allowed = os.path.realpath(folder)
            if real == allowed or real.startswith(f"{allowed}{os.sep}"):
                return
        raise InvalidRequestError.of(field, f"is {echo(uri)}, a link that leads out of what the service may read")


def _wrong(uri: str) -> str | None:
    """What is wrong with a URI; None: nothing. Only plain ones are taken: what is encoded, chained (`::`), or has a
    user, a query or `..` in it could mean something else to who reads it than to who checks it."""
    parts = urlsplit(uri)
    if parts.scheme not in SCHEMES:
        return f"begins with none of {', '.join(f'{scheme}://' for scheme in SCHEMES)}"
    if not _PLAIN.fullmatch(uri) or "::" in uri or len(uri) > 1000:
        return "is not a plain URI: use letters, digits, and . _ ~ : / + = , - only, at most 1,000 of them"
    if parts.scheme == "file" and (parts.netloc or len(parts.path) < 2):
        return "is not the absolute path of a folder; write file:///folder"
    if parts.scheme != "file" and not parts.netloc:
        return "has no bucket or host"
    if any(part in ("", ".", "..") for part in parts.path.split("/")[1:]):
        return 'has an empty part, "." or ".." in its path'
    return None
