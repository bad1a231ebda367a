"""Folders by their URI, for chunks that are not sent to the service."""

from __future__ import annotations

import importlib
import os
import secrets
from pathlib import Path
from typing import Any

from chainrule.client.errors import InvalidInputError
from chainrule.client.packing import Packer
from chainrule.engine import io


def write_chunks(uri: str, packer: Packer, transferred: Any = None) -> None:
    """Write all chunks of a dataset to a folder, each named by its digest; what is there already is left as it is.

    Args:
        uri: "file:///folder", or what fsspec can write to: "s3://bucket/folder".
        transferred: called with the bytes written so far and in all of each chunk, as uploads do.

    Raises:
        InvalidInputError: it cannot be written to, or what writes there is not installed; or the source cannot be read.
    """
    while (chunk := packer.chunk()) is not None:
        digest = io.digest(chunk)
        _write(f"{uri.rstrip('/')}/{digest}", chunk)
        packer.sent(digest)
        if transferred is not None:
            transferred(len(chunk), len(chunk))
            transferred.next()


def read_part(uri: str, offset_bytes: int, size_bytes: int) -> bytes:
    """Some bytes of a file. Raises InvalidInputError if they cannot be read."""
    try:
        with _open(uri, "rb") as file:
            file.seek(offset_bytes)
            content: bytes = file.read(size_bytes)
            return content
    except Exception as error:
        raise InvalidInputError(f"{uri} cannot be read from here: {error!r}") from error


def _write(uri: str, content: bytes) -> None:
    path = _path(uri)
    try:
        if path is None:
            with _open(uri, "wb") as file:
                file.write(content)
        elif not (path.exists() and path.stat().st_size == len(content)):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{secrets.token_hex(8)}")
            temporary.write_bytes(content)
            os.replace(temporary, path)
    except Exception as error:
        raise InvalidInputError(f"{uri} cannot be written: {error!r}") from error


def _open(uri: str, mode: str) -> Any:
    path = _path(uri)
    if path is not None:
        return path.open(mode)
    return importlib.import_module("fsspec").open(uri, mode)


def _path(uri: str) -> Path | None:
    return Path(uri.removeprefix("file://")) if uri.startswith("file:///") else None
