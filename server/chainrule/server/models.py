"""Models: what can be created, and with which weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import chainrule.engine as cr
from chainrule.engine import ConfigError, UnknownFamilyError, io, models, nn
from chainrule.server import names
from chainrule.server.blobs import BlobStore, check_digest
from chainrule.server.errors import InvalidRequestError, echo
from chainrule.server.records import Model
from chainrule.server.store import Store

MAX_PARAMETERS = 100_000_000
"""Parameters of the largest model that is accepted: 400 MB, of which creating it takes about three copies."""


class ModelCatalog:
    """Creates and finds models. Its methods block."""

    def __init__(self, store: Store, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs

    def create(
        self, model_id: str, *, family: str, config: Mapping[str, object], weights_digest: str, init_seed: int
    ) -> Model:
        """Check and store a model; without weights they are initialised from the seed.

        Raises InvalidRequestError, NotFoundError (no such blob) or AlreadyExistsError.
        """
        name = names.new_name("models", model_id, field="model_id")
        module = build(family, config, init_seed)
        if weights_digest:
            check_digest(weights_digest, field="model.weights_digest")
            self._load_weights(module, weights_digest)
        else:
            state = {key: value.data for key, value in module.state_dict().items()}
            weights_digest = self._blobs.put(io.save(state))
        _, full_config = models.family_of(module)
        full_config = json.loads(json.dumps(full_config))  # as the store gives it back: lists for tuples
        return self._store.create_model(
            Model(
                name=name,
                family=family,
                family_config=full_config,
                weights_digest=weights_digest,
                init_seed=init_seed,
                num_parameters=sum(parameter.numel() for parameter in module.parameters()),
                create_time=datetime.now(UTC),
            )
        )

    def get(self, name: str, *, field: str = "name") -> Model:
        """Raises NotFoundError, or InvalidRequestError naming the request's field."""
        return self._store.get_model(names.existing("models", name, field=field))

    def page(self, page_size: int, page_token: str) -> tuple[list[Model], str]:
        """A page, newest first, and the token of the next."""
        return self._store.list_models(page_size, page_token)

    def load(self, model: Model) -> nn.Module:
        """The network with its weights."""
        module = models.build(model.family, model.family_config)
        self._load_weights(module, model.weights_digest)
        return module

    def _load_weights(self, module: nn.Module, digest: str) -> None:
        try:
            module.load_state_dict(io.load(self._blobs.read(digest)))
        except (cr.FormatError, cr.StateDictError) as error:
            raise InvalidRequestError.of(
                "model.weights_digest", f'blob "{digest}" does not hold weights of this architecture: {error}'
            ) from error


def build(family: str, config: Mapping[str, object], init_seed: int) -> nn.Module:
    """A network of a family, of at most MAX_PARAMETERS. Raises InvalidRequestError naming the field that is wrong."""
    try:
        num_parameters = models.family(family).num_parameters(config)
        if num_parameters > MAX_PARAMETERS:
            raise InvalidRequestError.of(
                "model.builtin.config",
                f"makes a model of {num_parameters:,} parameters; choose sizes that make at most {MAX_PARAMETERS:,}",
            )
        return models.build(family, config, generator=cr.Generator(init_seed))
    except UnknownFamilyError as error:
        raise InvalidRequestError.of("model.builtin.family", str(error)) from error
    except ConfigError as error:
        raise InvalidRequestError.of(
            f"model.builtin.config.{error.field}", f"is {echo(error.value)}: {error.message}"
        ) from error
