"""DatasetService over a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2

from chainrule.engine import io
from chainrule.server.blobs import BlobStore
from chainrule.server.datasets import DatasetCatalog
from chainrule.server.rpc.datasets import DatasetServicer
from chainrule.server.store import Store
from chainrule.server.tenant_blobs import TenantBlobs
from chainrule.v1 import dataset_pb2, dataset_pb2_grpc
from tests.server.rpc.tenants import AsTenant, channel_to, detail
from tests.server.store.catalogued import add_job

Stub: TypeAlias = "dataset_pb2_grpc.DatasetServiceAsyncStub"


@pytest.fixture
def as_tenant() -> AsTenant:
    return AsTenant()


@pytest.fixture
async def stub(store: Store, blobs: BlobStore, as_tenant: AsTenant) -> AsyncIterator[Stub]:
    servicer = DatasetServicer(DatasetCatalog(store, blobs, TenantBlobs(blobs, store, are_apart=False)))
    async with channel_to(
        lambda server: dataset_pb2_grpc.add_DatasetServiceServicer_to_server(servicer, server), as_tenant=as_tenant
    ) as channel:
        yield dataset_pb2_grpc.DatasetServiceStub(channel)


@pytest.fixture
def digest(blobs: BlobStore) -> str:
    """Of a blob of four examples."""
    return blobs.put(io.save({"inputs": np.zeros((4, 3), np.float32), "targets": np.arange(4)}))


def creation(dataset_id: str, digest: str, *, request_id: str = "", validate_only: bool = False, **fields: Any) -> Any:
    return dataset_pb2.CreateDatasetRequest(
        dataset_id=dataset_id,
        dataset=dataset_pb2.Dataset(digest=digest, **fields),
        request_id=request_id,
        validate_only=validate_only,
    )


async def test_a_dataset_is_created_found_listed_changed_and_removed(stub: Stub, digest: str) -> None:
    made = await stub.CreateDataset(creation("d", digest, labels={"team": "vision"}))
    assert (made.name, made.num_examples, dict(made.labels)) == ("datasets/d", 4, {"team": "vision"})
    assert await stub.GetDataset(dataset_pb2.GetDatasetRequest(name="datasets/d")) == made
    wanted = dataset_pb2.ListDatasetsRequest(filter='num_examples > 3 AND labels.team = "vision"', order_by="name")
    assert list((await stub.ListDatasets(wanted)).datasets) == [made]
    wanted.filter = "num_examples > 4 OR NOT labels:team"
    assert list((await stub.ListDatasets(wanted)).datasets) == []
    update = dataset_pb2.UpdateDatasetRequest(
        dataset=dataset_pb2.Dataset(name="datasets/d", description="new"), update_mask=FieldMask(paths=["*"])
    )
    changed = await stub.UpdateDataset(update)
    assert (dict(changed.labels), changed.description, changed.etag != made.etag) == ({}, "new", True)
    stale = dataset_pb2.DeleteDatasetRequest(name="datasets/d", etag=made.etag)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.DeleteDataset(stale)
    assert caught.value.code() is grpc.StatusCode.ABORTED
    await stub.DeleteDataset(dataset_pb2.DeleteDatasetRequest(name="datasets/d", etag=changed.etag))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.DeleteDataset(stale)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert detail(caught, error_details_pb2.ResourceInfo).resource_type == "chainrule.v1.Dataset"
    stale.allow_missing = True
    await stub.DeleteDataset(stale)


async def test_what_a_job_trains_or_validates_on_is_not_removed(stub: Stub, digest: str, store: Store) -> None:
    for dataset_id in ("d", "v", "free"):
        await stub.CreateDataset(creation(dataset_id, digest))
    add_job(store, validation="datasets/v")
    for name in ("datasets/d", "datasets/v"):
        with pytest.raises(grpc.aio.AioRpcError, match='is in use by "jobs/j"') as caught:
            await stub.DeleteDataset(dataset_pb2.DeleteDatasetRequest(name=name, allow_missing=True))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert detail(caught, error_details_pb2.ResourceInfo).resource_name == name
    await stub.DeleteDataset(dataset_pb2.DeleteDatasetRequest(name="datasets/free"))


async def test_a_repeated_request_id_is_answered_even_without_the_blob(
    stub: Stub, digest: str, blobs: BlobStore
) -> None:
    made = await stub.CreateDataset(creation("d", digest, request_id="r"))
    blobs.discard([digest], lambda digests: digests)
    assert await stub.CreateDataset(creation("d", digest, request_id="r")) == made
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateDataset(creation("d", "0" * 64, request_id="r"))
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateDataset(creation("d", digest))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert detail(caught, error_details_pb2.ResourceInfo) == error_details_pb2.ResourceInfo(
        resource_type="chainrule.v1.Blob", resource_name=digest
    )


async def test_checking_only_answers_and_leaves_nothing(stub: Stub, digest: str) -> None:
    would_be = await stub.CreateDataset(creation("d", digest, validate_only=True, request_id="r"))
    assert (would_be.name, would_be.num_examples) == ("datasets/d", 4)
    assert list((await stub.ListDatasets(dataset_pb2.ListDatasetsRequest())).datasets) == []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateDataset(creation("d", "0" * 64, validate_only=True))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError, match=r"dataset\.labels\['B'\]: is no key of a label"):
        await stub.CreateDataset(creation("d", digest, validate_only=True, labels={"B": ""}))


async def test_another_tenants_datasets_are_not_found(stub: Stub, digest: str, as_tenant: AsTenant) -> None:
    await stub.CreateDataset(creation("d", digest))
    as_tenant.tenant = "other"
    for call in (
        stub.GetDataset(dataset_pb2.GetDatasetRequest(name="datasets/d")),
        stub.UpdateDataset(dataset_pb2.UpdateDatasetRequest(dataset=dataset_pb2.Dataset(name="datasets/d"))),
        stub.DeleteDataset(dataset_pb2.DeleteDatasetRequest(name="datasets/d")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert list((await stub.ListDatasets(dataset_pb2.ListDatasetsRequest())).datasets) == []
