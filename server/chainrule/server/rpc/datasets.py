"""DatasetService."""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.empty_pb2 import Empty

from chainrule.server.datasets import DatasetCatalog
from chainrule.server.rpc import convert
from chainrule.server.rpc.caller import caller
from chainrule.server.rpc.masks import annotation_change
from chainrule.server.rpc.paging import page_request
from chainrule.server.rpc.wrapping import Context
from chainrule.server.store import Request
from chainrule.v1 import dataset_pb2, dataset_pb2_grpc


class DatasetServicer(dataset_pb2_grpc.DatasetServiceServicer):
    """Translates between DatasetService and the dataset catalog."""

    def __init__(self, datasets: DatasetCatalog) -> None:
        self._datasets = datasets

    async def CreateDataset(self, request: dataset_pb2.CreateDatasetRequest, context: Context) -> dataset_pb2.Dataset:
        asked: dict[str, Any] = {
            "digest": request.dataset.digest,
            "labels": dict(request.dataset.labels),
            "description": request.dataset.description,
            "class_labels": tuple(request.dataset.class_labels),
            "source_uri": request.dataset.source_uri,
        }
        created = await asyncio.to_thread(
            self._datasets.create,
            request.dataset_id,
            **asked,
            tenant=caller().tenant,
            request=Request.of(request.request_id, dataset_id=request.dataset_id, **asked),
            validate_only=request.validate_only,
        )
        return convert.dataset(created)

    async def GetDataset(self, request: dataset_pb2.GetDatasetRequest, context: Context) -> dataset_pb2.Dataset:
        return convert.dataset(await asyncio.to_thread(self._datasets.get, request.name, tenant=caller().tenant))

    async def ListDatasets(
        self, request: dataset_pb2.ListDatasetsRequest, context: Context
    ) -> dataset_pb2.ListDatasetsResponse:
        asked = page_request(request.page_size, request.page_token, filter=request.filter, order_by=request.order_by)
        page, token = await asyncio.to_thread(self._datasets.page, asked, tenant=caller().tenant)
        return dataset_pb2.ListDatasetsResponse(datasets=map(convert.dataset, page), next_page_token=token)

    async def UpdateDataset(self, request: dataset_pb2.UpdateDatasetRequest, context: Context) -> dataset_pb2.Dataset:
        updated = await asyncio.to_thread(
            self._datasets.update,
            request.dataset.name,
            annotation_change(request.dataset, request.update_mask),
            tenant=caller().tenant,
            etag=request.dataset.etag,
        )
        return convert.dataset(updated)

    async def DeleteDataset(self, request: dataset_pb2.DeleteDatasetRequest, context: Context) -> Empty:
        await asyncio.to_thread(
            self._datasets.delete,
            request.name,
            tenant=caller().tenant,
            etag=request.etag,
            allow_missing=request.allow_missing,
        )
        return Empty()
