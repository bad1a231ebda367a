"""Settings of the service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_PORT = 50051


@dataclass(frozen=True)
class Tls:
    """How to encrypt: files in PEM form."""

    cert: Path
    """The service's certificate, with those in between it and its authority."""
    key: Path
    """Its private key."""
    client_ca: Path | None = None
    """Authorities of the certificates that clients must have; None: clients need none."""


@dataclass(frozen=True)
class ServerConfig:
    """How to serve."""

    data_dir: Path
    """Folder of the store and the blobs; made if missing. One server at a time may use it."""
    host: str = "127.0.0.1"
    """Address to listen on. Other than loopback only with TLS, where callers have to prove who they are, by a
    certificate or a token; or with `insecure_public`."""
    port: int = DEFAULT_PORT
    """Port to listen on; 0 lets the system choose one."""
    ray_address: str | None = None
    """Ray cluster to join, as host:port; None starts one on this machine."""
    num_cpus: int | None = None
    """Worker places of a cluster that is started here; None: the machine's CPUs, at least 2."""
    tls: Tls | None = None
    """Encryption; None: none."""
    store_url: str | None = None
    """SQLAlchemy URL of the store; None: a SQLite file in the data folder."""
    storage_limit_bytes: int | None = None
    """Most bytes of blobs to store; None: as many as the disk holds."""
    require_tokens: bool = False
    """Whether a call needs a token. Without, everybody who reaches the service may do everything."""
    insecure_public: bool = False
    """Whether to listen on any address whoever may then call, and whoever may then listen in."""
    rate_limit_per_s: float | None = None
    """Calls a second of one caller, twice as many at once; None: 200 with tokens, without any number."""
    stream_limit: int | None = None
    """Streams that one caller may have open, uploads included; None: 100 with tokens, without any number."""
    tenant_storage_limit_bytes: int | None = None
    """Most bytes of blobs of a tenant with which it may upload more; None: no limit of its own. Only with tokens."""
    grace_s: float = 2.0
    """How long running calls may go on once the service is told to stop, in seconds."""
