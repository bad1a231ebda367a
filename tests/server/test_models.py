"""Models: what can be created, and with which weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chainrule.engine import Generator, io, models
from chainrule.server.blobs import BlobStore
from chainrule.server.errors import AlreadyExistsError, InvalidRequestError, NotFoundError
from chainrule.server.models import MAX_PARAMETERS, ModelCatalog, build
from chainrule.server.records import Model
from chainrule.server.store import Store
from tests.server.conftest import refusal


@pytest.fixture
def catalog(store: Store, blobs: BlobStore) -> ModelCatalog:
    return ModelCatalog(store, blobs)


def create(catalog: ModelCatalog, model_id: str = "m", **arguments: Any) -> Model:
    defaults = {"family": "small_cnn", "config": {"width": 4.0}, "weights_digest": "", "init_seed": 1}
    return catalog.create(model_id, **{**defaults, **arguments})


def test_a_model_without_weights_is_initialised_from_its_seed(catalog: ModelCatalog, blobs: BlobStore) -> None:
    model = create(catalog)
    built = models.build("small_cnn", {"width": 4}, generator=Generator(1))
    assert model.weights_digest == io.digest(io.save(built.state_dict()))
    assert model.num_parameters == models.family("small_cnn").num_parameters({"width": 4})
    assert model.family_config == {"in_channels": 1, "image_size": 8, "width": 4, "num_classes": 10}
    assert catalog.get("models/m") == model
    assert io.save(catalog.load(model).state_dict()) == blobs.read(model.weights_digest)


def test_a_model_can_begin_with_uploaded_weights(catalog: ModelCatalog, blobs: BlobStore) -> None:
    weights = io.save(models.small_cnn(width=4, generator=Generator(7)).state_dict())
    model = create(catalog, weights_digest=blobs.put(weights))
    assert io.save(catalog.load(model).state_dict()) == weights


def test_the_same_model_twice_is_one_and_another_of_its_name_is_refused(catalog: ModelCatalog) -> None:
    assert create(catalog) == create(catalog)
    with pytest.raises(AlreadyExistsError, match="choose another name"):
        create(catalog, config={"width": 5})


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"num_classes": 7.5e7}, ".num_classes"),
        ({"num_classes": 1e12}, ".num_classes"),
        ({"hidden": [1e300]}, ".hidden"),
        ({"hidden": [1] * 100_000}, ".hidden"),
        ({"hidden": "x" * 20_000}, ".hidden"),
        ({"in_features": 1e9}, ".in_features"),
        ({"in_features": float("inf")}, ".in_features"),
        ({"hidden": [1e6] * 100}, ""),
        ({"in_features": 1e7, "hidden": [11.0]}, ""),
    ],
)
def test_a_model_that_is_too_large_is_refused_before_it_is_built(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, object], field: str
) -> None:
    monkeypatch.setattr(models, "build", lambda *_, **__: pytest.fail("it was built"))
    with pytest.raises(InvalidRequestError) as caught:
        build("mlp", config, 0)
    assert refusal(caught).field == f"model.builtin.config{field}"
    assert len(str(caught.value)) < 400


def test_the_number_of_parameters_is_named(catalog: ModelCatalog) -> None:
    with pytest.raises(InvalidRequestError, match=f"of 110,000,131 parameters; .* at most {MAX_PARAMETERS:,}"):
        create(catalog, family="mlp", config={"in_features": 1e7, "hidden": [11.0]})


def test_an_unknown_family_or_setting_is_named(catalog: ModelCatalog) -> None:
    with pytest.raises(InvalidRequestError, match="known families: gpt, mlp, mobilenet_v2") as caught:
        create(catalog, family="resnet9000")
    assert refusal(caught).field == "model.builtin.family"
    with pytest.raises(InvalidRequestError, match=r"is 3.0: there is no such setting") as caught:
        create(catalog, config={"depth": 3.0})
    assert refusal(caught).field == "model.builtin.config.depth"


def test_weights_that_do_not_fit_are_refused(catalog: ModelCatalog, blobs: BlobStore) -> None:
    other = blobs.put(io.save({f"layer{i}.weight": np.zeros(1, np.float32) for i in range(200)}))
    for digest in (other, blobs.put(b"no safetensors"), blobs.put(b"")):
        with pytest.raises(InvalidRequestError, match="does not hold weights of this architecture") as caught:
            create(catalog, weights_digest=digest)
        assert refusal(caught).field == "model.weights_digest"
    with pytest.raises(InvalidRequestError, match="is not a SHA-256") as caught:
        create(catalog, weights_digest="abc")
    assert refusal(caught).field == "model.weights_digest"
    with pytest.raises(NotFoundError, match="upload it with WriteBlob"):
        create(catalog, weights_digest="0" * 64)


def test_a_name_that_is_none_is_refused_in_the_field_it_was_given_in(catalog: ModelCatalog) -> None:
    for field in ("name", "job.model"):
        with pytest.raises(InvalidRequestError) as caught:
            catalog.get("", field=field)
        assert refusal(caught).field == field
