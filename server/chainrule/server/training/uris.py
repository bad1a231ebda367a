"""Chunks that lie elsewhere than among the blobs: read by their URI."""

from __future__ import annotations

import importlib
import os
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, build_opener

from chainrule.server.training.errors import DatasetError, LinkError

SCHEMES = ("file", "s3", "gs", "http", "https")
"""Kinds of URIs that can be read."""
WEB_TIMEOUT_S = 60.0
"""How long a web server may be silent."""
_TRY_LATER = 500
"""From this status on it is the server that has failed."""


class _NoRedirects(HTTPRedirectHandler):
    """Makes an error of every redirect."""

    def redirect_request(self, *_: Any) -> None:
        """None is followed."""


_web = build_opener(_NoRedirects)


def local_path(uri: str) -> str | None:
    """The path that a URI of a file stands for; None: it is none."""
    return uri.removeprefix("file://") if uri.startswith("file://") else None


def read_uri(uri: str, *, limit_bytes: int) -> bytes:
    """What lies at a URI. s3 and gs are read by fsspec, which takes credentials from where it runs; http(s) without
    following redirects, which could lead anywhere.

    Raises:
        DatasetError: there is nothing, or more than `limit_bytes`, or what reads such URIs is not installed.
        LinkError: it cannot be reached.
    """
    try:
        with _open(uri) as file:
            content: bytes = file.read(limit_bytes + 1)
    except ImportError as error:
        raise DatasetError(f"{uri} cannot be read here: {error}; install fsspec, and s3fs or gcsfs") from error
    except HTTPError as error:
        kind = LinkError if error.code >= _TRY_LATER or error.code in (408, 429) else DatasetError
        raise kind(f"{uri} cannot be read: {error}") from error
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise DatasetError(f"{uri} cannot be read: {error!r}") from error
    except Exception as error:  # each kind of URI has a library of its own, with errors of its own
        if local_path(uri) is not None:
            raise DatasetError(f"{uri} cannot be read: {error!r}") from error
        raise LinkError(f"{uri} cannot be reached: {error!r}") from error
    if len(content) > limit_bytes:
        raise DatasetError(f"{uri} has more than {limit_bytes:,} bytes")
    return content


def _open(uri: str) -> Any:
    path = local_path(uri)
    if path is not None:
        return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
    if uri.startswith(("http://", "https://")):
        return _web.open(uri, timeout=WEB_TIMEOUT_S)
    return importlib.import_module("fsspec").open(uri, "rb")
