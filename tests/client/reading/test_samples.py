"""Map-style datasets, those of PyTorch among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading import ReadOptions, open_source


class Samples:
    """What `torch.utils.data.Dataset` is to its users."""

    def __init__(self, sample: Callable[[int], Any], count: int = 5, classes: list[str] | None = None) -> None:
        self._sample = sample
        self._count = count
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Any:
        return self._sample(number)


def read(source: Any) -> tuple[Any, Any, tuple[str, ...]]:
    reader = open_source(source, ReadOptions())
    blocks = list(reader.blocks())
    inputs, targets = (np.concatenate([block[name] for block in blocks]) for name in ("inputs", "targets"))
    return inputs, targets, reader.class_labels


def test_samples_become_examples() -> None:
    inputs, targets, labels = read(Samples(lambda i: (np.full((2, 2), i), i % 2), classes=["even", "odd"]))
    assert inputs.dtype == np.float32
    assert inputs[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert (targets.tolist(), labels) == ([0, 1, 0, 1, 0], ("even", "odd"))


def test_pictures_stay_bytes_with_channels_first() -> None:
    inputs, _, _ = read(Samples(lambda i: (Image.new("RGB", (4, 3), (i, 7, 9)), 0)))
    assert (inputs.shape, inputs.dtype) == ((5, 3, 3, 4), np.uint8)
    assert inputs[2, :, 0, 0].tolist() == [2, 7, 9]


def test_samples_that_are_not_alike_are_named() -> None:
    with pytest.raises(
        InvalidInputError, match=r"sample 3 has inputs of shape \(4,\), targets of shape \(\), sample 0"
    ):
        read(Samples(lambda i: (np.zeros(4 if i == 3 else 2), 0)))
    with pytest.raises(InvalidInputError, match="sample 0 is a int; a dataset must give pairs"):
        read(Samples(lambda i: i))


def test_samples_of_several_columns_keep_their_names() -> None:
    def sample(i: int) -> dict[str, Any]:
        return {"input_ids": [i, 2, 3], "attention_mask": np.ones(3, bool), "label": i % 2, "text": "a text"}

    with pytest.raises(InvalidInputError, match='sample 0, "text" is no array of numbers; leave it out: choose others'):
        list(open_source(Samples(sample), ReadOptions()).blocks())
    reader = open_source(Samples(sample, classes=["no", "yes"]), ReadOptions(columns=["input_ids", "attention_mask"]))
    [block] = reader.blocks()
    assert {name: (array.dtype.name, array.shape) for name, array in block.items()} == {
        "targets": ("int64", (5,)),
        "attention_mask": ("int64", (5, 3)),
        "input_ids": ("int64", (5, 3)),
    }
    assert reader.class_labels == ("no", "yes")
    for wrong, said in (
        (
            lambda i: {"ids": [1] * (1 + i), "y": 0},
            r"sample 1 has ids of shape \(2,\), targets of shape \(\), sample 0",
        ),
        (lambda i: {"ids": [[1], [2, 3]], "y": 0}, "sample 0 has lists of different lengths"),
        (lambda i: {"ids": 1, "y": 0} if i == 0 else {"y": 0}, "sample 1 has targets of shape"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            list(open_source(Samples(wrong), ReadOptions()).blocks())
    with pytest.raises(InvalidInputError, match='sample 0 has no "kind"; it has input_ids, attention_mask'):
        list(open_source(Samples(sample), ReadOptions(target="kind")).blocks())


@pytest.mark.torch
def test_datasets_of_pytorch_are_read() -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.arange(12.0).reshape(4, 3), torch.tensor([0, 1, 2, 1]))
    inputs, targets, _ = read(data)
    assert inputs.tolist() == torch.arange(12.0).reshape(4, 3).tolist()
    assert targets.tolist() == [0, 1, 2, 1]
