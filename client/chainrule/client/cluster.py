"""The server, and the cluster behind it."""
# Derived from aio/cluster.py by client/derive.py. Change that, and run `make client`.

from chainrule.client.channel import Connection
from chainrule.client.resources import Node, ServerInfo, node_from_message, server_from_message
from chainrule.v1 import cluster_pb2, cluster_pb2_grpc


class Cluster:
    """The server and the Ray cluster behind it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = cluster_pb2_grpc.ClusterServiceStub(connection.channel)

    def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """What the server is and what it can do; within `timeout_s`, by default that of every call."""
        request = cluster_pb2.GetServerInfoRequest()
        return server_from_message(self._connection.call(self._stub.GetServerInfo, request, timeout_s=timeout_s))

    def nodes(self) -> tuple[Node, ...]:
        """The nodes that are alive, ordered by id."""
        response = self._connection.call(self._stub.ListNodes, cluster_pb2.ListNodesRequest())
        return tuple(map(node_from_message, response.nodes))
