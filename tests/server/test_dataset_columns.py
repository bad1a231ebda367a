"""Datasets with other columns than inputs and targets, in one blob and in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chainrule.engine import io
from chainrule.engine.io.chunked import Chunk, Column, Manifest
from chainrule.server.blobs import BlobStore
from chainrule.server.datasets import MAX_CLASSES, DatasetCatalog
from chainrule.server.errors import InvalidRequestError
from chainrule.server.records import Dataset
from chainrule.server.rpc.convert import dataset as message_of
from chainrule.server.store import Store
from chainrule.server.tenant_blobs import TenantBlobs
from tests.server.conftest import refusal

ROWS = 10
COLUMNS: dict[str, Any] = {
    "weights": np.array([1, 0.5, 2, 0, 1, 1, -1, 1, -1, 1], np.float32),
    "inputs": np.ones((ROWS, 2, 2), np.float32),
    "kinds": np.arange(ROWS) % 3,
    "bytes": np.full((ROWS, 3), 7, np.uint8),
    "targets": np.arange(ROWS),
    "ids": np.arange(ROWS * 4).reshape(ROWS, 4) - 5,
}
ORDER = ("inputs", "targets", "bytes", "ids", "kinds", "weights")


@pytest.fixture
def catalog(store: Store, blobs: BlobStore) -> DatasetCatalog:
    return DatasetCatalog(store, blobs, TenantBlobs(blobs, store, are_apart=False))


def made(catalog: DatasetCatalog, blobs: BlobStore, columns: dict[str, Any], name: str = "d") -> Dataset:
    return catalog.create(name, digest=blobs.put(io.save(columns)), tenant="default")


def chunked(catalog: DatasetCatalog, blobs: BlobStore, columns: dict[str, Any], rows: int) -> Dataset:
    found = []
    for start in range(0, ROWS, rows):
        content = io.save({name: array[start : start + rows] for name, array in columns.items()})
        found.append(Chunk(blobs.put(content), min(rows, ROWS - start)))
    described = tuple(Column(name, array.dtype.name, array.shape[1:]) for name, array in columns.items())
    digest = blobs.put(Manifest(described, tuple(found)).to_bytes())
    return catalog.create("chunked", digest=digest, tenant="default")


def test_columns_have_types_shapes_and_statistics(catalog: DatasetCatalog, blobs: BlobStore) -> None:
    dataset = made(catalog, blobs, COLUMNS)
    assert tuple(column.name for column in dataset.columns) == ORDER
    assert dataset.column("bytes") == Column("bytes", "uint8", (3,))
    assert dataset.column("labels") is None
    assert tuple(of.column for of in dataset.statistics) == ORDER
    weights, kinds = dataset.statistics_of("weights"), dataset.statistics_of("kinds")
    assert weights is not None
    assert (weights.min, weights.max, weights.min_row, weights.class_counts) == (-1, 2, 6, ())
    assert kinds is not None
    assert kinds.class_counts == (4, 3, 3)
    assert (dataset.input_shape, dataset.target_shape, dataset.num_classes) == ((2, 2), (), 10)
    assert catalog.get("datasets/d", tenant="default") == dataset
    rows = np.array([3, 1])
    found = catalog.load(dataset).read(rows, ("weights", "bytes"))
    assert found["weights"].tolist() == [0, 0.5]
    assert found["bytes"].dtype == np.float32  # what is bytes is divided by 255
    [said] = [of for of in message_of(dataset).statistics if of.column == "weights"]
    assert said.min_row == 6


def test_in_chunks_they_are_the_same(catalog: DatasetCatalog, blobs: BlobStore) -> None:
    one, many = made(catalog, blobs, COLUMNS), chunked(catalog, blobs, COLUMNS, rows=4)
    assert many.columns == one.columns
    for of_one, of_many in zip(one.statistics, many.statistics, strict=True):
        assert (of_many.column, of_many.min, of_many.max, of_many.min_row) == (
            of_one.column,
            of_one.min,
            of_one.max,
            of_one.min_row,
        )
        assert of_many.class_counts == of_one.class_counts
    rows = np.array([9, 0, 5])
    found, expected = catalog.load(many).read(rows), catalog.load(one).read(rows)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_neither_inputs_nor_targets_are_needed(catalog: DatasetCatalog, blobs: BlobStore) -> None:
    dataset = made(catalog, blobs, {"ids": COLUMNS["ids"], "mask": COLUMNS["weights"]})
    assert [column.name for column in dataset.columns] == ["ids", "mask"]
    assert (dataset.input_shape, dataset.num_classes, dataset.num_tokens) == ((), 0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": np.ones(3, np.float32)}, "10 of inputs, 10 of targets, 3 of values of 'w'; give each example all"),
        ({"w": np.array([1, np.nan] * 5, np.float32)}, "values of 'w' hold NaN or infinite values in 5 of 10 examples"),
        ({"w": np.ones(10)}, "values of 'w' are float64; convert them to float32"),
        ({"w": np.ones((10, 0), np.float32)}, "values of 'w' have the shape (10, 0)"),
        ({"w": np.float32(1)}, "values of 'w' are a single number of shape ()"),
        (
            {"w": np.full(10, MAX_CLASSES)},
            "values of 'w'[0] is 2147483647; whole numbers are -2147483646 to 2147483646",
        ),
        ({"w": np.full(10, np.iinfo(np.int64).min)}, "values of 'w'[0] is -9223372036854775808; whole numbers"),
        ({"a\tb": np.ones(10, np.float32)}, "has a column called 'a\\tb'; use 1 to 128 characters that can be printed"),
        ({"a" * 129: np.ones(10, np.float32)}, "; use 1 to 128 characters that can be printed"),
        ({f"c{i}": np.ones(10, np.float32) for i in range(63)}, "has 65 columns"),
    ],
)
def test_a_column_that_makes_no_sense_is_refused_by_its_name(
    catalog: DatasetCatalog, blobs: BlobStore, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        made(catalog, blobs, {"inputs": COLUMNS["inputs"], "targets": COLUMNS["targets"], **change})
    assert refusal(caught).field == "dataset.digest"
    assert message in refusal(caught).description


def test_nothing_is_no_dataset(catalog: DatasetCatalog, blobs: BlobStore) -> None:
    with pytest.raises(InvalidRequestError, match="it holds no tensors"):
        made(catalog, blobs, {})


def test_a_dataset_of_inputs_and_targets_has_the_digest_that_it_always_had() -> None:
    content = io.save({"inputs": np.arange(4, dtype=np.float32).reshape(2, 2), "targets": np.array([0, 1])})
    assert io.digest(content) == "19c099c18351688d53110583d689ae0267ffa4724348aedd90eb26be244dbe40"
