"""The service as a whole: puts the parts together, opens them in order and closes them in the reverse order."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

import chainrule.engine as cr
import chainrule.server.cluster as ray_cluster  # isort: split  — before gRPC: it sets the environment of both
from chainrule.server.access import TokenCatalog
from chainrule.server.audit import AuditLog
from chainrule.server.config import ServerConfig
from chainrule.server.data_folder import note_owner, open_blobs, open_store, own
from chainrule.server.data_uris import AllowedUris
from chainrule.server.datasets import DatasetCatalog
from chainrule.server.encryption import server_credentials
from chainrule.server.errors import StartupError
from chainrule.server.housekeeping import Housekeeping
from chainrule.server.jobs.checkpoints import Checkpoints
from chainrule.server.jobs.feed import Feed
from chainrule.server.jobs.logs import ServiceLogs
from chainrule.server.jobs.manager import JobManager
from chainrule.server.jobs.run import JobRun
from chainrule.server.jobs.submission import Submissions
from chainrule.server.limits import Rate
from chainrule.server.models import ModelCatalog
from chainrule.server.predictions.batching import Limits as BatchLimits
from chainrule.server.predictions.dispatch import Predictions
from chainrule.server.predictions.predictor import PredictorSettings
from chainrule.server.predictions.process import PredictorLike, PredictorProcess
from chainrule.server.predictions.versions import ServedVersions
from chainrule.server.rpc.access import AccessServicer
from chainrule.server.rpc.authentication import Doorkeeper, Limits
from chainrule.server.rpc.blobs import BlobServicer
from chainrule.server.rpc.calls import CallInterceptor, Calls
from chainrule.server.rpc.cluster import ClusterServicer
from chainrule.server.rpc.datasets import DatasetServicer
from chainrule.server.rpc.gate import GateInterceptor
from chainrule.server.rpc.jobs import JobServicer
from chainrule.server.rpc.models import ModelServicer
from chainrule.server.rpc.once import OnceInterceptor
from chainrule.server.rpc.predictions import PredictServicer
from chainrule.server.rpc.requests import RequestInterceptor
from chainrule.server.rpc.scopes import SERVICES
from chainrule.server.rpc.status import ErrorInterceptor
from chainrule.server.telemetry.attempts import CountingLauncher
from chainrule.server.telemetry.endpoint import MetricsEndpoint, endpoint_refused
from chainrule.server.telemetry.metrics import Metrics, measure_loop_lag
from chainrule.server.telemetry.tracing import Tracing, check_tracing
from chainrule.server.tenant_blobs import TenantBlobs
from chainrule.server.training.attempt import Launcher
from chainrule.v1 import (
    access_pb2_grpc,
    blob_pb2_grpc,
    cluster_pb2_grpc,
    dataset_pb2_grpc,
    job_pb2_grpc,
    model_pb2_grpc,
    predict_pb2_grpc,
)

MAX_MESSAGE_BYTES = 16 * 1024**2
FLUSH_S = 1.0
"""How long the last answers may take to be sent: a watch of health does not end by itself."""

CUT_OFF_S = 10.0
"""How long calls that were cut off may take after that: what they write is in the store before it is closed."""

CALLS_PER_S = 200.0
"""Calls a second of one token, unless configured."""
STREAMS = 100
"""Streams that one token may have open, unless configured."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 60_000),  # a client that has vanished does not keep its streams
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.server_handshake_timeout_ms", 20_000),
    ("grpc.max_concurrent_streams", 4096),  # of one connection
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server behind it
)

logger = logging.getLogger(__name__)


