"""Models on the server and their versions: made from a module of the engine, or from a family and its configuration."""
# Derived from aio/models.py by client/derive.py. Change that, and run `make client`.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from chainrule.client import runtime
from chainrule.client.blobs import Blobs, Received, Transferred
from chainrule.client.channel import Connection
from chainrule.client.errors import FailedPrecondition, InvalidInputError
from chainrule.client.paging import page_size, take
from chainrule.client.prediction import Prediction
from chainrule.client.predictions import Predictions
from chainrule.client.resources import Model, model_from_message
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
from chainrule.engine import io, models, nn
from chainrule.v1 import model_pb2, model_pb2_grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
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
    _blobs: Blobs = field(repr=False, compare=False)
    _predictions: Predictions = field(repr=False, compare=False)

    @property
    def number(self) -> int:
        """Its number among the versions of its model, from 1."""
        return int(self.name.rpartition("/")[2])

    def weights_file(self, *, received: Received | None = None) -> bytes:
        """The weights as a safetensors file, checked against their digest.

        Args:
            received: called with the bytes received so far.

        Raises:
            FailedPrecondition: the server initialises them when a job begins; there is no file of them.
            DataLoss: what arrived has another digest.
        """
        if self.weights_digest is None:
            raise FailedPrecondition(f"{self.name} has no file of weights: the server initialises them from a seed")
        return self._blobs.download(self.weights_digest, received=received)

    def weights(self, *, received: Received | None = None) -> dict[str, np.ndarray]:
        """The weights, state_dict name → array, checked against their digest; else as `weights_file`."""
        return runtime.compute(io.load, self.weights_file(received=received))

    def predict(
        self,
        x: ArrayLike | Mapping[str, ArrayLike],
        *,
        tokens: bool = False,
        batch_size: int | None = None,
        alone: bool = False,
    ) -> Prediction:
        """What the network makes of some examples with these weights; see `Client.predict`."""
        return self._predictions.predict(self, x, tokens=tokens, batch_size=batch_size, alone=alone)


