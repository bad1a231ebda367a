"""The Ray cluster behind the service, and clusters of several nodes on one machine."""

from chainrule.server.cluster.connection import RayCluster, RemoteAttempt
from chainrule.server.cluster.driver import Node
from chainrule.server.cluster.local import LocalCluster, LocalNode

__all__ = ["LocalCluster", "LocalNode", "Node", "RayCluster", "RemoteAttempt"]
