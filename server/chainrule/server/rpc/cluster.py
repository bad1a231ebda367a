"""ClusterService."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version

import chainrule.engine as cr
from chainrule.engine import models
from chainrule.server.cluster import RayCluster
from chainrule.server.rpc import convert
from chainrule.server.rpc.caller import SCOPES, caller
from chainrule.server.rpc.wrapping import Context
from chainrule.v1 import cluster_pb2, cluster_pb2_grpc


class ClusterServicer(cluster_pb2_grpc.ClusterServiceServicer):
    """Translates between ClusterService and the Ray cluster."""

    def __init__(self, cluster: RayCluster, start_time: datetime) -> None:
        self._cluster = cluster
        self._start_time = start_time

    async def GetServerInfo(
        self, request: cluster_pb2.GetServerInfoRequest, context: Context
    ) -> cluster_pb2.ServerInfo:
        who = caller()
        return cluster_pb2.ServerInfo(
            version=version("chainrule"),
            start_time=convert.timestamp(self._start_time),
            ray_address=self._cluster.address,
            owns_ray_cluster=self._cluster.owned,
            kernels=cr.kernels.info().name,
            families=[
                cluster_pb2.ModelFamily(
                    name=family.name,
                    description=family.description,
                    config_json=json.dumps(asdict(family.config())),
                )
                for family in models.families().values()
            ],
            caller=cluster_pb2.Caller(
                token=who.token, tenant=who.tenant, scopes=[scope for scope in SCOPES if scope in who.scopes]
            ),
        )

    async def ListNodes(self, request: cluster_pb2.ListNodesRequest, context: Context) -> cluster_pb2.ListNodesResponse:
        nodes = [
            cluster_pb2.Node(id=node.id, address=node.address, cpus=node.cpus, memory_bytes=node.memory_bytes)
            for node in await self._cluster.nodes()
        ]
        return cluster_pb2.ListNodesResponse(nodes=nodes)