class Models:
    """The models of a server."""

    def __init__(self, connection: Connection, blobs: Blobs) -> None:
        self._connection = connection
        self._blobs = blobs
        self._predictions = Predictions(connection)
        self._stub = model_pb2_grpc.ModelServiceStub(connection.channel)

    def create(
        self,
        model_id: str,
        module: nn.Module,
        *,
        weights: Mapping[str, np.ndarray] | None = None,
        allow_missing: Sequence[str] = (),
        init_seed: int = 0,
        labels: Mapping[str, str] | None = None,
        description: str = "",
        request_id: str | None = None,
        transferred: Transferred | None = None,
    ) -> Model:
        """Make a model with the architecture of a module of the engine, and with its present weights or others.

        The same name with the same architecture and weights gives the model that is already there.

        Args:
            model_id: last part of the name: lower-case letters, digits and hyphens, at most 63.
            module: made by a function of `chainrule.engine.models`.
            weights: state_dict name → array, in place of the module's own.
            allow_missing: as in `create_from_family`, and likewise the arguments after it.
            transferred: called with the bytes of weights sent so far and in all.

        Raises:
            ChainruleError: the module belongs to no family.
            AlreadyExists: the name is taken by another model.
            InvalidArgument: the server refuses the name or the configuration.
        """
        family, config = models.family_of(module)
        if weights is None:
            weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
        return self.create_from_family(
            model_id,
            family,
            config,
            weights=weights,
            allow_missing=allow_missing,
            init_seed=init_seed,
            labels=labels,
            description=description,
            request_id=request_id,
            transferred=transferred,
        )

    def create_from_family(
        self,
        model_id: str,
        family: str,
        config: Mapping[str, Any] | None = None,
        *,
        weights: Mapping[str, np.ndarray] | None = None,
        allow_missing: Sequence[str] = (),
        init_seed: int = 0,
        labels: Mapping[str, str] | None = None,
        description: str = "",
        request_id: str | None = None,
        transferred: Transferred | None = None,
    ) -> Model:
        """Make a model of a family the server knows, without making it here.

        Args:
            config: what the family should not take its default for.
            weights: state_dict name → array; None lets the server initialise them from `init_seed`.
            allow_missing: patterns of state_dict names, as in a shell, that `weights` may lack or hold in another
                shape, as where a head is replaced: as ["fc.*"]. The server initialises those from `init_seed`, and
                the model's weights_digest is that of the completed weights.
            labels: notes to find it by, as {"team": "vision"}.
            description: what it is for, at most 1,000 characters.
            request_id: makes calls with the same id one; by default only a call's own repetitions are.

        Raises:
            InvalidInputError: the configuration cannot be sent as JSON, init_seed not as 64 bits, or `allow_missing`
                is no list or comes without `weights`.
            ChainruleError: as `create`.
        """
        patterns = texts("allow_missing", allow_missing)
        if patterns and weights is None:
            raise InvalidInputError(
                f"allow_missing is {list(patterns)}, but there are no weights that could lack anything; give weights, "
                "or leave it out to have all of them initialised"
            )
        message = model_pb2.Model(builtin=model_pb2.Builtin(family=family))
        put(message, "init_seed", init_seed, allowed=UINT64)
        put(message, "description", description, allowed="a text")
        put_labels(message, labels or {})
        try:
            message.builtin.config.update(dict(config or {}))
        except ValueError as error:
            raise InvalidInputError(f"the configuration of {family} is not made of JSON values: {error}") from error
        if weights is not None:
            content = self._connection.compute(io.save, weights)
            message.weights_digest = self._blobs.upload(content, transferred=transferred)
        request = model_pb2.CreateModelRequest(
            model_id=model_id, model=message, allow_missing=patterns, request_id=new_request_id(request_id)
        )
        return model_from_message(self._connection.call(self._stub.CreateModel, request))

    def get(self, name: str) -> Model:
        """The model of this name, "digits" or "models/digits".

        Raises:
            NotFound: there is none.
        """
        request = model_pb2.GetModelRequest(name=name_of("models", name))
        return model_from_message(self._connection.call(self._stub.GetModel, request))

    def list(self, *, filter: str = "", order_by: str = "", limit: int | None = None) -> tuple[Model, ...]:
        """The models, newest first unless told otherwise; at most `limit`.

        Args:
            filter: which, as in AIP-160: 'family = "small_cnn" AND labels.team = "vision"'.
            order_by: a field, and " desc" for the falling order: "name", "create_time desc".

        Raises:
            InvalidArgument: the server cannot read `filter` or `order_by`.
        """

        def read_page(token: str) -> model_pb2.ListModelsResponse:
            request = model_pb2.ListModelsRequest(
                page_size=page_size(limit), page_token=token, filter=filter, order_by=order_by
            )
            return self._connection.call(self._stub.ListModels, request)

        return take(read_page, lambda page: map(model_from_message, page.models), limit=limit)

    def update(
        self,
        model: Model | str,
        *,
        labels: Mapping[str, str] | None = None,
        description: str | None = None,
        etag: str | None = None,
    ) -> Model:
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
        return model_from_message(self._connection.call(self._stub.UpdateModel, request))

    def delete(self, model: Model | str, *, etag: str | None = None, missing_ok: bool = False) -> None:
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
        self._connection.call(self._stub.DeleteModel, request)

    def versions(self, model: Model | str, *, limit: int | None = None) -> tuple[ModelVersion, ...]:
        """The versions of a model, newest first; at most `limit`.

        Raises:
            NotFound: there is no such model.
        """
        parent = name_of("models", model)

        def read_page(token: str) -> model_pb2.ListModelVersionsResponse:
            request = model_pb2.ListModelVersionsRequest(parent=parent, page_size=page_size(limit), page_token=token)
            return self._connection.call(self._stub.ListModelVersions, request)

        return take(read_page, lambda page: map(self._version, page.model_versions), limit=limit)

    def version(self, model: Model | str, number: int | None = None) -> ModelVersion:
        """A version of a model, the newest unless `number` says which: ("digits", 2), or "digits/versions/2".

        Raises:
            NotFound: there is none.
        """
        request = model_pb2.GetModelVersionRequest(name=version_name(name_of("models", model), number))
        return self._version(self._connection.call(self._stub.GetModelVersion, request))

    def delete_version(self, version: ModelVersion | str, *, missing_ok: bool = False) -> None:
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
        self._connection.call(self._stub.DeleteModelVersion, request)

    def _version(self, message: model_pb2.ModelVersion) -> ModelVersion:
        return ModelVersion(
            name=message.name,
            weights_digest=message.weights_digest or None,
            job=message.job or None,
            parent_version=message.parent_version or None,
            dataset=message.dataset or None,
            dataset_digest=message.dataset_digest or None,
            step=message.step,
            create_time=moment(message.create_time),
            _blobs=self._blobs,
            _predictions=self._predictions,
        )
