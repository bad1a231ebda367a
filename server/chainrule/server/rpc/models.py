"""ModelService."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from typing import Any

from google.protobuf.empty_pb2 import Empty

from chainrule.server.architecture import Architecture, Builtin, CodeArchitecture, GraphArchitecture
from chainrule.server.models import ModelCatalog
from chainrule.server.rpc import convert
from chainrule.server.rpc.caller import caller
from chainrule.server.rpc.masks import annotation_change
from chainrule.server.rpc.paging import page_request
from chainrule.server.rpc.wrapping import Context
from chainrule.server.store import Request
from chainrule.v1 import model_pb2, model_pb2_grpc


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Translates between ModelService and the model catalog."""

    def __init__(self, models: ModelCatalog) -> None:
        self._models = models

    async def CreateModel(self, request: model_pb2.CreateModelRequest, context: Context) -> model_pb2.Model:
        architecture = convert.architecture(request.model)
        asked: dict[str, Any] = {
            "weights_digest": request.model.weights_digest,
            "init_seed": request.model.init_seed,
            "allow_missing": list(request.allow_missing),
            "labels": dict(request.model.labels),
            "description": request.model.description,
            "class_labels": list(request.model.class_labels),
        }
        created = await asyncio.to_thread(
            self._models.create,
            request.model_id,
            architecture=architecture,
            **asked,
            tenant=caller().tenant,
            request=Request.of(request.request_id, model_id=request.model_id, **_values(architecture), **asked),
            validate_only=request.validate_only,
        )
        return convert.model(created)

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Context) -> model_pb2.Model:
        return convert.model(await asyncio.to_thread(self._models.get, request.name, tenant=caller().tenant))

    async def ListModels(self, request: model_pb2.ListModelsRequest, context: Context) -> model_pb2.ListModelsResponse:
        asked = page_request(request.page_size, request.page_token, filter=request.filter, order_by=request.order_by)
        page, token = await asyncio.to_thread(self._models.page, asked, tenant=caller().tenant)
        return model_pb2.ListModelsResponse(models=map(convert.model, page), next_page_token=token)

    async def UpdateModel(self, request: model_pb2.UpdateModelRequest, context: Context) -> model_pb2.Model:
        updated = await asyncio.to_thread(
            self._models.update,
            request.model.name,
            annotation_change(request.model, request.update_mask),
            tenant=caller().tenant,
            etag=request.model.etag,
        )
        return convert.model(updated)

    async def DeleteModel(self, request: model_pb2.DeleteModelRequest, context: Context) -> Empty:
        await asyncio.to_thread(
            self._models.delete,
            request.name,
            tenant=caller().tenant,
            etag=request.etag,
            allow_missing=request.allow_missing,
        )
        return Empty()

    async def GetModelVersion(
        self, request: model_pb2.GetModelVersionRequest, context: Context
    ) -> model_pb2.ModelVersion:
        version = await asyncio.to_thread(self._models.version, request.name, tenant=caller().tenant)
        return convert.model_version(version)

    async def ListModelVersions(
        self, request: model_pb2.ListModelVersionsRequest, context: Context
    ) -> model_pb2.ListModelVersionsResponse:
        asked = page_request(request.page_size, request.page_token)
        page, token = await asyncio.to_thread(self._models.versions, request.parent, asked, tenant=caller().tenant)
        return model_pb2.ListModelVersionsResponse(
            model_versions=map(convert.model_version, page), next_page_token=token
        )

    async def DeleteModelVersion(self, request: model_pb2.DeleteModelVersionRequest, context: Context) -> Empty:
        await asyncio.to_thread(
            self._models.delete_version,
            request.name,
            tenant=caller().tenant,
            allow_missing=request.allow_missing,
        )
        return Empty()


def _values(architecture: Architecture) -> dict[str, object]:
    """An architecture as what the digest of a request is made of; that of a family as ever, so that calls of before
    graphs are known again."""
    match architecture:
        case Builtin(family, config):
            return {"family": family, "config": config}
        case GraphArchitecture(digest):
            return {"graph": digest}
        case CodeArchitecture():
            return {"code": asdict(replace(architecture, content=b"")) | {"content": None}}
