"""DatasetService."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from chainrule.server.datasets import DatasetCatalog
from chainrule.server.rpc import convert
from chainrule.server.rpc.caller import caller
from chainrule.server.rpc.paging import page_request
from chainrule.v1 import dataset_pb2, dataset_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class DatasetServicer(dataset_pb2_grpc.DatasetServiceServicer):
    """Translates between DatasetService and the dataset catalog."""

    def __init__(self, datasets: DatasetCatalog) -> None:
        self._datasets = datasets

    async def CreateDataset(self, request: dataset_pb2.CreateDatasetRequest, context: Context) -> dataset_pb2.Dataset:
        created = await asyncio.to_thread(
            self._datasets.create, request.dataset_id, digest=request.dataset.digest, tenant=caller().tenant
        )
        return convert.dataset(created)

    async def GetDataset(self, request: dataset_pb2.GetDatasetRequest, context: Context) -> dataset_pb2.Dataset:
        return convert.dataset(await asyncio.to_thread(self._datasets.get, request.name))

    async def ListDatasets(
        self, request: dataset_pb2.ListDatasetsRequest, context: Context
    ) -> dataset_pb2.ListDatasetsResponse:
        asked = page_request(request.page_size, request.page_token, filter=request.filter, order_by=request.order_by)
        page, token = await asyncio.to_thread(self._datasets.page, asked)
        return dataset_pb2.ListDatasetsResponse(datasets=map(convert.dataset, page), next_page_token=token)
