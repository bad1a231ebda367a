"""The API over gRPC on loopback, without Ray: the servicers over the service's parts and a scripted launcher."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from chainrule.server import service
from chainrule.server.access import TokenCatalog
from chainrule.server.rpc.access import AccessServicer
from chainrule.server.rpc.blobs import BlobServicer
from chainrule.server.rpc.cluster import ClusterServicer
from chainrule.server.rpc.datasets import DatasetServicer
from chainrule.server.rpc.jobs import JobServicer
from chainrule.server.rpc.models import ModelServicer
from chainrule.server.rpc.predictions import PredictServicer
from chainrule.server.rpc.requests import RequestInterceptor
from chainrule.server.rpc.status import ErrorInterceptor
from chainrule.v1 import (
    access_pb2,
    access_pb2_grpc,
    blob_pb2,
    blob_pb2_grpc,
    cluster_pb2,
    cluster_pb2_grpc,
    dataset_pb2,
    dataset_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    predict_pb2,
    predict_pb2_grpc,
)
from tests.server.jobs.service_parts import Parts
from tests.server.predictions.predictors import predictions_here

API: tuple[tuple[ModuleType, ModuleType], ...] = (
    (access_pb2, access_pb2_grpc),
    (blob_pb2, blob_pb2_grpc),
    (cluster_pb2, cluster_pb2_grpc),
    (dataset_pb2, dataset_pb2_grpc),
    (job_pb2, job_pb2_grpc),
    (model_pb2, model_pb2_grpc),
    (predict_pb2, predict_pb2_grpc),
)
"""Messages and stubs of every file of the API."""


@dataclass(frozen=True)
class FakeNode:
    """A machine."""

    id: str = "a1"
    address: str = "10.0.0.1"
    cpus: float = 4.0
    memory_bytes: int = 2**30


class FakeCluster:
    """A cluster of one machine."""

    address = "10.0.0.1:6379"
    owned = True

    async def nodes(self) -> list[FakeNode]:
        return [FakeNode()]


def servicers(parts: Parts) -> dict[str, Any]:
    """What answers each service, by its name."""
    cluster: Any = FakeCluster()
    return {
        "AccessService": AccessServicer(TokenCatalog(parts.store)),
        "BlobService": BlobServicer(parts.tenant_blobs),
        "ClusterService": ClusterServicer(cluster, datetime.now(UTC)),
        "DatasetService": DatasetServicer(parts.datasets),
        "JobService": JobServicer(parts.manager),
        "ModelService": ModelServicer(parts.models),
        "PredictService": PredictServicer(predictions_here(parts.store, parts.blobs)),
    }


@asynccontextmanager
async def serving(parts: Parts, *behind: grpc.aio.ServerInterceptor) -> AsyncIterator[str]:
    """Serve what is answered of the API, as the service does; gives the address. The parts stay the caller's.

    Args:
        behind: interceptors that stand behind the one that answers errors.
    """
    server = grpc.aio.server(
        interceptors=[ErrorInterceptor(), *behind, RequestInterceptor()],
        options=[
            ("grpc.max_receive_message_length", service.MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", service.MAX_MESSAGE_BYTES),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ],
    )
    answering = servicers(parts)
    for _, stubs in API:
        for name, servicer in answering.items():
            if add := getattr(stubs, f"add_{name}Servicer_to_server", None):
                add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await parts.manager.start()
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
        await parts.manager.stop()


# --- the API as its descriptors have it ------------------------------------------------------------------------


def methods() -> list[MethodDescriptor]:
    """Every method of every service."""
    return [
        method
        for messages, _ in API
        for described in messages.DESCRIPTOR.services_by_name.values()
        for method in described.methods
    ]


def answered(parts: Parts) -> list[MethodDescriptor]:
    """The methods that a servicer has."""
    answering = servicers(parts)
    return [
        method
        for method in methods()
        if (servicer := answering.get(method.containing_service.name)) is not None
        and method.name in _defined(type(servicer))
    ]


def _defined(servicer: type) -> Sequence[str]:
    """What a servicer has beside the methods that only say that they are missing."""
    return [name for kind in servicer.__mro__ if not kind.__module__.endswith("_pb2_grpc") for name in vars(kind)]


def path(method: MethodDescriptor) -> str:
    """The method on the wire."""
    return f"/{method.containing_service.full_name}/{method.name}"


def message_class(method: MethodDescriptor) -> type[Message]:
    """What the method is asked with."""
    return message_factory.GetMessageClass(method.input_type)


def call(channel: grpc.aio.Channel, method: MethodDescriptor) -> Any:
    """The method with bytes for requests and answers."""
    make = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    return make(path(method))
