"""Settings of the service. A field of `ServerConfig` is an option of `chainrule serve`, a variable, a key of a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")

DEFAULT_PORT = 50051
DEFAULT_QUEUE_LIMIT = 1000
MAX_PORT = 65535


@dataclass(frozen=True)
class About:
    """What is said of a setting, besides its name, type and default."""

    help: str
    """One or two sentences, with the unit and, where the default is None, what that means."""
    option: str = ""
    """Name of the option, if it is not that of the field with hyphens."""
    variable: str = ""
    """Environment variable, if it is not CHAINRULE_SERVE_ and the name."""
    short: str = ""
    """A letter that stands for the option, as "-v"."""
    least: float | None = None
    """Smallest number; None: any."""
    most: float | None = None
    """Largest number; None: any."""
    example: object = None
    """A value to be shown where there is none."""


def setting(default: T, help: str, **about: Any) -> T:
    """A field of a settings class: its default, and what `About` has to say of it."""
    described: T = field(default=default, metadata={"about": About(help, **about)})
    return described


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
    """How to serve. To add a setting, add a field: option, variable, file and template follow from it."""

    data_dir: Path = setting(
        Path(".chainrule"),
        "Folder of the store and the blobs; made if missing. One server at a time may use it.",
        variable="CHAINRULE_DATA_DIR",
    )
    host: str = setting(
        "127.0.0.1", "Address to listen on; other than loopback with TLS and --tokens or --tls-client-ca."
    )
    port: int = setting(DEFAULT_PORT, "Port to listen on; 0: any free one.", least=0, most=MAX_PORT)
    ray_address: str | None = setting(
        None,
        "Ray cluster to join, as HOST:PORT (see chainrule cluster up). Without it one starts here.",
        example="10.0.0.1:6379",
    )
    num_cpus: int | None = setting(
        None,
        "Worker places of a cluster started here. Without it: the machine's CPUs, at least 2.",
        least=1,
        example=4,
    )
    warm_workers: int | None = setting(
        None,
        "Workers for which a cluster started here keeps processes ready, about 100 MB each. Without it: as many as it "
        "has places, at most 4.",
        least=0,
        example=2,
    )
    tls_cert: Path | None = setting(
        None, "Encrypt: the server's certificate (PEM); with --tls-key.", example="/etc/chainrule/server.pem"
    )
    tls_key: Path | None = setting(None, "Its private key (PEM).", example="/etc/chainrule/server.key")
    tls_client_ca: Path | None = setting(
        None, "Let in only clients with a certificate of these authorities (PEM).", example="/etc/chainrule/ca.pem"
    )
    store_url: str | None = setting(
        None,
        "SQLAlchemy URL of the store. Without it: a SQLite file in the data folder.",
        variable="CHAINRULE_STORE_URL",
        example="postgresql+psycopg://USER@HOST/DATABASE",
    )
    storage_limit_gb: float | None = setting(
        None,
        "GB (10⁹ bytes) up to which uploads are taken; what jobs store counts. Without it: what the disk holds.",
        option="storage-limit",
        least=0,
        example=500,
    )
    data_uris: str | None = setting(
        None,
        "Folders, with commas between them, in which chunks of datasets may lie besides the service's own: file://, "
        "s3://, gs:// and http(s):// URIs, read with the credentials of service and workers. Without it: none.",
        example="s3://bucket/data,file:///srv/data",
    )
    allow_code: bool = setting(
        False,
        "Take models that are Python code. Whoever may create models then runs programs on the cluster, with all that "
        "the workers' user can read and reach: only where all of them are trusted with all data on it.",
    )
    require_tokens: bool = setting(
        False, "Let in only calls with a token (see chainrule admin token-create).", option="tokens"
    )
    insecure_public: bool = setting(False, "Listen on any --host, unprotected: for networks you trust.")
    rate_limit_per_s: float | None = setting(
        None,
        "Calls a second of one caller, twice as many at once. Without it: 200 with --tokens, else any number.",
        option="rate-limit",
        least=0.001,
        example=200,
    )
    stream_limit: int | None = setting(
        None,
        "Open streams of one caller, uploads included. Without it: 100 with --tokens, else any number.",
        least=1,
        example=100,
    )
    tenant_storage_limit_gb: float | None = setting(
        None,
        "GB (10⁹ bytes) up to which uploads of one tenant are taken; with --tokens.",
        option="tenant-storage-limit",
        least=0,
        example=50,
    )
    max_tenant_jobs: int | None = setting(
        None,
        "Most jobs of one tenant that have workers at a time. Without it: all that there is room for.",
        option="tenant-jobs",
        least=1,
        example=4,
    )
    queue_limit: int = setting(
        DEFAULT_QUEUE_LIMIT, "Most jobs of one tenant that wait in the queue or are paused; more are refused.", least=1
    )
    predictors: int = setting(
        1,
        "Most processes that compute predictions, one CPU each. They are started when they are needed; 0: none, and no "
        "predictions.",
        least=0,
        example=2,
    )
    predictor_memory_gb: float = setting(
        1.0,
        "GB (10⁹ bytes) of weights up to which each of them keeps models loaded; those go first that were not used for "
        "the longest.",
        option="predictor-memory",
        least=0,
    )
    predict_batch: int = setting(
        32, "Most examples, of all requests together, that are computed as one batch.", least=1
    )
    predict_window_ms: float = setting(
        0.0,
        "Milliseconds that a request waits for others to be computed with while there is a process free. What comes "
        "while none is, is a batch in any case.",
        option="predict-window",
        least=0,
        most=10_000,
    )
    predict_queue: int = setting(
        1000,
        "Most requests for predictions with one version of a model that wait; more are told to come back.",
        least=1,
    )
    grace_s: float = setting(
        10.0,
        "Seconds that calls under way may take once the service is told to stop.",
        option="grace",
        least=0,
    )
    metrics_port: int | None = setting(
        None,
        "Port of /metrics, for Prometheus, and /healthz; 0: any free one. Without it there is none.",
        least=0,
        most=MAX_PORT,
        example=9090,
    )
    metrics_host: str = setting(
        "127.0.0.1", "Address of that port. Who reaches it sees numbers and needs no certificate."
    )
    otlp_endpoint: str | None = setting(
        None,
        "Collector to send a span of each call to, by OTLP over gRPC. Needs chainrule[telemetry].",
        example="http://localhost:4317",
    )
    log_format: Literal["text", "json"] = setting("text", "Form of the log on stderr: text, or one JSON object a line.")
    verbose: bool = setting(False, "Log more.", short="-v")
    address_file: Path | None = setting(
        None, "File to write HOST:PORT into once the service is ready.", example="/run/chainrule/address"
    )

    @property
    def tls(self) -> Tls | None:
        """How to encrypt; None: not at all."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return Tls(self.tls_cert, self.tls_key, self.tls_client_ca)

    @property
    def storage_limit_bytes(self) -> int | None:
        """Most bytes of blobs to store; None: as many as the disk holds."""
        return _bytes(self.storage_limit_gb)

    @property
    def predictor_memory_bytes(self) -> int:
        """Most bytes of weights that a predictor keeps."""
        return round(self.predictor_memory_gb * 1e9)

    @property
    def tenant_storage_limit_bytes(self) -> int | None:
        """Most bytes of blobs of a tenant with which it may upload more; None: no limit of its own."""
        return _bytes(self.tenant_storage_limit_gb)


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else round(gigabytes * 1e9)
