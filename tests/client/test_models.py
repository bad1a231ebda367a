"""Models are sent with their architecture and weights, and read back as frozen values."""

import dataclasses

import numpy as np
import pytest

from chainrule.client import Aborted, AlreadyExists, Client, FailedPrecondition, InvalidInputError, NotFound
from chainrule.engine import io, models, nn
from chainrule.v1 import model_pb2
from tests.client.fake_server import NOW, FakeServer


@pytest.fixture
def module() -> nn.Module:
    return models.small_cnn(num_classes=10)


def test_a_module_is_sent_as_its_family_and_its_weights(server: FakeServer, client: Client, module: nn.Module) -> None:
    model = client.models.create("digits", module)
    family, config = models.family_of(module)
    assert (model.name, model.family, model.config) == ("models/digits", family, config)
    assert model.weights_digest is not None
    sent = io.load(server.blobs[model.weights_digest])
    state = module.state_dict()
    assert set(sent) == set(state)
    for name, array in sent.items():
        np.testing.assert_array_equal(array, state[name].numpy(), strict=True)


def test_creating_the_same_model_again_gives_it_and_sends_nothing(
    server: FakeServer, client: Client, module: nn.Module
) -> None:
    assert client.models.create("digits", module) == client.models.create("digits", module)
    assert len(server.requests("WriteBlob")) == 1


def test_another_model_of_the_same_name_is_refused(client: Client, module: nn.Module) -> None:
    client.models.create("digits", module)
    with pytest.raises(AlreadyExists, match="models/digits is another model"):
        client.models.create_from_family("digits", "small_cnn", {"num_classes": 3})


def test_weights_may_lack_what_is_named(server: FakeServer, client: Client, module: nn.Module) -> None:
    weights = {"features.weight": np.zeros(3, np.float32)}
    model = client.models.create("digits", module, weights=weights, allow_missing=["fc.*", "head"], init_seed=7)
    [request] = server.requests("CreateModel")
    assert (list(request.allow_missing), request.model.init_seed) == (["fc.*", "head"], 7)
    assert (model.family, model.config) == models.family_of(module)
    assert io.digest(server.blobs[request.model.weights_digest]) == io.digest(io.save(weights))


def test_counters_of_batch_norm_may_lack_as_in_old_files_of_pytorch(server: FakeServer, client: Client) -> None:
    weights = {name: value.numpy() for name, value in models.small_cnn().state_dict().items()}
    old = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    assert len(old) == len(weights) - 2
    client.models.create("digits", "small_cnn", weights=old)
    [request] = server.requests("CreateModel")
    assert io.digest(server.blobs[request.model.weights_digest]) == io.digest(io.save(weights))


def test_nothing_may_be_lacking_by_default(server: FakeServer, client: Client, module: nn.Module) -> None:
    client.models.create("digits", module)
    [request] = server.requests("CreateModel")
    assert list(request.allow_missing) == []


def test_what_weights_may_lack_makes_no_sense_without_weights(server: FakeServer, client: Client) -> None:
    with pytest.raises(InvalidInputError, match=r"allow_missing is \['fc\.\*'\], but there are no weights"):
        client.models.create_from_family("digits", "small_cnn", allow_missing=["fc.*"])
    with pytest.raises(InvalidInputError, match=r"""allow_missing is 'fc\.\*'; it must be a list, as \["fc\.\*"\]"""):
        client.models.create_from_family("digits", "small_cnn", weights={}, allow_missing="fc.*")
    assert server.requests("CreateModel") == []


def test_the_server_may_initialise_the_weights(server: FakeServer, client: Client) -> None:
    model = client.models.create_from_family("digits", "small_cnn", {"num_classes": 3, "width": 16}, init_seed=7)
    assert (model.weights_digest, model.init_seed, model.config) == (None, 7, {"num_classes": 3, "width": 16})
    assert server.blobs == {}


def test_whole_numbers_of_a_configuration_come_back_whole(client: Client) -> None:
    config = {"num_classes": 3, "rate": 0.5, "hidden": [32, 16], "bias": True}
    model = client.models.create_from_family("digits", "mlp", config)
    assert model.config == config
    assert type(model.config["num_classes"]) is int


