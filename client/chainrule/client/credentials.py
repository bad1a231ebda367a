"""The token that a client shows: where it comes from, and where it may go."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from chainrule.client.errors import InvalidInputError

TOKEN_VARIABLE = "CHAINRULE_TOKEN"
SECRET_PREFIX = "chainrule_"
SECRET_BYTES = 32
LOGGER = logging.getLogger("chainrule.client")

Metadata = tuple[tuple[str, str], ...]


def draw_secret() -> str:
    """A new secret: 256 random bits."""
    return SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def digest_of(secret: str) -> str:
    """What a server is told of a secret that is to be let in: its SHA-256."""
    return hashlib.sha256(secret.encode()).hexdigest()


def token_from_environment(environment: Mapping[str, str] = os.environ) -> str | None:
    """The secret in $CHAINRULE_TOKEN; None where that is not set."""
    return environment.get(TOKEN_VARIABLE) or None


def read_token(path: str | os.PathLike[str]) -> str:
    """The secret in a file, without spaces and line breaks around it. Warns if others can read the file.

    Raises:
        InvalidInputError: the file cannot be read.
    """
    try:
        content = Path(path).read_text("ascii").strip()
        others = stat.S_IMODE(Path(path).stat().st_mode) & 0o077
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it holds other characters than a token has"
        raise InvalidInputError(f"cannot read a token from {os.fspath(path)}: {reason.lower()}") from error
    if others:
        LOGGER.warning("others can read the token in %s; make it yours alone: chmod 600", os.fspath(path))
    return content


def metadata_of(token: str | None, address: str, *, encrypted: bool) -> Metadata:
    """What every call carries. A token goes where nobody listens in: encrypted, or within this machine.

    Raises:
        InvalidInputError: it cannot be a token, or would be sent in the open. The message does not repeat it.
    """
    if token is None:
        return ()
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise InvalidInputError("the token is not one: it has spaces, line breaks or letters that no token has")
    if not encrypted and not is_loopback(address):
        raise InvalidInputError(
            f"the token would go to {address} in the open, where others can read it on the way; encrypt with --tls-ca "
            "(CHAINRULE_TLS_CA, Client.connect(tls=Tls(ca=...))), or use a tunnel to a loopback address"
        )
    return (("authorization", f"Bearer {token}"),)


def is_loopback(address: str) -> bool:
    """Whether a host:port is of this machine.

    >>> is_loopback("127.0.0.1:50051"), is_loopback("127.example.org:50051")
    (True, False)
    """
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
