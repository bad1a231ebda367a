"""The whole service on a loopback port, without Ray, and callers of it with tokens of several tenants."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
from google.protobuf import descriptor_pool, message_factory

from chainrule.engine import io
from chainrule.server.access import NewToken, TokenCatalog, digest_of, draw_secret
from chainrule.server.cluster import RayCluster
from chainrule.server.config import ServerConfig
from chainrule.server.data_folder import open_store, own
from chainrule.server.service import Service
from chainrule.v1 import (
    access_pb2,
    access_pb2_grpc,
    blob_pb2,
    blob_pb2_grpc,
    cluster_pb2_grpc,
    dataset_pb2,
    dataset_pb2_grpc,
    job_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from tests.server.jobs.service_parts import FakeLauncher, FixedCapacity

Metadata = tuple[tuple[str, str], ...]


class NoCluster(FixedCapacity):
    """A cluster of some CPUs and no nodes."""

    address = "nowhere:0"
    owned = False

    async def nodes(self) -> list[Any]:
        return []


def make_token(
    folder: Path, token_id: str, *, tenant: str, scopes: Sequence[str], expire_time: datetime | None = None
) -> str:
    """Put a token into the data folder of a service that does not run; returns its secret."""
    secret = draw_secret()
    new = NewToken(token_id, tenant, tuple(scopes), digest_of(secret), expire_time=expire_time)
    with own(folder):
        store = open_store(folder)
        TokenCatalog(store).create(new, tenant="default")
        store.close()
    return secret


@asynccontextmanager
async def serving(config: ServerConfig, launcher: FakeLauncher | None = None) -> AsyncIterator[Service]:
    cluster = cast(RayCluster, NoCluster(4))
    async with Service(replace(config, port=0, grace_s=0.2), cluster, launcher or FakeLauncher()) as service:
        yield service


@dataclass
class Caller:
    """Calls of one who shows a token; empty: none."""

    channel: grpc.aio.Channel
    secret: str = ""
    metadata: Metadata = field(init=False)

    def __post_init__(self) -> None:
        self.metadata = (("authorization", f"Bearer {self.secret}"),) if self.secret else ()
        self.access: Any = access_pb2_grpc.AccessServiceStub(self.channel)
        self.blobs: Any = blob_pb2_grpc.BlobServiceStub(self.channel)
        self.cluster: Any = cluster_pb2_grpc.ClusterServiceStub(self.channel)
        self.datasets: Any = dataset_pb2_grpc.DatasetServiceStub(self.channel)
        self.jobs: Any = job_pb2_grpc.JobServiceStub(self.channel)
        self.models: Any = model_pb2_grpc.ModelServiceStub(self.channel)

    async def upload(self, content: bytes, *, sent: bytes | None = None, offset_bytes: int = 0) -> blob_pb2.Blob:
        """Upload a blob; `sent` is what is sent of it from the offset on, by default all of it."""
        blob = blob_pb2.Blob(digest=sha256(content), size_bytes=len(content))
        parts = [blob_pb2.WriteBlobRequest(blob=blob, write_offset_bytes=offset_bytes)]
        sent = content if sent is None else sent
        if sent:
            parts.append(blob_pb2.WriteBlobRequest(chunk=sent))
        return cast(blob_pb2.Blob, await self.blobs.WriteBlob(iter(parts), metadata=self.metadata))

    async def download(self, digest: str) -> bytes:
        request = blob_pb2.ReadBlobRequest(digest=digest)
        return b"".join([part.chunk async for part in self.blobs.ReadBlob(request, metadata=self.metadata)])

    async def missing(self, *digests: str) -> list[str]:
        request = blob_pb2.FindMissingBlobsRequest(digests=digests)
        return list((await self.blobs.FindMissingBlobs(request, metadata=self.metadata)).missing_digests)

    async def create_model(self, model_id: str, *, weights_digest: str = "") -> model_pb2.Model:
        model = model_pb2.Model(builtin=model_pb2.Builtin(family="small_cnn"), weights_digest=weights_digest)
        model.builtin.config.update({"width": 2})
        request = model_pb2.CreateModelRequest(model_id=model_id, model=model)
        return cast(model_pb2.Model, await self.models.CreateModel(request, metadata=self.metadata))

    async def create_dataset(self, dataset_id: str, digest: str) -> dataset_pb2.Dataset:
        request = dataset_pb2.CreateDatasetRequest(dataset_id=dataset_id, dataset=dataset_pb2.Dataset(digest=digest))
        return cast(dataset_pb2.Dataset, await self.datasets.CreateDataset(request, metadata=self.metadata))

    async def create_token(self, token_id: str, *, tenant: str = "", scopes: Sequence[str] = ("read",)) -> str:
        """Make a token; returns its secret."""
        secret = draw_secret()
        token = access_pb2.Token(tenant=tenant, scopes=scopes, secret_digest=digest_of(secret))
        request = access_pb2.CreateTokenRequest(token_id=token_id, token=token)
        await self.access.CreateToken(request, metadata=self.metadata)
        return secret

    async def revoke(self, token_id: str) -> access_pb2.Token:
        request = access_pb2.RevokeTokenRequest(name=f"tokens/{token_id}")
        return cast(access_pb2.Token, await self.access.RevokeToken(request, metadata=self.metadata))

    async def audit(self) -> list[access_pb2.AuditEntry]:
        """All entries, newest first."""
        request = access_pb2.ListAuditEntriesRequest(page_size=1000)
        return list((await self.access.ListAuditEntries(request, metadata=self.metadata)).audit_entries)


def call_of(caller: Caller, path: str) -> tuple[Any, Any]:
    """A method of the API by its path, for example "/chainrule.v1.JobService/GetJob", and an empty request for it."""
    service, _, name = path[1:].rpartition("/")
    method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    request, response = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
    kinds = ("stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming))
    make = getattr(caller.channel, "_".join(kinds))
    return make(path, request.SerializeToString, response.FromString), request()


async def code_of(call: Any) -> grpc.StatusCode:
    """How a call, unary or streaming, ends."""
    error = await ended(call)
    return grpc.StatusCode.OK if error is None else error.code()


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """The error that a call, unary or streaming, ends with."""
    error = await ended(call)
    assert error is not None
    return error


async def ended(call: Any) -> grpc.aio.AioRpcError | None:
    try:
        _ = [response async for response in call] if hasattr(call, "__aiter__") else await call
    except grpc.aio.AioRpcError as error:
        return error
    return None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def dataset_content() -> bytes:
    """The blob of a small dataset."""
    inputs = np.arange(4 * 64, dtype=np.float32).reshape(4, 1, 8, 8)
    return io.save({"inputs": inputs, "targets": np.array([0, 1, 2, 1])})
