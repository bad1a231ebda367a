"""What each method needs."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import descriptor_pool

import chainrule.v1.blob_pb2
from chainrule.server.rpc.scopes import CHANGING, SCOPE_OF, SERVICES

READ = {
    "BlobService": {"FindMissingBlobs", "QueryWriteStatus", "ReadBlob"},
    "ClusterService": {"GetServerInfo", "ListNodes"},
    "DatasetService": {"GetDataset", "ListDatasets"},
    "JobService": {
        "GetJob",
        "ListCheckpoints",
        "ListJobs",
        "ListLogs",
        "ListMetrics",
        "ListReceipts",
        "StreamLogs",
        "StreamMetrics",
        "WatchJob",
    },
    "ModelService": {"GetModel", "GetModelVersion", "ListModels", "ListModelVersions"},
    "PredictService": {"Predict", "StreamPredict"},
}


def test_every_method_of_every_service_has_a_scope() -> None:
    methods = set()
    for proto in sorted(Path(chainrule.v1.blob_pb2.__file__).parent.glob("*.proto")):
        file = descriptor_pool.Default().FindFileByName(f"chainrule/v1/{proto.name}")
        for service in file.services_by_name.values():
            assert service.full_name in SERVICES
            methods |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    assert SCOPE_OF.keys() == methods


def test_reading_needs_read_managing_tokens_admin_and_the_rest_submit() -> None:
    read = {f"/chainrule.v1.{service}/{name}" for service, names in READ.items() for name in names}
    admin = {path for path in SCOPE_OF if path.startswith("/chainrule.v1.AccessService/")}
    assert {path for path, scope in SCOPE_OF.items() if scope == "read"} == read
    assert {path for path, scope in SCOPE_OF.items() if scope == "admin"} == admin
    assert {path for path, scope in SCOPE_OF.items() if scope == "submit"} == SCOPE_OF.keys() - read - admin


def test_what_changes_something_is_known() -> None:
    of_tokens = {f"/chainrule.v1.AccessService/{name}" for name in ("CreateToken", "RevokeToken")}
    assert {path for path, scope in SCOPE_OF.items() if scope == "submit"} | of_tokens == CHANGING
