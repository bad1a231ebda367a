"""Datasets whose blob is a manifest of chunks: checked chunk by chunk, kept from the garbage collection, trained on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chainrule.engine import io
from chainrule.engine.io.chunked import CHUNK_BYTES, Chunk, Column, Manifest, rows_per_chunk
from chainrule.server import datasets as module
from chainrule.server.blobs import BlobStore
from chainrule.server.datasets import DatasetCatalog
from chainrule.server.errors import InvalidRequestError, NotFoundError
from chainrule.server.store import Store
from chainrule.server.tenant_blobs import TenantBlobs
from tests.server.conftest import refusal

INPUTS = np.arange(40, dtype=np.float32).reshape(10, 2, 2)
TARGETS = np.array([0, 4, 1, 0, 0, 2, 3, 1, 1, 0])
COLUMNS = (Column("inputs", "float32", (2, 2)), Column("targets", "int64"))


@pytest.fixture
def catalog(store: Store, blobs: BlobStore) -> DatasetCatalog:
    return DatasetCatalog(store, blobs, TenantBlobs(blobs, store, are_apart=False))


def cut(blobs: BlobStore, inputs: NDArray[Any], targets: NDArray[Any], *, rows: int = 4) -> Manifest:
    """The chunks, stored, and what names them."""
    chunks = []
    for start in range(0, len(inputs), rows):
        content = io.save({"inputs": inputs[start : start + rows], "targets": targets[start : start + rows]})
        chunks.append(Chunk(blobs.put(content), len(inputs[start : start + rows])))
    columns = (
        Column("inputs", inputs.dtype.name, inputs.shape[1:]),
        Column("targets", targets.dtype.name, targets.shape[1:]),
    )
    return Manifest(columns, tuple(chunks))


def test_a_manifest_is_described_as_one_blob_is(catalog: DatasetCatalog, blobs: BlobStore) -> None:
    manifest = cut(blobs, INPUTS, TARGETS)
    one = catalog.create("one", digest=blobs.put(io.save({"inputs": INPUTS, "targets": TARGETS})), tenant="default")
    made = catalog.create("d", digest=blobs.put(manifest.to_bytes()), tenant="default")
    same = ("num_examples", "input_shape", "target_shape", "num_classes", "num_tokens", "columns")
    assert [getattr(made, name) for name in same] == [getattr(one, name) for name in same]
    assert made.columns == COLUMNS
    assert (one.num_chunks, made.num_chunks) == (0, 3)
    assert made.size_bytes == len(manifest.to_bytes()) + sum(blobs.size(c.digest) for c in manifest.chunks)
    assert catalog.get("datasets/d", tenant="default") == made
    examples = catalog.load(made)
    assert np.array_equal(examples.read(np.arange(10))["inputs"], INPUTS)
    assert examples.num_bytes == 0


def test_statistics_are_those_of_all_numbers(catalog: DatasetCatalog, blobs: BlobStore) -> None:
    rng = np.random.default_rng(0)
    inputs = (1000 + rng.normal(size=(100, 7))).astype(np.float32)
    targets = rng.integers(0, 5, size=100)
    made = catalog.create("d", digest=blobs.put(cut(blobs, inputs, targets, rows=9).to_bytes()), tenant="default")
    arrays: tuple[NDArray[Any], ...] = (inputs, targets)
    for found, array in zip(made.statistics, arrays, strict=True):
        assert (found.count, found.min, found.max) == (array.size, array.min(), array.max())
        assert found.mean == pytest.approx(array.mean(dtype=np.float64), rel=1e-12)
        assert found.std == pytest.approx(array.std(dtype=np.float64), rel=1e-9)
    assert made.statistics[1].class_counts == tuple(np.bincount(targets))
    assert made.statistics[0].class_counts == ()


def test_pictures_are_stored_as_bytes_and_trained_on_as_fractions(catalog: DatasetCatalog, blobs: BlobStore) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, size=(5, 3, 2, 2)).astype(np.uint8)
    content = io.save({"inputs": pictures, "targets": np.arange(5)})
    made = catalog.create("d", digest=blobs.put(content), tenant="default", class_labels=["a", "b", "c", "d", "e"])
    assert (made.columns[0].dtype, made.class_labels) == ("uint8", ("a", "b", "c", "d", "e"))
    found = catalog.load(made).read(np.arange(5))["inputs"]
    assert found.dtype == np.float32
    assert np.array_equal(found, pictures.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize(("labels", "error"), [(["a"], "has 1 names"), (["a", "", "c"], "is ''")])
def test_class_labels_that_do_not_fit_are_refused(
    catalog: DatasetCatalog, blobs: BlobStore, labels: list[str], error: str
) -> None:
    digest = blobs.put(io.save({"inputs": INPUTS[:3], "targets": np.arange(3)}))
    with pytest.raises(InvalidRequestError) as caught:
        catalog.create("d", digest=digest, tenant="default", class_labels=labels)
    assert refusal(caught).field.startswith("dataset.class_labels")
    assert error.replace("'", '"') in refusal(caught).description.replace("'", '"')


# --- what is kept, and who may refer to it ----------------------------------------------------------------------


def test_chunks_stay_as_long_as_the_dataset(catalog: DatasetCatalog, blobs: BlobStore, store: Store) -> None:
    manifest = cut(blobs, INPUTS, TARGETS)
    digest = blobs.put(manifest.to_bytes())
    chunks = {chunk.digest for chunk in manifest.chunks}
    assert set(store.unreferenced([digest, *chunks])) == {digest, *chunks}
    catalog.create("d", digest=digest, tenant="default")
    assert blobs.collect(store.unreferenced, grace_s=0).blobs == 0
    assert {name for name, of in store.references().items() if of == ["datasets/d"]} == {digest, *chunks}
    assert store.readable_blobs("default", chunks) == chunks
    assert store.readable_blobs("other", chunks) == set()
    catalog.delete("datasets/d", tenant="default")
    assert blobs.collect(store.unreferenced, grace_s=0).blobs == 1 + len(chunks)


def test_a_chunk_of_another_tenant_is_not_there(store: Store, blobs: BlobStore) -> None:
    tenants = TenantBlobs(blobs, store, are_apart=True)
    manifest = cut(blobs, INPUTS, TARGETS)
    digest = blobs.put(manifest.to_bytes())
    store.grant_blob("mine", digest)
    for chunk in manifest.chunks[:2]:
        store.grant_blob("mine", chunk.digest)
    store.grant_blob("theirs", manifest.chunks[2].digest)
    catalog = DatasetCatalog(store, blobs, tenants)
    with pytest.raises(NotFoundError, match=manifest.chunks[2].digest):
        catalog.create("d", digest=digest, tenant="mine")
    store.grant_blob("mine", manifest.chunks[2].digest)
    assert catalog.create("d", digest=digest, tenant="mine").num_chunks == 3


# --- what is refused --------------------------------------------------------------------------------------------


def refused(catalog: DatasetCatalog, blobs: BlobStore, manifest: Manifest | bytes) -> str:
    content = manifest if isinstance(manifest, bytes) else manifest.to_bytes()
    with pytest.raises(InvalidRequestError) as caught:
        catalog.create("d", digest=blobs.put(content), tenant="default")
    assert refusal(caught).field == "dataset.digest"
    return refusal(caught).description


def test_what_is_wrong_in_a_chunk_is_told_with_its_number(catalog: DatasetCatalog, blobs: BlobStore) -> None:
    bad = INPUTS.copy()
    bad[5, 0, 0] = np.nan
    assert refused(catalog, blobs, cut(blobs, bad, TARGETS)).startswith(
        "chunks[1]: inputs hold NaN or infinite values in 1 of 4 examples, the first is inputs[1]"
    )
    manifest = cut(blobs, INPUTS, TARGETS)
    lying = dataclasses.replace(manifest, chunks=(dataclasses.replace(manifest.chunks[0], rows=5),))
    assert "chunks[0]: it has 'inputs' float32 (4, 2, 2), 'targets' int64 (4,), but the manifest says" in refused(
        catalog, blobs, lying
    )
    other = dataclasses.replace(manifest, columns=(Column("inputs", "float32", (4,)), COLUMNS[1]))
    assert "but the manifest says" in refused(catalog, blobs, other)


def test_a_chunk_that_is_too_large_is_not_read(
    catalog: DatasetCatalog, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CHUNK_BYTES", 100)
    assert refused(catalog, blobs, cut(blobs, INPUTS, TARGETS)).startswith("chunks[0]: it has ")


def test_a_missing_chunk_is_named(catalog: DatasetCatalog, blobs: BlobStore) -> None:
    manifest = Manifest(COLUMNS, (Chunk("a" * 64, 3),))
    with pytest.raises(NotFoundError, match="a" * 64):
        catalog.create("d", digest=blobs.put(manifest.to_bytes()), tenant="default")


GOOD: Mapping[str, Any] = json.loads(Manifest(COLUMNS, (Chunk("a" * 64, 3),)).to_bytes())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"format": "chainrule.dataset/2"}, 'this version reads "chainrule.dataset/1"'),
        ({"rows": 4}, "of 4 rows whose chunks have 3"),
        ({"chunks": []}, "without chunks"),
        ({"chunks": [{"digest": "../../etc/passwd", "rows": 3}]}, "64 hexadecimal digits"),
        ({"chunks": [{"digest": "a" * 64, "rows": True}]}, "64 hexadecimal digits"),
        ({"chunks": 7}, "without chunks"),
        ({"columns": [{"name": "inputs", "dtype": "object", "shape": []}]}, "a dtype of float32, int64, uint8"),
        ({"columns": [{"name": "inputs", "dtype": "float32", "shape": [2**30, 2**30]}]}, "at most 2 GiB"),
        ({"columns": [{"name": "inputs", "dtype": "float32", "shape": [-1]}]}, "numbers above 0"),
        ({"columns": [GOOD["columns"][0]] * 2}, "two columns of one name"),
        ({"columns": [{**GOOD["columns"][0], "name": "a\nb"}]}, "use 1 to 128 characters that can be printed"),
    ],
)
def test_malformed_manifests_are_refused(
    catalog: DatasetCatalog, blobs: BlobStore, change: dict[str, Any], error: str
) -> None:
    assert error in refused(catalog, blobs, json.dumps({**GOOD, **change}).encode())


def test_json_that_is_no_manifest_is_refused(catalog: DatasetCatalog, blobs: BlobStore) -> None:
    assert "not JSON" in refused(catalog, blobs, b'{"columns": [')
    assert "not JSON" in refused(catalog, blobs, b'{"a":' + b"[" * 100_000)


def test_the_chunks_are_a_function_of_the_rows() -> None:
    assert rows_per_chunk(1) == CHUNK_BYTES
    assert rows_per_chunk(CHUNK_BYTES // 3) == 3
    assert rows_per_chunk(10 * CHUNK_BYTES) == 1
    manifest = Manifest(COLUMNS, (Chunk("a" * 64, 3),))
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def test_a_chunk_that_is_named_many_times_is_read_once(
    catalog: DatasetCatalog, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = cut(blobs, INPUTS, TARGETS, rows=5)
    many = dataclasses.replace(manifest, chunks=manifest.chunks * 3)
    digest = blobs.put(many.to_bytes())
    read: list[str] = []
    load = blobs.read
    monkeypatch.setattr(blobs, "read", lambda digest: read.append(digest) or load(digest))  # type: ignore[func-returns-value]
    made = catalog.create("d", digest=digest, tenant="default")
    assert sorted(read) == sorted([digest, *(chunk.digest for chunk in manifest.chunks)])
    assert (made.num_examples, made.num_chunks) == (30, 6)
    assert made.statistics[0].count == 120
    assert made.statistics[0].mean == pytest.approx(INPUTS.mean())
    assert made.statistics[0].std == pytest.approx(INPUTS.std())
    assert made.statistics[1].class_counts == tuple(3 * np.bincount(TARGETS))
    assert np.array_equal(catalog.load(made).read(np.arange(30))["inputs"], np.concatenate([INPUTS] * 3))
