"""TLS to the server: whom to trust, and with which certificate to prove oneself."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from chainrule.client.errors import InvalidInputError

VARIABLES = ("CHAINRULE_TLS_CA", "CHAINRULE_TLS_CERT", "CHAINRULE_TLS_KEY")
"""Environment variables with the files of `Tls`, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files in PEM form."""

    ca: str | os.PathLike[str] | None = None
    """Authorities to trust; None: those that gRPC brings along, which are the web's."""
    cert: str | os.PathLike[str] | None = None
    """Certificate of this client, where the server asks for one; with `key`."""
    key: str | os.PathLike[str] | None = None
    """Its private key."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Tls | None:
        """What the environment variables name; None if they name nothing."""
        ca, cert, key = (environment.get(name) or None for name in VARIABLES)
        return cls(ca=ca, cert=cert, key=key) if ca or cert or key else None

    def credentials(self) -> grpc.ChannelCredentials:
        """What gRPC needs. Raises InvalidInputError if a file cannot be used, or only one of cert and key is given."""
        if (self.cert is None) != (self.key is None):
            raise InvalidInputError("a client certificate needs its key, and a key its certificate: name both files")
        ca, cert, key = (None if path is None else _read(path) for path in (self.ca, self.cert, self.key))
        if self.cert is not None and self.key is not None:
            try:  # gRPC would not say what is wrong
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(self.cert, self.key)
            except (ssl.SSLError, ValueError) as error:
                raise InvalidInputError(
                    f"{os.fspath(self.key)} is not the key of the certificate in {os.fspath(self.cert)}: {error}"
                ) from error
        return grpc.ssl_channel_credentials(ca, key, cert)


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot read {os.fspath(path)}: {(error.strerror or str(error)).lower()}") from error
    if b"-----BEGIN" not in content:
        raise InvalidInputError(f"{os.fspath(path)} is not in PEM form")
    return content
