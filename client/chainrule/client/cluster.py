"""What the server is, and the nodes it trains on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chainrule.client.channel import Connection
from chainrule.client.wire import moment
from chainrule.v1 import cluster_pb2, cluster_pb2_grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFamily:
    """A family of models that the server can build."""

    name: str
    """Name to give when creating a model, for example "small_cnn"."""
    description: str
    """What it is, in one sentence."""
    config: Mapping[str, Any]
    """Its configuration fields with their defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a server is."""

    version: str
    """Version of chainrule that it runs."""
    start_time: datetime
    """When it started, in UTC."""
    ray_address: str
    """host:port of the Ray cluster it trains on."""
    owns_ray_cluster: bool
    """Whether it started that cluster and will stop it."""
    kernels: str
    """Kernels its engine computes with, for example "reference"."""
    families: tuple[ModelFamily, ...]
    """Model families that it can build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of the Ray cluster."""

    id: str
    address: str
    cpus: float
    """CPUs that Ray may give out on it."""
    memory_bytes: int
    """Memory that Ray may give out on it."""


class Cluster:
    """The server and the Ray cluster behind it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = cluster_pb2_grpc.ClusterServiceStub(connection.channel)

    def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """What the server is and what it can do; within `timeout_s`, by default that of every call."""
        message = self._connection.call(
            self._stub.GetServerInfo, cluster_pb2.GetServerInfoRequest(), timeout_s=timeout_s
        )
        return ServerInfo(
            version=message.version,
            start_time=moment(message.start_time),
            ray_address=message.ray_address,
            owns_ray_cluster=message.owns_ray_cluster,
            kernels=message.kernels,
            families=tuple(
                ModelFamily(name=f.name, description=f.description, config=json.loads(f.config_json or "{}"))
                for f in message.families
            ),
        )

    def nodes(self) -> tuple[Node, ...]:
        """The nodes that are alive, ordered by id."""
        response = self._connection.call(self._stub.ListNodes, cluster_pb2.ListNodesRequest())
        return tuple(Node(id=n.id, address=n.address, cpus=n.cpus, memory_bytes=n.memory_bytes) for n in response.nodes)