def test_a_configuration_that_is_not_json_is_refused_here(server: FakeServer, client: Client) -> None:
    with pytest.raises(InvalidInputError, match="the configuration of mlp is not made of JSON values"):
        client.models.create_from_family("digits", "mlp", {"activation": object()})
    assert server.requests("CreateModel") == []


def test_the_keys_of_a_configuration_are_in_order(client: Client) -> None:
    config = {key: {"b": 1, "a": 2} for key in ("width", "depth", "num_classes", "activation", "bias")}
    made = client.models.create_from_family("digits", "mlp", config)
    assert list(made.config) == sorted(config)
    assert list(made.config["width"]) == ["a", "b"]


@pytest.mark.parametrize("seed", [-1, 2**64, 99999999999999999999999])
def test_a_seed_beyond_64_bits_is_refused_here(server: FakeServer, client: Client, seed: int) -> None:
    with pytest.raises(InvalidInputError) as caught:
        client.models.create_from_family("digits", "mlp", init_seed=seed)
    assert str(caught.value) == f"init_seed is {seed}; it must be a whole number from 0 to 18446744073709551615"
    assert server.requests("CreateModel") == []


@pytest.mark.parametrize("name", ["digits", "models/digits"])
def test_a_model_is_found_by_its_short_and_its_full_name(client: Client, name: str) -> None:
    made = client.models.create_from_family("digits", "small_cnn")
    assert client.models.get(name) == made


def test_a_model_that_is_not_there_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound, match="there is no models/nothing"):
        client.models.get("nothing")


def test_models_are_listed_over_all_pages_and_up_to_a_limit(server: FakeServer, client: Client) -> None:
    for i in range(5):
        client.models.create_from_family(f"m{i}", "small_cnn")
    assert [model.name for model in client.models.list()] == [f"models/m{i}" for i in (4, 3, 2, 1, 0)]
    assert [model.name for model in client.models.list(limit=3)] == [f"models/m{i}" for i in (4, 3, 2)]
    assert [request.page_token for request in server.requests("ListModels")] == ["", "2", "4", "", "2"]


def test_a_model_cannot_be_changed(client: Client) -> None:
    model = client.models.create_from_family("digits", "small_cnn")
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.name = "models/other"  # type: ignore[misc]


# Labels, changes and removal


def test_a_model_has_labels_and_a_description(server: FakeServer, client: Client, module: nn.Module) -> None:
    model = client.models.create("digits", module, labels={"team": "vision"}, description="for trying")
    assert (model.labels, model.description) == ({"team": "vision"}, "for trying")
    assert client.models.get("digits") == model


def test_labels_that_are_no_texts_are_refused_here(server: FakeServer, client: Client) -> None:
    with pytest.raises(InvalidInputError, match=r"labels has 'team': 3; both must be texts"):
        client.models.create_from_family("m", "mlp", labels={"team": 3})  # type: ignore[dict-item]
    with pytest.raises(InvalidInputError, match=r"labels is 'team=vision'; it must be a mapping"):
        client.models.create_from_family("m", "mlp", labels="team=vision")  # type: ignore[arg-type]
    assert server.requests("CreateModel") == []


def test_every_creation_has_a_request_id_of_its_own(server: FakeServer, client: Client) -> None:
    client.models.create_from_family("m", "mlp")
    client.models.create_from_family("m", "mlp")
    client.models.create_from_family("m", "mlp", request_id="mine")
    first, second, third = (request.request_id for request in server.requests("CreateModel"))
    assert first
    assert first != second
    assert third == "mine"


def test_a_change_names_what_it_changes_and_leaves_the_rest(server: FakeServer, client: Client) -> None:
    model = client.models.create_from_family("m", "mlp", labels={"a": "1"}, description="before")
    assert client.models.update(model, description="after").labels == {"a": "1"}
    changed = client.models.update("m", labels={})
    assert (changed.labels, changed.description) == ({}, "after")
    assert [list(r.update_mask.paths) for r in server.requests("UpdateModel")] == [["description"], ["labels"]]


