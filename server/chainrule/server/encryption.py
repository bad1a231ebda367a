"""TLS for clients: with which certificate the service proves itself, and whose certificates it asks clients for."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from chainrule.server.config import Tls
from chainrule.server.errors import StartupError


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """What gRPC needs. Raises StartupError if a file cannot be used, or they do not belong together."""
    cert, key = _read("--tls-cert", tls.cert), _read("--tls-key", tls.key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert, tls.key)  # gRPC would not say what is wrong
    except (ssl.SSLError, ValueError) as error:
        raise StartupError(
            f"--tls-cert {tls.cert} and --tls-key {tls.key} are not a certificate and its key in PEM form: {error}"
        ) from error
    if tls.client_ca is None:
        return grpc.ssl_server_credentials([(key, cert)])
    authorities = _read("--tls-client-ca", tls.client_ca)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(tls.client_ca)
    except ssl.SSLError as error:
        raise StartupError(f"--tls-client-ca {tls.client_ca} holds no certificate in PEM form: {error}") from error
    return grpc.ssl_server_credentials([(key, cert)], authorities, require_client_auth=True)


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartupError(f"{option} {path} cannot be read: {(error.strerror or str(error)).lower()}") from error
