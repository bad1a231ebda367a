"""The server, and the cluster behind it."""

from chainrule.client.aio.channel import AsyncConnection
from chainrule.client.resources import Node, ServerInfo, node_from_message, server_from_message
from chainrule.v1 import cluster_pb2, cluster_pb2_grpc


class AsyncCluster:
    """The server and the Ray cluster behind it."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = cluster_pb2_grpc.ClusterServiceStub(connection.channel)

    async def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """What the server is and what it can do; within `timeout_s`, by default that of every call."""
        request = cluster_pb2.GetServerInfoRequest()
        return server_from_message(await self._connection.call(self._stub.GetServerInfo, request, timeout_s=timeout_s))

    async def nodes(self) -> tuple[Node, ...]:
        """The nodes that are alive, ordered by id."""
        response = await self._connection.call(self._stub.ListNodes, cluster_pb2.ListNodesRequest())
        return tuple(map(node_from_message, response.nodes))