def test_a_change_of_nothing_is_refused_here(server: FakeServer, client: Client) -> None:
    with pytest.raises(InvalidInputError, match="nothing says what to change"):
        client.models.update("m")
    assert server.requests("UpdateModel") == []


def test_a_change_may_insist_on_what_was_seen(client: Client) -> None:
    seen = client.models.update(client.models.create_from_family("m", "mlp"), description="one")
    client.models.update("m", description="two", etag=seen.etag)
    with pytest.raises(Aborted, match=f'not "{seen.etag}"'):
        client.models.update("m", description="three", etag=seen.etag)
    with pytest.raises(Aborted):
        client.models.delete("m", etag=seen.etag)


def test_a_model_can_be_removed(client: Client) -> None:
    client.models.delete(client.models.create_from_family("m", "mlp"))
    with pytest.raises(NotFound):
        client.models.delete("m")
    client.models.delete("m", missing_ok=True)
    assert client.models.list() == ()


def test_a_list_is_filtered_and_ordered_by_the_server(server: FakeServer, client: Client) -> None:
    client.models.list(filter='family = "mlp"', order_by="name")
    [request] = server.requests("ListModels")
    assert (request.filter, request.order_by) == ('family = "mlp"', "name")


# Versions


def add_versions(server: FakeServer, client: Client) -> dict[str, np.ndarray]:
    """Two versions of models/m; the second was made by a job, and its weights are the answer."""
    client.models.create_from_family("m", "mlp")
    weights = {"weight": np.arange(3, dtype=np.float32)}
    content = io.save(weights)
    server.blobs[io.digest(content)] = content
    first, second = "models/m/versions/1", "models/m/versions/2"
    server.versions[first] = model_pb2.ModelVersion(name=first, create_time=NOW)
    server.versions[second] = model_pb2.ModelVersion(
        name=second,
        weights_digest=io.digest(content),
        job="jobs/1",
        parent_version=first,
        dataset="datasets/d",
        dataset_digest="d" * 64,
        step=7,
        create_time=NOW,
    )
    return weights


def test_versions_are_listed_newest_first_and_tell_where_they_come_from(server: FakeServer, client: Client) -> None:
    add_versions(server, client)
    second, first = client.models.versions("m")
    assert (second.number, second.job, second.parent_version, second.step) == (2, "jobs/1", "models/m/versions/1", 7)
    assert (second.dataset, second.dataset_digest) == ("datasets/d", "d" * 64)
    assert (first.number, first.job, first.parent_version, first.weights_digest) == (1, None, None, None)


def test_a_version_is_found_by_number_by_name_and_as_the_newest(server: FakeServer, client: Client) -> None:
    add_versions(server, client)
    assert client.models.version("m", 1).name == "models/m/versions/1"
    assert client.models.version("m/versions/1") == client.models.version("m", 1)
    assert client.models.version(client.models.get("m")).name == "models/m/versions/2"
    with pytest.raises(NotFound, match="there is no models/m/versions/3"):
        client.models.version("m", 3)


def test_the_weights_of_a_version_are_arrays_by_name(server: FakeServer, client: Client) -> None:
    weights = add_versions(server, client)
    np.testing.assert_array_equal(client.models.version("m").weights()["weight"], weights["weight"], strict=True)
    with pytest.raises(FailedPrecondition, match="models/m/versions/1 has no file of weights"):
        client.models.version("m", 1).weights()


def test_a_version_can_be_removed(server: FakeServer, client: Client) -> None:
    add_versions(server, client)
    client.models.delete_version(client.models.version("m", 2))
    assert list(server.versions) == ["models/m/versions/1"]
    client.models.delete_version("m/versions/2", missing_ok=True)
    with pytest.raises(NotFound):
        client.models.delete_version("m/versions/2")
    with pytest.raises(InvalidInputError, match='"models/m" is no version of a model, as "models/m/versions/2" would'):
        client.models.delete_version("m")


def test_labels_are_in_order(client: Client) -> None:
    labels = dict.fromkeys(("who", "run", "team", "a", "zone", "kind"), "x")
    assert list(client.models.create_from_family("m", "mlp", labels=labels).labels) == sorted(labels)
