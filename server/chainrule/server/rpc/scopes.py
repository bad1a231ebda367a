"""What each method of the API needs, as its name and its service tell."""

from __future__ import annotations

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from chainrule.v1 import access_pb2, blob_pb2, cluster_pb2, dataset_pb2, job_pb2, model_pb2, predict_pb2

_READING = ("Find", "Get", "List", "Predict", "Query", "ReadBlob", "Stream", "Watch")
"""Beginnings of the names of methods that change nothing."""
_MODULES = (access_pb2, blob_pb2, cluster_pb2, dataset_pb2, job_pb2, model_pb2, predict_pb2)
_DESCRIPTORS: tuple[ServiceDescriptor, ...] = tuple(
    descriptor for module in _MODULES for descriptor in module.DESCRIPTOR.services_by_name.values()
)

SERVICES = tuple(descriptor.full_name for descriptor in _DESCRIPTORS)
"""Full names of the API's services."""


def _scope(method: MethodDescriptor) -> str:
    if method.containing_service.name == "AccessService":
        return "admin"
    return "read" if method.name.startswith(_READING) else "submit"


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


SCOPE_OF: dict[str, str] = {_path(method): _scope(method) for service in _DESCRIPTORS for method in service.methods}
"""The scope that each method needs, by its path, for example "/chainrule.v1.JobService/CreateJob"."""
CHANGING = frozenset(
    _path(method) for service in _DESCRIPTORS for method in service.methods if not method.name.startswith(_READING)
)
"""Paths of the methods that change something."""
