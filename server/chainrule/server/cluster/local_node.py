"""Starts one node of a local cluster, in a process that ends and leaves it.

Ray's own command refuses to add a node to a cluster that listens on loopback only, so this calls what is behind it, as
`ray.cluster_utils` does. It is a process of its own because Ray reads its settings from the environment, once.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

STARTED = "node.json"
"""File in the node's folder that says, once the node is there, which it is and where its cluster is."""


@dataclass(frozen=True)
class NodeSettings:
    """How to start a node."""

    folder: str
    """Where Ray keeps the node's files; private, and with a short path."""
    cpus: int
    """Worker places."""
    head_address: str | None
    """The cluster to join, as host:port; None: the node is the head of a new one."""
    port: int
    """Where a head listens; 0 for other nodes."""
    object_store_bytes: int | None
    """Shared memory for objects; None: as much as Ray finds right for a node that is alone on its machine."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def start(settings: NodeSettings) -> dict[str, str]:
    """Start a node; returns its `node_id` and the `address` of its cluster. Raises what Ray raises."""
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    head = settings.head_address is None
    parameters = RayParams(
        num_cpus=settings.cpus,
        num_gpus=0,
        temp_dir=settings.folder,
        object_store_memory=settings.object_store_bytes,
        gcs_address=settings.head_address,
        gcs_server_port=settings.port if head else None,
        min_worker_port=0,  # any free one: the ranges that Ray takes otherwise would be those of every node
        max_worker_port=0,
        node_manager_port=0,
        object_manager_port=0,
        include_dashboard=False,
        include_log_monitor=False,
        no_monitor=True,  # it is for autoscaling
    )
    node = Node(parameters, head=head, shutdown_at_exit=False, spawn_reaper=False)
    return {"node_id": node.node_id, "address": node.gcs_address}


def main() -> None:
    """Start the node that the only argument describes."""
    settings = NodeSettings(**json.loads(sys.argv[1]))
    (Path(settings.folder) / STARTED).write_text(json.dumps(start(settings)))
