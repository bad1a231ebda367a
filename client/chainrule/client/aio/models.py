"""Models on the server and their versions: made from modules, ONNX files or families, and read back as such."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from chainrule.client import networks
from chainrule.client.aio import runtime
from chainrule.client.aio.blobs import AsyncBlobs, Received, Transferred
from chainrule.client.aio.channel import AsyncConnection
from chainrule.client.aio.paging import page_size, take
from chainrule.client.aio.predictions import AsyncPredictions
from chainrule.client.augmentation import read_transforms
from chainrule.client.errors import FailedPrecondition, InvalidInputError
from chainrule.client.prediction import Prediction
from chainrule.client.resources import ModelRecord, model_fields
from chainrule.client.wire import (
    UINT64,
    moment,
    name_of,
    new_request_id,
    put,
    put_changes,
    put_labels,
    texts,
    version_name,
)
from chainrule.engine import io, nn
from chainrule.v1 import model_pb2, model_pb2_grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncModel(ModelRecord):
    """A named architecture with weights to start training from, as it was when it was asked for."""

    _service: "AsyncModels" = field(repr=False, compare=False)

    async def weights(self, *, received: Received | None = None) -> dict[str, np.ndarray]:
        """The weights of its newest version, state_dict name → array, checked against their digest.

        Raises:
            NotFound: it was removed.
            DataLoss: what arrived has another digest.
        """
        return await (await self._service.version(self.name)).weights(received=received)

    async def state_dict(self, framework: str = "numpy") -> dict[str, Any]:
        """The weights of its newest version under all the names of the module that it was made of.

        Args:
            framework: "numpy" for arrays, "torch" for tensors, which `load_state_dict` of that module takes.

        Raises:
            InvalidInputError: there is no such framework, or PyTorch is not installed.
        """
        return await self._service.state_dict(self, await self.weights(), framework)

    async def predict(
        self,
        x: ArrayLike | Mapping[str, ArrayLike],
        *,
        tokens: bool = False,
        batch_size: int | None = None,
        alone: bool = False,
        prepared: bool = False,
    ) -> Prediction:
        """What the network makes of some examples with the weights of its newest version; see `AsyncClient.predict`."""
        return await self._service.predict(
            self, x, tokens=tokens, batch_size=batch_size, alone=alone, prepared=prepared
        )

    async def source(self) -> str:
        """The Python file that makes the network, to be read: it is not run.

        Raises:
            InvalidInputError: the model is no code.
        """
        return await self._service.source(self)

    async def module(self, *, code: str | Path | None = None) -> nn.Module:
        """A module of the engine with the weights of its newest version.

        Args:
            code: of a model that is Python code, the file that makes it, which is then run here; it must be the one
                that the model was created with. What a server has is never run by itself: see `source`.

        Raises:
            InvalidInputError: the model is code and there is no file, or another one; or the file fails.
        """
        return await self._service.module(self, await self.weights(), code=code)

    async def save(self, path: str | Path, *, example: object = None) -> None:
        """Write its newest version to a file: all of it as .onnx, for inference, or its weights as .safetensors or
        .pth, which `torch.load` reads with `weights_only=True`.

        Args:
            path: the name says the format.
            example: a batch of inputs, which a model of a family needs to be written as .onnx.

        Raises:
            InvalidInputError: the name says no format, the file cannot be written, or there is no example; or it would
                be the .onnx file of a model that is code.
        """
        target = networks.check_format(path)
        await self._service.save(self, await self.weights(), target, example)


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncModelVersion:
    """Weights of a model: the first version is what it was created with, each other one is what a job has made."""

    name: str
    """Resource name, for example "models/digits/versions/2"."""
    weights_digest: str | None
    """SHA-256 of the weights as a safetensors file; None where the server initialises them."""
    job: str | None
    """Resource name of the job that has made it; None: the model was created with it."""
    parent_version: str | None
    """Resource name of the version that the job began with; None for the first."""
    dataset: str | None
    """Resource name of the dataset it was trained on; None for the first."""
    dataset_digest: str | None
    """SHA-256 of that dataset."""
    step: int
    """Steps of the job after which the weights were taken; 0 for the first."""
    create_time: datetime
    """When it was made, in UTC."""
    preparation: tuple[Mapping[str, Any], ...]
    """What was done to the images that it was trained on and evaluated with, in order, as `Augmentation.transforms` has
    it: "resize" and "normalize" of its job. `predict` has it done; who computes with the weights does it first, on
    numbers (bytes divided by 255). Empty: nothing."""
    class_labels: tuple[str, ...]
    """What its classes are called, from the dataset it was trained on; empty: as `Model.class_labels` says."""
    _blobs: AsyncBlobs = field(repr=False, compare=False)
    _predictions: AsyncPredictions = field(repr=False, compare=False)

    @property
    def number(self) -> int:
        """Its number among the versions of its model, from 1."""
        return int(self.name.rpartition("/")[2])

    async def weights_file(self, *, received: Received | None = None) -> bytes:
        """The weights as a safetensors file, checked against their digest.

        Args:
            received: called with the bytes received so far.

        Raises:
            FailedPrecondition: the server initialises them when a job begins; there is no file of them.
            DataLoss: what arrived has another digest.
        """
        if self.weights_digest is None:
            raise FailedPrecondition(f"{self.name} has no file of weights: the server initialises them from a seed")
        return await self._blobs.download(self.weights_digest, received=received)

    async def weights(self, *, received: Received | None = None) -> dict[str, np.ndarray]:
        """The weights, state_dict name → array, checked against their digest; else as `weights_file`."""
        return await runtime.compute(io.load, await self.weights_file(received=received))

    async def predict(
        self,
        x: ArrayLike | Mapping[str, ArrayLike],
        *,
        tokens: bool = False,
        batch_size: int | None = None,
        alone: bool = False,
        prepared: bool = False,
    ) -> Prediction:
        """What the network makes of some examples with these weights; see `AsyncClient.predict`."""
        return await self._predictions.predict(
            self, x, tokens=tokens, batch_size=batch_size, alone=alone, prepared=prepared
        )


class AsyncModels:
    """The models of a server."""

    def __init__(self, connection: AsyncConnection, blobs: AsyncBlobs) -> None:
        self._connection = connection
        self._blobs = blobs
        self._predictions = AsyncPredictions(connection)
        self._stub = model_pb2_grpc.ModelServiceStub(connection.channel)

    async def create(
        self,
        model_id: str,
        network: networks.Network,
        *,
        config: Mapping[str, Any] | None = None,
        factory: str | None = None,
        example: object = None,
        weights: networks.Weights | None = None,
        class_labels: Sequence[str] = (),
        allow_missing: Sequence[str] = (),
        init_seed: int = 0,
        labels: Mapping[str, str] | None = None,
        description: str = "",
        request_id: str | None = None,
        transferred: Transferred | None = None,
    ) -> AsyncModel:
        """Make a model of a network, with the weights that it has, or others.

        The same name with the same architecture and weights gives the model that is already there.

        Args:
            model_id: last part of the name: lower-case letters, digits and hyphens, at most 63.
            network: a module of `chainrule.engine`; a `torch.nn.Module`, which stays as it is; an ONNX file, as its
                path or its bytes, whose initializers are the weights; the name of a family that the server knows; or
                the path of a Python file (.py), which is run here once and then by the workers of jobs, if the server
                allows it (--allow-code).
            config: with the name of a family, what it should not take its default for; with a Python file, the keyword
                arguments of its factory.
            factory: with a Python file, the function or class in it that makes the network. Default "build".
            example: a batch of inputs, whose first dimension counts examples, or a tuple of several, or, for a module
                of PyTorch, several by the names that `forward` has for them: a module that is
                not of a family is run on it once. Shapes and dtypes matter, values do not.
            weights: in place of the network's own: a state_dict of arrays or tensors, or the path of a safetensors or
                .pth file. Without any, the server initialises a family from `init_seed`.
            class_labels: what the classes are called, in the order of the outputs.
            init_seed: of what the server initialises, or the factory of a Python file draws.
            allow_missing: patterns of names, as in a shell, that `weights` may lack or hold in another shape, as
                ["fc.*"] where a head is replaced. The server initialises those of a family from `init_seed`, and the
                model's weights_digest is that of the completed weights.
            labels: notes to find it by, as {"team": "vision"}.
            description: what it is for, at most 1,000 characters.
            request_id: makes calls with the same id one; by default only a call's own repetitions are.
            transferred: called with the bytes of weights sent so far and in all.

        Warns:
            UserWarning: what is odd about the network, though it can be trained; `Model.warnings` keeps it.

        Raises:
            InvalidInputError: the network cannot be sent, or does not take the example; or an argument is none.
            GraphError: the graph is malformed, or has operators that cannot be trained; they are all named.
            AlreadyExists: the name is taken by another model.
            InvalidArgument: the server refuses the name, the architecture or the weights.
            FailedPrecondition: the network is a Python file, and the server does not allow that.
        """
        parcel = await self._connection.compute(
            networks.parcel,
            network,
            config=config,
            example=example,
            weights=weights,
            factory=factory,
            seed=init_seed,
        )
        message = parcel.message()
        put(message, "init_seed", init_seed, allowed=UINT64)
        put(message, "description", description, allowed="a text")
        put_labels(message, labels or {})
        message.class_labels.extend(texts("class_labels", class_labels))
        patterns = parcel.check_missing(texts("allow_missing", allow_missing))
        await self._upload(parcel, message, transferred)
        request = model_pb2.CreateModelRequest(
            model_id=model_id, model=message, allow_missing=patterns, request_id=new_request_id(request_id)
        )
        made = self._model(await self._connection.call(self._stub.CreateModel, request))
        for warning in made.warnings:
            warnings.warn(f"{made.name}: {warning}", stacklevel=2)
        return made

    async def _upload(self, parcel: networks.Parcel, message: model_pb2.Model, transferred: Transferred | None) -> None:
        """Send what a network is made of, and put the digests of it into the message."""
        if parcel.file:
            parcel.put_digest(message, await self._blobs.upload(parcel.file))
        if parcel.weights is not None:
            content = await self._connection.compute(io.save, parcel.weights)
            message.weights_digest = await self._blobs.upload(content, transferred=transferred)

    async def create_from_family(
        self,
        model_id: str,
        family: str,
        config: Mapping[str, Any] | None = None,
        *,
        weights: networks.Weights | None = None,
        class_labels: Sequence[str] = (),
        allow_missing: Sequence[str] = (),
        init_seed: int = 0,
        labels: Mapping[str, str] | None = None,
        description: str = "",
        request_id: str | None = None,
        transferred: Transferred | None = None,
    ) -> AsyncModel:
        """Make a model of a family the server knows, without making it here: as `create` with the name of a family."""
        return await self.create(
            model_id,
            networks.Family(family),
            config=config,
            weights=weights,
            class_labels=class_labels,
            allow_missing=allow_missing,
            init_seed=init_seed,
            labels=labels,
            description=description,
            request_id=request_id,
            transferred=transferred,
        )

    async def get(self, name: str) -> AsyncModel:
        """The model of this name, "digits" or "models/digits".

        Raises:
            NotFound: there is none.
        """
        request = model_pb2.GetModelRequest(name=name_of("models", name))
        return self._model(await self._connection.call(self._stub.GetModel, request))

    async def list(self, *, filter: str = "", order_by: str = "", limit: int | None = None) -> tuple[AsyncModel, ...]:
        """The models, newest first unless told otherwise; at most `limit`.

        Args:
            filter: which, as in AIP-160: 'family = "small_cnn" AND labels.team = "vision"'.
            order_by: a field, and " desc" for the falling order: "name", "create_time desc".

        Raises:
            InvalidArgument: the server cannot read `filter` or `order_by`.
        """

        async def read_page(token: str) -> model_pb2.ListModelsResponse:
            request = model_pb2.ListModelsRequest(
                page_size=page_size(limit), page_token=token, filter=filter, order_by=order_by
            )
            return await self._connection.call(self._stub.ListModels, request)

        return await take(read_page, lambda page: map(self._model, page.models), limit=limit)

    async def update(
        self,
        model: ModelRecord | str,
        *,
        labels: Mapping[str, str] | None = None,
        description: str | None = None,
        etag: str | None = None,
    ) -> AsyncModel:
        """Change labels or description of a model; what is None stays.

        Args:
            labels: all that it has from now on.
            etag: what the model must still have.

        Raises:
            InvalidInputError: nothing is to be changed.
            NotFound: there is no such model.
            Aborted: it has another etag by now.
        """
        message = model_pb2.Model(name=name_of("models", model))
        mask = put_changes(message, labels=labels, description=description, etag=etag)
        request = model_pb2.UpdateModelRequest(model=message, update_mask=mask)
        return self._model(await self._connection.call(self._stub.UpdateModel, request))

    async def delete(self, model: ModelRecord | str, *, etag: str | None = None, missing_ok: bool = False) -> None:
        """Remove a model with all its versions.

        Args:
            etag: what the model must still have.
            missing_ok: whether one that is not there counts as removed.

        Raises:
            NotFound: there is no such model.
            FailedPrecondition: jobs use it that have not ended.
            Aborted: it has another etag by now.
        """
        request = model_pb2.DeleteModelRequest(name=name_of("models", model), etag=etag or "", allow_missing=missing_ok)
        await self._connection.call(self._stub.DeleteModel, request)

    async def versions(self, model: ModelRecord | str, *, limit: int | None = None) -> tuple[AsyncModelVersion, ...]:
        """The versions of a model, newest first; at most `limit`.

        Raises:
            NotFound: there is no such model.
        """
        parent = name_of("models", model)

        async def read_page(token: str) -> model_pb2.ListModelVersionsResponse:
            request = model_pb2.ListModelVersionsRequest(parent=parent, page_size=page_size(limit), page_token=token)
            return await self._connection.call(self._stub.ListModelVersions, request)

        return await take(read_page, lambda page: map(self._version, page.model_versions), limit=limit)

    async def version(self, model: ModelRecord | str, number: int | None = None) -> AsyncModelVersion:
        """A version of a model, the newest unless `number` says which: ("digits", 2), or "digits/versions/2".

        Raises:
            NotFound: there is none.
        """
        request = model_pb2.GetModelVersionRequest(name=version_name(name_of("models", model), number))
        return self._version(await self._connection.call(self._stub.GetModelVersion, request))

    async def delete_version(self, version: AsyncModelVersion | str, *, missing_ok: bool = False) -> None:
        """Remove a version of a model.

        Args:
            missing_ok: whether one that is not there counts as removed.

        Raises:
            InvalidInputError: the name is that of a model, and of no version.
            NotFound: there is no such version.
            FailedPrecondition: it is the first, or jobs use it that have not ended.
        """
        name = name_of("models", version)
        if "/versions/" not in name:
            raise InvalidInputError(f'"{name}" is no version of a model, as "{name}/versions/2" would be')
        request = model_pb2.DeleteModelVersionRequest(name=name, allow_missing=missing_ok)
        await self._connection.call(self._stub.DeleteModelVersion, request)

    async def predict(
        self,
        model: ModelRecord | AsyncModelVersion | str,
        x: ArrayLike | Mapping[str, ArrayLike],
        *,
        tokens: bool = False,
        batch_size: int | None = None,
        alone: bool = False,
        prepared: bool = False,
    ) -> Prediction:
        """What the network of a model makes of some examples; see `AsyncClient.predict`."""
        return await self._predictions.predict(
            model, x, tokens=tokens, batch_size=batch_size, alone=alone, prepared=prepared
        )

    async def source(self, model: ModelRecord) -> str:
        """The Python file that makes the network of a model; see `Model.source`."""
        if model.code_digest is None:
            raise InvalidInputError(f"{model.name} is no Python code, but {model.architecture}")
        return (await self._blobs.download(model.code_digest)).decode("utf-8-sig")

    async def content(self, model: ModelRecord) -> bytes | None:
        """The graph of a model, as an ONNX file without its weights; None: it is of a family, or code."""
        return await self._blobs.download(model.graph_digest) if model.graph_digest else None

    async def state_dict(
        self, model: ModelRecord, weights: dict[str, np.ndarray], framework: str = "numpy"
    ) -> dict[str, Any]:
        """Weights of a model under all the names of the module that it was made of; see `Model.state_dict`."""
        content = await self.content(model)
        return await self._connection.compute(networks.state_dict, weights, content, framework)

    async def module(
        self, model: ModelRecord, weights: dict[str, np.ndarray], *, code: str | Path | None = None
    ) -> nn.Module:
        """A module of the engine with weights of a model; see `Model.module`."""
        if model.code_digest is not None:
            if code is None:
                raise InvalidInputError(
                    f"{model.name} is Python code, which is not run here unless you say so; give the file that it was "
                    f'created with, as module(code="{model.file_name}"), or read it with source()'
                )
            return await self._connection.compute(
                networks.module_of_code,
                code,
                model.code_digest,
                factory=model.factory,
                config=model.config,
                seed=model.init_seed,
                weights=weights,
            )
        if code is not None:
            raise InvalidInputError(f"{model.name} is no Python code, but {model.architecture}; leave code out")
        content = await self.content(model)
        return await self._connection.compute(networks.module_of, model.family, model.config, content, weights)

    async def save(
        self, model: ModelRecord, weights: dict[str, np.ndarray], path: Path, example: object = None
    ) -> None:
        """Write weights of a model to a file; see `Model.save`."""
        if model.code_digest is not None and path.suffix == networks.ONNX:
            raise InvalidInputError(
                f"{model.name} is Python code, which is not run to be written as {networks.ONNX}; write its weights as "
                ".safetensors or .pth"
            )
        content = await self.content(model)
        await self._connection.compute(
            networks.save, path, weights, content, family=model.family, config=model.config, example=example
        )

    def _model(self, message: model_pb2.Model) -> AsyncModel:
        return AsyncModel(**model_fields(message), _service=self)

    def _version(self, message: model_pb2.ModelVersion) -> AsyncModelVersion:
        return AsyncModelVersion(
            name=message.name,
            weights_digest=message.weights_digest or None,
            job=message.job or None,
            parent_version=message.parent_version or None,
            dataset=message.dataset or None,
            dataset_digest=message.dataset_digest or None,
            step=message.step,
            create_time=moment(message.create_time),
            preparation=read_transforms(message.preparation),
            class_labels=tuple(message.class_labels),
            _blobs=self._blobs,
            _predictions=self._predictions,
        )