class Service:
    """A running service: `async with Service(config, cluster, launcher) as service`. The cluster stays the caller's."""

    def __init__(self, config: ServerConfig, cluster: ray_cluster.RayCluster, launcher: Launcher) -> None:
        self._config = config
        self._cluster = cluster
        self._launcher = launcher
        self._closing = AsyncExitStack()
        self.port = 0
        """Port it listens on, once entered."""
        self.metrics_address = ""
        """Where its metrics are, as host:port, once entered; empty: nowhere."""
        self.metrics = Metrics(kernels=cr.kernels.info().name)
        """What it counts."""
        self._serving = False
        self._calls = Calls()

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        return f"{_bracketed(self._config.host)}:{self.port}"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            await self._open(opening)
            self._closing = opening.pop_all()
        return self

    def hurry(self) -> None:
        """Wait no more, on the way out, for calls that are being answered."""
        self._calls.hurry()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    async def _open(self, stack: AsyncExitStack) -> None:
        config = self._config
        _refuse_public_host(config)
        lock = stack.enter_context(own(config.data_dir))
        store = open_store(config.data_dir, config.store_url)
        stack.callback(store.close)
        blobs = open_blobs(config.data_dir, store, limit_bytes=config.storage_limit_bytes)
        tokens = TokenCatalog(store)
        tenant_blobs = TenantBlobs(
            blobs, store, are_apart=config.require_tokens, limit_bytes=config.tenant_storage_limit_bytes
        )
        models = ModelCatalog(store, blobs, tenant_blobs, allow_code=config.allow_code)
        datasets = DatasetCatalog(store, blobs, tenant_blobs, uris=AllowedUris.of(config.data_uris))
        checkpoints = Checkpoints(store, blobs)
        feed = Feed()
        metrics = self.metrics
        metrics.watch(store, blobs)
        launcher = CountingLauncher(self._launcher, metrics)
        logs = ServiceLogs(store, feed)
        jobs = JobManager(
            store,
            Submissions(store, models, max_waiting=config.queue_limit),
            self._cluster,
            feed,
            checkpoints,
            max_tenant_jobs=config.max_tenant_jobs,
            make_run=lambda name, workers: JobRun(
                name,
                workers=workers,
                store=store,
                blobs=blobs,
                models=models,
                datasets=datasets,
                checkpoints=checkpoints,
                launcher=launcher,
                feed=feed,
            ),
            settle=logs.settle,
        )

        predictions = _predictions(config, ServedVersions(store, blobs), metrics)
        doorkeeper = Doorkeeper(tokens, asks=config.require_tokens, limits=limits_of(config))
        audit = AuditLog(store)
        gate = GateInterceptor(doorkeeper, audit)
        server = grpc.aio.server(interceptors=self._interceptors(stack, metrics, gate), options=_OPTIONS)
        access_pb2_grpc.add_AccessServiceServicer_to_server(AccessServicer(tokens), server)
        blob_pb2_grpc.add_BlobServiceServicer_to_server(BlobServicer(tenant_blobs), server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(models), server)
        dataset_pb2_grpc.add_DatasetServiceServicer_to_server(DatasetServicer(datasets), server)
        job_pb2_grpc.add_JobServiceServicer_to_server(JobServicer(jobs), server)
        cluster_pb2_grpc.add_ClusterServiceServicer_to_server(ClusterServicer(self._cluster, datetime.now(UTC)), server)
        predict_pb2_grpc.add_PredictServiceServicer_to_server(PredictServicer(predictions), server)
        healthy = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        self.port = _bind(server, config)
        if config.metrics_port is not None:
            await self._tell_metrics(stack, metrics)

        stack.callback(audit.tell)
        await stack.enter_async_context(logs)
        await stack.enter_async_context(Housekeeping(store, blobs, tokens))
        await stack.enter_async_context(predictions)
        await jobs.start()
        stack.push_async_callback(jobs.stop)
        await server.start()
        stack.push_async_callback(self._calls.over, CUT_OFF_S)
        stack.push_async_callback(server.stop, FLUSH_S)
        stack.push_async_callback(self._calls.drain, config.grace_s)
        stack.callback(predictions.draining.set)
        for name in ("", *SERVICES):
            await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
        stack.push_async_callback(healthy.enter_graceful_shutdown)
        self._serving = True
        note_owner(lock, self.address)
        asked = "calls need a token" if config.require_tokens else "calls need no token"
        logger.info("serving on %s, %s, %s, data in %s", self.address, _encryption(config), asked, config.data_dir)
        if config.allow_code:
            logger.warning(
                "--allow-code: whoever may create models runs Python on the cluster, with all that the workers' user "
                "can read and reach, the data of all tenants included"
            )
        if not is_loopback_host(config.host) and config.insecure_public:
            logger.warning("serving on %s as --insecure-public has it", self.address)

    def _interceptors(
        self, stack: AsyncExitStack, metrics: Metrics, gate: GateInterceptor
    ) -> list[grpc.aio.ServerInterceptor]:
        """Those of every call, from the outermost on."""
        tracing = None if self._config.otlp_endpoint is None else Tracing(self._config.otlp_endpoint)
        if tracing is not None:
            stack.push_async_callback(tracing.close)
        return [
            OnceInterceptor(),
            CallInterceptor(self._calls, metrics, tracing),
            ErrorInterceptor(),
            gate,
            RequestInterceptor(),
        ]

    async def _tell_metrics(self, stack: AsyncExitStack, metrics: Metrics) -> None:
        config = self._config
        assert config.metrics_port is not None
        endpoint = MetricsEndpoint(
            metrics,
            host=config.metrics_host,
            port=config.metrics_port,
            health=lambda: "draining" if self._calls.draining else "serving" if self._serving else "starting",
        )
        await stack.enter_async_context(endpoint)
        measuring = asyncio.create_task(measure_loop_lag(metrics))
        stack.callback(measuring.cancel)
        self.metrics_address = f"{_bracketed(config.metrics_host)}:{endpoint.port}"
        logger.info("metrics on http://%s/metrics", self.metrics_address)


