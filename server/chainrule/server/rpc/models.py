"""ModelService."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from chainrule.server.errors import InvalidRequestError
from chainrule.server.models import ModelCatalog
from chainrule.server.rpc import convert
from chainrule.server.rpc.caller import caller
from chainrule.server.rpc.paging import page_request
from chainrule.v1 import model_pb2, model_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Translates between ModelService and the model catalog."""

    def __init__(self, models: ModelCatalog) -> None:
        self._models = models

    async def CreateModel(self, request: model_pb2.CreateModelRequest, context: Context) -> model_pb2.Model:
        if request.model.WhichOneof("architecture") != "builtin":
            raise InvalidRequestError.of("model.architecture", "is not set; set model.builtin")
        created = await asyncio.to_thread(
            self._models.create,
            request.model_id,
            family=request.model.builtin.family,
            config=convert.struct_to_dict(request.model.builtin.config, field="model.builtin.config"),
            weights_digest=request.model.weights_digest,
            init_seed=request.model.init_seed,
            allow_missing=list(request.allow_missing),
            tenant=caller().tenant,
        )
        return convert.model(created)

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Context) -> model_pb2.Model:
        return convert.model(await asyncio.to_thread(self._models.get, request.name))

    async def ListModels(self, request: model_pb2.ListModelsRequest, context: Context) -> model_pb2.ListModelsResponse:
        asked = page_request(request.page_size, request.page_token, filter=request.filter, order_by=request.order_by)
        page, token = await asyncio.to_thread(self._models.page, asked)
        return model_pb2.ListModelsResponse(models=map(convert.model, page), next_page_token=token)
