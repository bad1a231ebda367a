"""Models: what can be created, and with which weights."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.engine import Generator, StateDictError, io, models
from chainrule.server.architecture import Builtin
from chainrule.server.blobs import BlobStore
from chainrule.server.errors import AlreadyExistsError, InvalidRequestError, NotFoundError, StorageFullError
from chainrule.server.models import ModelCatalog, tied_names
from chainrule.server.networks import MAX_PARAMETERS, build
from chainrule.server.records import Model
from chainrule.server.store import PageRequest, Request, Store
from chainrule.server.tenant_blobs import TenantBlobs
from tests.server.conftest import refusal


@pytest.fixture
def catalog(store: Store, blobs: BlobStore) -> ModelCatalog:
    return ModelCatalog(store, blobs, TenantBlobs(blobs, store, are_apart=False))


def create(catalog: ModelCatalog, model_id: str = "m", **arguments: Any) -> Model:
    family, config = arguments.pop("family", "small_cnn"), arguments.pop("config", {"width": 4.0})
    defaults = {
        "architecture": Builtin(family, config),
        "weights_digest": "",
        "init_seed": 1,
        "tenant": "default",
    }
    return catalog.create(model_id, **{**defaults, **arguments})


def test_a_model_without_weights_is_initialised_from_its_seed(catalog: ModelCatalog, blobs: BlobStore) -> None:
    model = create(catalog)
    built = models.build("small_cnn", {"width": 4}, generator=Generator(1))
    assert model.weights_digest == io.digest(io.save(built.state_dict()))
    assert model.num_parameters == models.family("small_cnn").num_parameters({"width": 4})
    config = {"in_channels": 1, "image_size": 8, "width": 4, "num_classes": 10, "dropout": 0.0}
    assert model.architecture == Builtin("small_cnn", config)
    assert catalog.get("models/m", tenant="default") == model
    assert io.save(catalog.load(model).state_dict()) == blobs.read(model.weights_digest)


def test_a_model_can_begin_with_uploaded_weights(catalog: ModelCatalog, blobs: BlobStore) -> None:
    weights = io.save(models.small_cnn(width=4, generator=Generator(7)).state_dict())
    model = create(catalog, weights_digest=blobs.put(weights))
    assert io.save(catalog.load(model).state_dict()) == weights


def test_the_same_model_twice_is_one_and_another_of_its_name_is_refused(catalog: ModelCatalog) -> None:
    assert create(catalog) == create(catalog)
    with pytest.raises(AlreadyExistsError, match="choose another name"):
        create(catalog, config={"width": 5})


def test_a_model_that_is_refused_leaves_no_weights_behind(catalog: ModelCatalog, blobs: BlobStore) -> None:
    create(catalog)
    stored = blobs.usage()
    for seed in range(2, 5):
        with pytest.raises(AlreadyExistsError):
            create(catalog, init_seed=seed)
    assert blobs.usage() == stored


def test_initialised_weights_take_no_more_than_there_is_room_for(store: Store, tmp_path: Path) -> None:
    size = len(io.save(models.small_cnn(width=4, generator=Generator(1)).state_dict()))
    for number, limits in enumerate(({"limit_bytes": size}, {"tenant_limit_bytes": size})):
        blobs = BlobStore(tmp_path / str(number), limit_bytes=limits.get("limit_bytes"))
        tenants = TenantBlobs(blobs, store, are_apart=True, limit_bytes=limits.get("tenant_limit_bytes"))
        catalog, tenant = ModelCatalog(store, blobs, tenants), f"tenant-{number}"
        made = create(catalog, tenant=tenant)
        with pytest.raises(StorageFullError):
            create(catalog, "other", init_seed=2, tenant=tenant)
        assert blobs.usage().blobs == 1
        assert create(catalog, tenant=tenant) == made  # it is there, and takes nothing
        assert create(catalog, "same", tenant=tenant).weights_digest == made.weights_digest


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
        build(Builtin("mlp", config), 0)
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


# --- weights that are not whole --------------------------------------------------------------------------------


def head_of(classes: int, **lacking: bool) -> bytes:
    """Weights of a network with that many classes; `bias=False`: without the bias of its head."""
    state = models.small_cnn(width=4, num_classes=classes, generator=Generator(7)).state_dict()
    return io.save({name: value for name, value in state.items() if lacking.get("bias", True) or name != "fc.bias"})


def test_a_replaced_head_is_initialised_and_the_rest_loaded(catalog: ModelCatalog, blobs: BlobStore) -> None:
    digest = blobs.put(head_of(5))
    model = create(catalog, weights_digest=digest, allow_missing=["fc.*"])
    loaded = catalog.load(model).state_dict()
    trained, fresh = io.load(blobs.read(digest)), models.small_cnn(width=4, generator=Generator(1)).state_dict()
    for name, value in loaded.items():
        assert np.array_equal(value.data, fresh[name].data if name.startswith("fc.") else trained[name])
    assert model.weights_digest == io.digest(blobs.read(model.weights_digest)) != digest
    assert create(catalog, weights_digest=digest, allow_missing=["fc.*"]) == model


def test_what_is_there_in_the_right_shape_is_loaded_even_if_it_may_be_missing(
    catalog: ModelCatalog, blobs: BlobStore
) -> None:
    whole = head_of(10)
    assert create(catalog, weights_digest=blobs.put(whole), allow_missing=["*"]).weights_digest == io.digest(whole)
    part = blobs.put(head_of(10, bias=False))
    loaded = catalog.load(create(catalog, "part", weights_digest=part, allow_missing=["fc.bias"])).state_dict()
    assert np.array_equal(loaded["fc.weight"].data, io.load(whole)["fc.weight"])


def test_what_is_not_allowed_to_be_missing_is_refused(catalog: ModelCatalog, blobs: BlobStore) -> None:
    for digest, allowed in (
        (blobs.put(head_of(5)), ["fc.bias"]),
        (blobs.put(head_of(10, bias=False)), ["fc.weight"]),
        (blobs.put(io.save({**io.load(head_of(10)), "fd.weight": np.zeros(1)})), ["fc.*"]),
    ):
        with pytest.raises(InvalidRequestError, match="does not hold weights of this architecture") as caught:
            create(catalog, weights_digest=digest, allow_missing=allowed)
        assert refusal(caught).field == "model.weights_digest"


def test_patterns_that_can_mean_nothing_are_refused(catalog: ModelCatalog, blobs: BlobStore) -> None:
    with pytest.raises(InvalidRequestError, match=r"allow_missing: is set, but model\.weights_digest is not"):
        create(catalog, allow_missing=["fc.*"])
    with pytest.raises(InvalidRequestError, match=r"'fd\.\*' matches none of the model's names") as caught:
        create(catalog, weights_digest=blobs.put(head_of(5)), allow_missing=["fc.*", "fd.*"])
    assert refusal(caught).field == "allow_missing[1]"


# --- parameters with two names ---------------------------------------------------------------------------------


GPT: dict[str, Any] = {"vocab_size": 16, "context": 8, "dim": 8, "heads": 2, "layers": 1}


def test_a_trained_network_has_its_tied_parameters_under_all_names(catalog: ModelCatalog) -> None:
    model = create(catalog, family="gpt", config=GPT)
    module = catalog.load(model)
    assert tied_names(module) == {"head.weight"}
    trained = {name: value.data + 1 for name, value in module.named_parameters()}
    weights = io.load(catalog.trained(model, trained))
    assert set(weights) == set(module.state_dict())
    assert np.array_equal(weights["head.weight"], trained["token_embedding.weight"])
    assert np.array_equal(weights["head.weight"], weights["token_embedding.weight"])


def test_values_of_another_network_are_refused(catalog: ModelCatalog) -> None:
    model = create(catalog, family="gpt", config=GPT)
    values = {name: value.data for name, value in catalog.load(model).named_parameters()}
    for wrong in (values | {"extra": np.zeros(1)}, {k: v for k, v in values.items() if k != "ln_f.bias"}):
        with pytest.raises(StateDictError):
            catalog.trained(model, wrong)


def test_a_tied_parameter_may_be_in_the_weights_once(catalog: ModelCatalog, blobs: BlobStore) -> None:
    state = models.gpt(**GPT, generator=Generator(7)).state_dict()
    once = {name: value for name, value in state.items() if name != "head.weight"}
    model = create(
        catalog, family="gpt", config=GPT, weights_digest=blobs.put(io.save(once)), allow_missing=["head.weight"]
    )
    assert model.weights_digest == io.digest(io.save(state))


def test_a_name_that_is_none_is_refused_in_the_field_it_was_given_in(catalog: ModelCatalog) -> None:
    for field in ("name", "job.model"):
        with pytest.raises(InvalidRequestError) as caught:
            catalog.get("", tenant="default", field=field)
        assert refusal(caught).field == field


# --- what is removed, and what comes twice ---------------------------------------------------------------------


def test_weights_go_once_no_model_has_them(catalog: ModelCatalog, store: Store, blobs: BlobStore) -> None:
    digests = {create(catalog, name).weights_digest for name in ("m", "n")}
    [digest] = digests
    catalog.delete("models/m", tenant="default")
    assert blobs.collect(store.unreferenced, grace_s=0).blobs == 0
    catalog.delete("models/n", tenant="default")
    assert blobs.contains(digest)  # somebody may be about to refer to it
    assert blobs.collect(store.unreferenced, grace_s=0).blobs == 1


def test_a_call_that_comes_again_while_the_first_still_runs_has_one_effect(
    catalog: ModelCatalog, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_have_looked = threading.Barrier(2)
    look = store.model_of_request

    def looked(request: Request, *, tenant: str) -> Model | None:
        found = look(request, tenant=tenant)
        both_have_looked.wait(timeout=60)
        return found

    monkeypatch.setattr(store, "model_of_request", looked)
    request = Request("r", "p")
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(create, catalog, request=request) for _ in range(2)]
        first, second = (call.result() for call in calls)
    assert first == second == catalog.get("models/m", tenant="default")
    versions, _ = catalog.versions("models/m", PageRequest(), tenant="default")
    assert [version.number for version in versions] == [1]


def test_a_repeated_call_is_answered_without_doing_the_work_again(
    catalog: ModelCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request("r", "p")
    made = create(catalog, request=request)
    monkeypatch.setattr(models, "build", lambda *_, **__: pytest.fail("it was built"))
    assert create(catalog, request=request) == made
