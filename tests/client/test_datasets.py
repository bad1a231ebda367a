"""Datasets are converted to what the API wants, or refused here where that would change their meaning."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from chainrule.client import Aborted, Client, InvalidInputError, NotFound
from chainrule.engine import io
from tests.client.fake_server import FakeServer

INPUTS = np.arange(16, dtype=np.float32).reshape(4, 1, 2, 2)
TARGETS = np.array([0, 1, 2, 1])


def test_a_dataset_is_sent_as_one_safetensors_blob(server: FakeServer, client: Client) -> None:
    dataset = client.datasets.create("digits", inputs=INPUTS, targets=TARGETS)
    examples = io.load(server.blobs[dataset.digest])
    np.testing.assert_array_equal(examples["inputs"], INPUTS)
    np.testing.assert_array_equal(examples["targets"], TARGETS)
    assert (dataset.name, dataset.num_examples, dataset.input_shape) == ("datasets/digits", 4, (1, 2, 2))


@pytest.mark.parametrize("inputs", [INPUTS, INPUTS.tolist()])
def test_inputs_and_targets_are_given_by_their_places(client: Client, inputs: ArrayLike) -> None:
    made = client.datasets.create("a", inputs=INPUTS, targets=TARGETS)
    assert client.datasets.create("b", inputs, TARGETS).digest == made.digest
    assert client.datasets.create("c", inputs, targets=TARGETS).digest == made.digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("d.csv", TARGETS), "targets are given beside a str, which has its own; name the column with target, or give"),
        (({"x": INPUTS}, TARGETS), "targets are given beside a dict"),
        ((INPUTS,), "a ndarray cannot be read; give a pair of arrays"),
        ((None, TARGETS), r"give a source, or inputs and targets \(or columns\): one of the two, and nothing else"),
    ],
)
def test_targets_go_with_arrays_alone(client: Client, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        client.datasets.create("d", *arguments)


def test_the_same_examples_in_another_layout_are_the_same_dataset(client: Client) -> None:
    made = client.datasets.create("a", inputs=INPUTS, targets=TARGETS)
    again = client.datasets.create(
        "b", inputs=np.asfortranarray(INPUTS.astype(np.float64)), targets=TARGETS.astype(np.uint8).tolist()
    )
    assert again.digest == made.digest


@pytest.mark.parametrize("name", ["digits", "datasets/digits"])
def test_a_dataset_is_found_by_its_short_and_its_full_name(client: Client, name: str) -> None:
    made = client.datasets.create("digits", inputs=INPUTS, targets=TARGETS)
    assert client.datasets.get(name) == made


def test_datasets_are_listed_newest_first(client: Client) -> None:
    for name in ("a", "b", "c"):
        client.datasets.create(name, inputs=INPUTS, targets=TARGETS)
    assert [dataset.name for dataset in client.datasets.list()] == ["datasets/c", "datasets/b", "datasets/a"]


def test_tokens_are_sent_as_such(server: FakeServer, client: Client) -> None:
    made = client.datasets.create("text", inputs=[[1, 2], [3, 4]], targets=[[2, 3], [4, 5]], tokens=True)
    sent = io.load(server.blobs[made.digest])
    assert sent["inputs"].dtype == np.int64
    assert sent["targets"].tolist() == [[2, 3], [4, 5]]


def test_a_dataset_has_labels_and_a_description_that_can_be_changed(server: FakeServer, client: Client) -> None:
    made = client.datasets.create("d", inputs=[[1.0]], targets=[0], labels={"team": "vision"}, description="small")
    [request] = server.requests("CreateDataset")
    assert (dict(request.dataset.labels), request.dataset.description) == ({"team": "vision"}, "small")
    assert request.request_id
    changed = client.datasets.update(made, description="smaller")
    assert (changed.description, changed.etag) == ("smaller", "1")
    with pytest.raises(Aborted):
        client.datasets.update("d", labels={}, etag="0")


def test_a_dataset_can_be_removed(server: FakeServer, client: Client) -> None:
    client.datasets.delete(client.datasets.create("d", inputs=[[1.0]], targets=[0]))
    assert server.datasets == {}
    client.datasets.delete("d", missing_ok=True)
    with pytest.raises(NotFound):
        client.datasets.delete("d")


def test_datasets_are_filtered_and_ordered_by_the_server(server: FakeServer, client: Client) -> None:
    client.datasets.list(filter="num_examples > 3", order_by="name desc", limit=5)
    [request] = server.requests("ListDatasets")
    assert (request.filter, request.order_by, request.page_size) == ("num_examples > 3", "name desc", 5)
