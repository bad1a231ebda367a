"""Models whose architecture is a graph: what is stored of them, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from chainrule.engine import graph, io
from chainrule.server.architecture import MAX_GRAPH_BYTES, Builtin, GraphArchitecture
from chainrule.server.blobs import BlobStore
from chainrule.server.errors import AlreadyExistsError, InvalidRequestError, NotFoundError
from chainrule.server.models import ModelCatalog
from chainrule.server.networks import MAX_PARAMETERS
from chainrule.server.records import Model, TensorSpec
from chainrule.server.store import Store
from chainrule.server.tenant_blobs import TenantBlobs
from tests import graphs
from tests.server.conftest import refusal


@pytest.fixture
def catalog(store: Store, blobs: BlobStore) -> ModelCatalog:
    return ModelCatalog(store, blobs, TenantBlobs(blobs, store, are_apart=False))


def create(catalog: ModelCatalog, blobs: BlobStore, model_id: str = "m", **arguments: Any) -> Model:
    content, weights = graph.split(graphs.small_onnx())
    defaults = {
        "architecture": GraphArchitecture(blobs.put(content)),
        "weights_digest": blobs.put(io.save(weights)),
        "init_seed": 0,
        "tenant": "default",
    }
    return catalog.create(model_id, **{**defaults, **arguments})


def refused(catalog: ModelCatalog, blobs: BlobStore, content: bytes) -> str:
    """What is said of a graph that is not taken."""
    with pytest.raises(InvalidRequestError) as caught:
        create(catalog, blobs, architecture=GraphArchitecture(blobs.put(content)))
    assert {violation.field for violation in caught.value.violations} == {"model.graph.digest"}
    return str(caught.value)


def test_a_graph_is_stored_with_what_it_takes_and_gives(catalog: ModelCatalog, blobs: BlobStore) -> None:
    model = create(catalog, blobs)
    assert isinstance(model.architecture, GraphArchitecture)
    assert model.inputs == (TensorSpec("x", "float32", ("batch", graphs.FEATURES)),)
    assert model.outputs == (TensorSpec("y", "float32", ("batch", graphs.CLASSES)),)
    assert model.num_parameters == 6 * 8 + 6 + 6 + 6 + 10 * 6 + 10
    found = catalog.get("models/m", tenant="default")
    assert found == model
    assert isinstance(found.architecture, GraphArchitecture)
    assert found.architecture.content == b""  # the store knows its digest
    assert io.save(catalog.load(found).state_dict()) == blobs.read(model.weights_digest)


def test_the_same_graph_twice_is_one_model_and_another_is_refused(catalog: ModelCatalog, blobs: BlobStore) -> None:
    assert create(catalog, blobs) == create(catalog, blobs)
    with pytest.raises(AlreadyExistsError, match="choose another name"):
        create(catalog, blobs, architecture=Builtin("small_cnn"), weights_digest="")
    with pytest.raises(AlreadyExistsError, match="choose another name"):
        create(catalog, blobs, class_labels=[str(i) for i in range(10)])


def test_its_blob_stays_as_long_as_the_model(catalog: ModelCatalog, blobs: BlobStore, store: Store) -> None:
    model = create(catalog, blobs)
    assert isinstance(model.architecture, GraphArchitecture)
    digest = model.architecture.digest
    assert store.references()[digest] == ["models/m"]
    assert store.unreferenced([digest]) == []
    assert digest in store.readable_blobs("default", [digest])
    catalog.delete("models/m", tenant="default")
    assert store.unreferenced([digest]) == [digest]


def test_the_graph_of_another_tenant_is_not_found(store: Store, blobs: BlobStore) -> None:
    catalog = ModelCatalog(store, blobs, TenantBlobs(blobs, store, are_apart=True))
    with pytest.raises(NotFoundError):
        create(catalog, blobs, tenant="others")


def test_a_graph_needs_all_its_weights(catalog: ModelCatalog, blobs: BlobStore) -> None:
    with pytest.raises(InvalidRequestError, match="does not say how its weights are initialised; upload") as caught:
        create(catalog, blobs, weights_digest="")
    assert refusal(caught).field == "model.weights_digest"
    with pytest.raises(InvalidRequestError, match="upload all of them") as caught:
        create(catalog, blobs, allow_missing=["fc2.*"])
    assert refusal(caught).field == "allow_missing"
    other = blobs.put(io.save({"fc1.weight": np.zeros((6, 8), np.float32)}))
    with pytest.raises(InvalidRequestError, match="does not hold weights of this architecture") as caught:
        create(catalog, blobs, weights_digest=other)
    assert refusal(caught).field == "model.weights_digest"


# --- what nobody should take -----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"no ONNX", b"\x08\x08" * 1000, graphs.small_onnx()[:200], b"\xff" * 64])
def test_what_is_no_graph_is_refused(catalog: ModelCatalog, blobs: BlobStore, content: bytes) -> None:
    assert "is no graph that can be trained" in refused(catalog, blobs, content)


def test_a_cycle_is_refused_and_named(catalog: ModelCatalog, blobs: BlobStore) -> None:
    assert "first" in refused(catalog, blobs, graphs.cyclic())


def test_operators_that_cannot_be_trained_are_refused_by_the_names_of_their_nodes(
    catalog: ModelCatalog, blobs: BlobStore
) -> None:
    said = refused(catalog, blobs, graphs.unsupported())
    assert "StringNormalizer (opset 17)" in said
    assert '"clean up"' in said
    assert '"count words"' in said
    assert '"fine"' not in said


def test_weights_that_say_another_shape_than_they_have_are_refused(catalog: ModelCatalog, blobs: BlobStore) -> None:
    assert "fc1.weight" in refused(catalog, blobs, graphs.lying())


@pytest.mark.parametrize("seed", range(8))
def test_a_graph_that_was_damaged_is_taken_or_refused(catalog: ModelCatalog, blobs: BlobStore, seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = np.frombuffer(graph.split(graphs.small_onnx())[0], np.uint8)
    fields = set()
    for number in range(40):
        damaged = whole.copy()
        places = rng.integers(0, len(damaged), size=rng.integers(1, 4))
        damaged[places] = rng.integers(0, 256, size=len(places))
        try:
            create(catalog, blobs, f"m{number}", architecture=GraphArchitecture(blobs.put(damaged.tobytes())))
        except InvalidRequestError as error:
            fields |= {violation.field for violation in error.violations}
    assert "model.graph.digest" in fields
    assert fields <= {"model.graph.digest", "model.weights_digest"}


def test_weights_of_a_dtype_that_cannot_be_learnt_are_kept(catalog: ModelCatalog, blobs: BlobStore) -> None:
    architecture = ModelProto.FromString(graph.split(graphs.small_onnx())[0])
    [weight] = [value for value in architecture.graph.input if value.name == "fc2.weight"]
    weight.type.tensor_type.elem_type = TensorProto.BOOL
    content = architecture.SerializeToString()
    model = create(catalog, blobs, architecture=GraphArchitecture(blobs.put(content)))
    assert model.num_parameters == 6 * 8 + 6 + 6 + 6 + 10
    assert "fc2.weight" in dict(catalog.load(model).named_buffers())


@pytest.mark.parametrize("elements", [MAX_PARAMETERS + 1000, 2 * 10**9, 10**15])
def test_a_graph_that_asks_for_too_much_is_refused_before_it_is_built(
    catalog: ModelCatalog, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, elements: int
) -> None:
    zeros = np.zeros

    def bounded(shape: Any, *arguments: Any, **more: Any) -> np.ndarray:
        assert np.prod(shape, dtype=float) <= MAX_PARAMETERS, shape
        return zeros(shape, *arguments, **more)

    monkeypatch.setattr(np, "zeros", bounded)
    said = refused(catalog, blobs, graphs.huge(elements))
    assert "parameters" in said or "bytes" in said


def test_a_file_beyond_the_limit_is_not_read(
    catalog: ModelCatalog, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(MAX_GRAPH_BYTES + 1)
    digest = blobs.put(content)
    monkeypatch.setattr(blobs, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(InvalidRequestError, match=r"has 16,777,217 bytes; a graph has at most 16,777,216: send its"):
        create(catalog, blobs, architecture=GraphArchitecture(digest))


# --- class labels ----------------------------------------------------------------------------------------------


def test_class_labels_stay_with_the_model(catalog: ModelCatalog, blobs: BlobStore) -> None:
    labels = [f"class {i}" for i in range(10)]
    assert create(catalog, blobs, class_labels=labels).class_labels == tuple(labels)
    assert catalog.get("models/m", tenant="default").class_labels == tuple(labels)


@pytest.mark.parametrize("architecture", [None, Builtin("small_cnn", {"num_classes": 10})])
@pytest.mark.parametrize(
    ("labels", "field", "said"),
    [
        (["a", "b"], "", "has 2 labels, but the network tells 10 classes apart"),
        (["a", ""], "[1]", "use a text of 1 to 200 characters"),
        (["a", "b" * 201], "[1]", "use a text of 1 to 200 characters"),
        (["a", "b", "a"], "[2]", "as is that of class 0; use another"),
        (["a"] * 10_001, "", "has 10,001 labels; use at most 10,000"),
    ],
)
def test_class_labels_are_one_for_each_class_and_can_be_told_apart(
    catalog: ModelCatalog, blobs: BlobStore, architecture: Builtin | None, labels: list[str], field: str, said: str
) -> None:
    others: dict[str, Any] = {} if architecture is None else {"architecture": architecture, "weights_digest": ""}
    with pytest.raises(InvalidRequestError, match=said) as caught:
        create(catalog, blobs, class_labels=labels, **others)
    assert refusal(caught).field == f"model.class_labels{field}"
