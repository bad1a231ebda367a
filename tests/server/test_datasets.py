"""Datasets: what makes a blob a set of examples."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from chainrule.engine import io
from chainrule.server.blobs import BlobStore
from chainrule.server.datasets import MAX_CLASSES, DatasetCatalog, check_examples
from chainrule.server.errors import AlreadyExistsError, InvalidRequestError, NotFoundError
from chainrule.server.store import Store
from chainrule.server.tenant_blobs import TenantBlobs
from tests.server.conftest import refusal

INPUTS = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
TARGETS = np.array([0, 4, 1])
TOKENS = np.arange(12).reshape(3, 4)


@pytest.fixture
def catalog(store: Store, blobs: BlobStore) -> DatasetCatalog:
    return DatasetCatalog(store, blobs, TenantBlobs(blobs, store, are_apart=False))


def safetensors(dtype: str, shape: list[int], size_bytes: int) -> bytes:
    """Inputs of any dtype and shape, which numpy may not have, and three targets."""
    header = {
        "inputs": {"dtype": dtype, "shape": shape, "data_offsets": [0, size_bytes]},
        "targets": {"dtype": "I64", "shape": [3], "data_offsets": [size_bytes, size_bytes + 24]},
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size_bytes + 24)


def test_a_dataset_is_described_by_its_blob(catalog: DatasetCatalog, blobs: BlobStore) -> None:
    content = io.save({"inputs": INPUTS, "targets": TARGETS})
    dataset = catalog.create("d", digest=blobs.put(content), tenant="default")
    assert (dataset.num_examples, dataset.input_shape, dataset.num_classes) == (3, (2, 2), 5)
    assert dataset.size_bytes == len(content)
    assert (
        catalog.get("datasets/d", tenant="default")
        == dataset
        == catalog.create("d", digest=dataset.digest, tenant="default")
    )
    examples = catalog.load(dataset).read(np.arange(3))
    assert np.array_equal(examples["inputs"], INPUTS)
    assert np.array_equal(examples["targets"], TARGETS)


def test_other_content_of_the_same_name_is_refused(catalog: DatasetCatalog, blobs: BlobStore) -> None:
    catalog.create("d", digest=blobs.put(io.save({"inputs": INPUTS, "targets": TARGETS})), tenant="default")
    with pytest.raises(AlreadyExistsError, match="choose another name"):
        catalog.create("d", digest=blobs.put(io.save({"inputs": INPUTS + 1, "targets": TARGETS})), tenant="default")


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "int32", "bool", "complex64"])
def test_inputs_that_are_neither_float32_nor_tokens_are_refused(dtype: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"inputs are {dtype}; convert them to float32, to uint8 where"):
        check_examples({"inputs": INPUTS.astype(dtype), "targets": TARGETS})


@pytest.mark.parametrize("targets", [TARGETS, TOKENS + 1])
def test_tokens_have_one_target_or_one_each(catalog: DatasetCatalog, blobs: BlobStore, targets: Any) -> None:
    dataset = catalog.create("d", digest=blobs.put(io.save({"inputs": TOKENS, "targets": targets})), tenant="default")
    assert (dataset.num_examples, dataset.input_shape, dataset.target_shape) == (3, (4,), targets.shape[1:])
    assert (dataset.num_tokens, dataset.num_classes) == (12, int(targets.max()) + 1)
    assert catalog.get("datasets/d", tenant="default") == dataset
    assert np.array_equal(catalog.load(dataset).read(np.arange(3))["inputs"], TOKENS)


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (TOKENS[:, 0], TARGETS, r"inputs are int64 of shape \(3,\); tokens have the shape \(N, T\): give that, or"),
        (TOKENS[:, :, None], TARGETS, r"inputs are int64 of shape \(3, 4, 1\)"),
        (TOKENS[:, :0], TARGETS, "examples without a single number"),
        (TOKENS - 1, TARGETS, r"inputs\[0, 0\] is -1; tokens count from 0"),
        (TOKENS + MAX_CLASSES - 11, TARGETS, r"inputs\[2, 3\] is 2147483647; tokens are 0 to 2147483646"),
        (TOKENS, TOKENS.astype(np.int32), "targets are int32"),
        (TOKENS, TOKENS[:2], "3 inputs and 2 targets"),
        (TOKENS, TOKENS - 1, r"targets\[0, 0\] is -1; class labels count from 0"),
    ],
)
def test_tokens_that_are_no_examples_are_refused(inputs: Any, targets: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        check_examples({"inputs": inputs, "targets": targets})


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (TARGETS.astype(np.int32), r"targets are int32 of shape \(3,\); give int64"),
        (TARGETS.astype(np.float64), r"targets are float64 of shape \(3,\); give int64 class labels or float32"),
        (np.zeros((3, 0), np.int64), r"targets have the shape \(3, 0\): examples without a single target"),
        (np.full(3, -100), "targets are -100 only, which stands for no label; give at least one label"),
        (np.array([0.5, np.nan, 1], np.float32), r"targets hold NaN or infinite .* the first is targets\[1\]"),
        (np.array(1), r"targets are int64 of shape \(\)"),
        (TARGETS[:2], "3 inputs and 2 targets; give one target for each input"),
        (np.array([0, -7, 1]), r"targets\[1\] is -7; class labels count from 0, and -100 stands for none"),
        (np.array([0, 1, 2**63 - 1]), rf"targets\[2\] is {2**63 - 1}; class labels are 0 to {MAX_CLASSES - 1}"),
        (np.array([0, MAX_CLASSES, 1]), r"targets\[1\] is 2147483647; class labels are 0 to 2147483646"),
    ],
)
def test_targets_that_are_no_labels_are_refused(targets: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        check_examples({"inputs": INPUTS, "targets": targets})


@pytest.mark.parametrize(
    ("targets", "num_classes"),
    [
        (np.array([0.5, -1.0, 2.0], np.float32), 0),
        (np.eye(3, dtype=np.float32), 0),
        (np.eye(3, dtype=np.int64), 2),
        (np.arange(12).reshape(3, 2, 2), 12),
        (np.array([-100, 4, -100]), 5),
    ],
)
def test_targets_may_be_numbers_or_labels_of_any_shape(
    catalog: DatasetCatalog, blobs: BlobStore, targets: Any, num_classes: int
) -> None:
    digest = blobs.put(io.save({"inputs": INPUTS, "targets": targets}))
    dataset = catalog.create("d", digest=digest, tenant="default")
    assert (dataset.num_classes, dataset.target_shape) == (num_classes, targets.shape[1:])
    found = catalog.load(dataset).read(np.arange(len(targets)))["targets"]
    assert found.dtype == targets.dtype
    assert np.array_equal(found, targets)


def test_the_largest_label_is_taken() -> None:
    examples = check_examples({"inputs": INPUTS, "targets": np.array([0, 0, MAX_CLASSES - 1])})
    assert examples.targets.max() == MAX_CLASSES - 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.float32(1), r"a single number of shape \(\)"),
        (np.zeros((3, 0), np.float32), r"inputs have the shape \(3, 0\): examples without a single number"),
        (np.zeros((3, 2, 0, 2), np.float32), "examples without a single number"),
        (np.where(INPUTS == 5, np.nan, INPUTS), r"NaN or infinite values in 1 of 3 examples, the first is inputs\[1\]"),
        (np.where(INPUTS > 3, np.inf, INPUTS), "NaN or infinite values in 2 of 3 examples"),
    ],
)
def test_inputs_that_are_no_examples_are_refused(inputs: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        check_examples({"inputs": np.asarray(inputs), "targets": TARGETS})


def test_no_examples_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="no examples; give at least one"):
        check_examples({"inputs": INPUTS[:0], "targets": TARGETS[:0]})


def test_examples_may_be_single_numbers() -> None:
    assert check_examples({"inputs": INPUTS[:, 0, 0], "targets": TARGETS}).inputs.shape == (3,)


def test_other_tensors_are_named_but_not_all_of_them() -> None:
    weights = {f"layer{i}.weight": INPUTS for i in range(200)}
    with pytest.raises(
        InvalidRequestError, match=r"has 200 columns, \['layer0.weight', .*\.\.\.\]; a dataset has"
    ) as caught:
        check_examples(weights)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no safetensors",
        safetensors("F8_E4M3", [3, 1], 3),
        safetensors("F32", [0, 2**62], 0),
        safetensors("F32", [3, 0, 2**63], 0),
        safetensors("F32", [2**40, 2**40, 0], 0),
        safetensors("F32", [3] + [1] * 70, 12),
        safetensors("F32", [3, 2], 12),
    ],
)
def test_a_blob_that_cannot_be_read_as_tensors_is_refused(
    catalog: DatasetCatalog, blobs: BlobStore, content: bytes
) -> None:
    with pytest.raises(InvalidRequestError, match="is no safetensors file of inputs and targets") as caught:
        catalog.create("d", digest=blobs.put(content), tenant="default")
    assert refusal(caught).field == "dataset.digest"


def test_a_digest_that_is_none_or_unknown_is_refused(catalog: DatasetCatalog) -> None:
    with pytest.raises(InvalidRequestError, match="is not a SHA-256") as caught:
        catalog.create("d", digest="abc", tenant="default")
    assert refusal(caught).field == "dataset.digest"
    with pytest.raises(NotFoundError, match="upload it with WriteBlob"):
        catalog.create("d", digest="0" * 64, tenant="default")
