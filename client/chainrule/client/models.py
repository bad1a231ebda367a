"""Models on the server: made from a module of the engine, or from a family and its configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import numpy as np
from google.protobuf import json_format

from chainrule.client.blobs import Blobs, Transferred
from chainrule.client.channel import Connection
from chainrule.client.errors import InvalidInputError
from chainrule.client.wire import UINT64, moment, page_size, pages, plain, put, resource_name, texts
from chainrule.engine import io, models, nn
from chainrule.v1 import model_pb2, model_pb2_grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A named architecture with weights to start training from."""

    name: str
    """Resource name, for example "models/digits"."""
    family: str
    """Family of the architecture, for example "small_cnn"."""
    config: Mapping[str, Any]
    """Configuration of the family, for example {"num_classes": 10}."""
    weights_digest: str | None
    """SHA-256 of the weights as a safetensors file; None where the server initialises them from init_seed."""
    init_seed: int
    """Seed of the initialisation where there are no weights, and of what they lacked."""
    num_parameters: int
    """Number of trainable values."""
    create_time: datetime
    """When it was created, in UTC."""


class Models:
    """The models of a server."""

    def __init__(self, connection: Connection, blobs: Blobs) -> None:
        self._connection = connection
        self._blobs = blobs
        self._stub = model_pb2_grpc.ModelServiceStub(connection.channel)

    def create(
        self,
        model_id: str,
        module: nn.Module,
        *,
        weights: Mapping[str, np.ndarray] | None = None,
        allow_missing: Sequence[str] = (),
        init_seed: int = 0,
        transferred: Transferred | None = None,
    ) -> Model:
        """Make a model with the architecture of a module of the engine, and with its present weights or others.

        The same name with the same architecture and weights gives the model that is already there.

        Args:
            model_id: last part of the name: lower-case letters, digits and hyphens, at most 63.
            module: made by a function of `chainrule.engine.models`.
            weights: state_dict name → array, in place of the module's own.
            allow_missing: as in `create_from_family`.
            init_seed: likewise.
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
        transferred: Transferred | None = None,
    ) -> Model:
        """Make a model of a family that the server knows, without building it here.

        Args:
            config: what the family should not take its default for.
            weights: state_dict name → array; None lets the server initialise them from `init_seed`.
            allow_missing: patterns of state_dict names, as in a shell, that `weights` may lack or hold in another
                shape, as where a head is replaced: as ["fc.*"]. The server initialises those from `init_seed`, and
                the model's weights_digest is that of the completed weights.

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
        try:
            message.builtin.config.update(dict(config or {}))
        except ValueError as error:
            raise InvalidInputError(f"the configuration of {family} is not made of JSON values: {error}") from error
        if weights is not None:
            message.weights_digest = self._blobs.upload(io.save(weights), transferred=transferred)
        request = model_pb2.CreateModelRequest(model_id=model_id, model=message, allow_missing=patterns)
        return _model(self._connection.call(self._stub.CreateModel, request))

    def get(self, name: str) -> Model:
        """The model of this name, "digits" or "models/digits".

        Raises:
            NotFound: there is none.
        """
        request = model_pb2.GetModelRequest(name=resource_name("models", name))
        return _model(self._connection.call(self._stub.GetModel, request))

    def list(self, *, limit: int | None = None) -> tuple[Model, ...]:
        """The models, newest first; at most `limit`."""

        def read_page(token: str) -> model_pb2.ListModelsResponse:
            request = model_pb2.ListModelsRequest(page_size=page_size(limit), page_token=token)
            return self._connection.call(self._stub.ListModels, request)

        return tuple(islice((_model(m) for page in pages(read_page) for m in page.models), limit))


def _model(message: model_pb2.Model) -> Model:
    return Model(
        name=message.name,
        family=message.builtin.family,
        config=plain(json_format.MessageToDict(message.builtin.config)),
        weights_digest=message.weights_digest or None,
        init_seed=message.init_seed,
        num_parameters=message.num_parameters,
        create_time=moment(message.create_time),
    )