def _predictions(config: ServerConfig, versions: ServedVersions, metrics: Metrics) -> Predictions:
    settings = PredictorSettings(
        memory_bytes=config.predictor_memory_bytes,
        max_rows=config.predict_batch,
        log_level=logging.getLogger().level,
    )

    async def start(when_lost: Callable[[PredictorLike], None]) -> PredictorLike:
        return await PredictorProcess.started(settings, when_lost)

    limits = BatchLimits(
        max_rows=config.predict_batch,
        window_s=config.predict_window_ms / 1e3,
        max_waiting=config.predict_queue,
    )
    return Predictions(versions, most=config.predictors, start=start, metrics=metrics, limits=limits)


def _encryption(config: ServerConfig) -> str:
    if config.tls is None:
        return "not encrypted"
    asked = f"for clients with a certificate of {config.tls.client_ca}" if config.tls.client_ca else "for any client"
    return f"TLS {asked}"


def limits_of(config: ServerConfig) -> Limits:
    """How much one caller may ask for."""
    per_s, streams = config.rate_limit_per_s, config.stream_limit
    if config.require_tokens:
        per_s, streams = per_s or CALLS_PER_S, streams or STREAMS
    return Limits(None if per_s is None else Rate(per_s, burst=max(1.0, 2 * per_s)), streams)


def check_startable(config: ServerConfig) -> None:
    """Find out what would keep a service from starting, before anything that takes long is started for it. Raises
    StartupError."""
    _refuse_public_host(config)
    if config.tls is not None:
        server_credentials(config.tls)
    with own(config.data_dir):
        open_store(config.data_dir, config.store_url).close()
    if (reason := _why_not(config.host, config.port)) is not None:
        raise _cannot_listen(config, reason)
    if config.otlp_endpoint is not None:
        check_tracing(config.otlp_endpoint)
    if config.metrics_port is not None:
        reason = _why_not(config.metrics_host, config.metrics_port)
        if reason is not None:
            raise endpoint_refused(config.metrics_host, config.metrics_port, reason)


def _bind(server: grpc.aio.Server, config: ServerConfig) -> int:
    address = f"{_bracketed(config.host)}:{config.port}"
    try:
        if config.tls is not None:
            return server.add_secure_port(address, server_credentials(config.tls))
        return server.add_insecure_port(address)
    except RuntimeError as error:  # gRPC does not say why
        raise _cannot_listen(
            config, _why_not(config.host, config.port) or "the address was in use a moment ago"
        ) from error


def _why_not(host: str, port: int) -> str | None:
    """Why nothing can listen there; None if it can."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does
        try:
            probe.bind((host, port))
        except OSError as error:
            return os.strerror(error.errno or 0).lower()
    return None


def _cannot_listen(config: ServerConfig, reason: str) -> StartupError:
    return StartupError(
        f"cannot listen on {_bracketed(config.host)}:{config.port}: {reason}; "
        "end what listens there, or choose another port with --port (0: any free one)"
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_loopback_host(host: str) -> bool:
    """Whether only this machine reaches an address to listen on."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_public_host(config: ServerConfig) -> None:
    """A secret that is not encrypted is nobody's, and encryption keeps nobody out."""
    callers_prove_themselves = config.tls is not None and (config.tls.client_ca is not None or config.require_tokens)
    if callers_prove_themselves or config.insecure_public or is_loopback_host(config.host):
        return
    raise StartupError(
        f"--host {config.host} is not a loopback address, and anybody who reaches it could use the service; serve with "
        "--tls-cert and --tls-key, and with --tokens or --tls-client-ca, so that callers prove who they are; or use "
        "127.0.0.1 and a tunnel; or, in a network that you trust, say --insecure-public"
    )
