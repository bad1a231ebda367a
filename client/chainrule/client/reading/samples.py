"""Datasets that give one sample for each number, as those of PyTorch do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading.arrays import to_block
from chainrule.client.reading.options import ReadOptions
from chainrule.client.reading.source import Block, rows_at_a_time


class SampleReader:
    """A map-style dataset: `len(dataset)`, and `dataset[i]`, which is a pair of input and target.

    Tensors and arrays are taken as they are; pictures of Pillow become (C, H, W). uint8 inputs are sent as they are,
    and divided by 255 on the workers.
    """

    def __init__(self, dataset: Any, options: ReadOptions) -> None:
        self._dataset = dataset
        self._options = options
        names = getattr(dataset, "classes", ())  # as torchvision has it
        is_named = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
        self._names: tuple[str, ...] = tuple(names) if is_named else ()
        self._highest = -1

    @property
    def class_labels(self) -> tuple[str, ...]:
        """See Reader."""
        return self._names if len(self._names) == self._highest + 1 else ()

    @property
    def num_rows(self) -> int | None:
        """See Reader."""
        return len(self._dataset)

    def blocks(self) -> Iterator[Block]:
        """See Reader."""
        total = len(self._dataset)
        if total == 0:
            return
        x, y = self._sample(0)
        rows = rows_at_a_time((x.size + y.size) * 8)
        for start in range(0, total, rows):
            samples = [self._sample(number) for number in range(start, min(start + rows, total))]
            for number, sample in enumerate(samples, start):
                if (sample[0].shape, sample[1].shape) != (x.shape, y.shape):
                    raise InvalidInputError(
                        f"sample {number} has an input of shape {sample[0].shape} and a target of shape "
                        f"{sample[1].shape}, those of sample 0 are {x.shape} and {y.shape}; all must be alike"
                    )
            inputs, targets = (np.stack(arrays) for arrays in zip(*samples, strict=True))
            options = replace(self._options, pictures=True)
            block = to_block({"inputs": inputs, "targets": targets}, options, first_row=start)
            if not self._options.regression:
                self._highest = max(self._highest, int(block["targets"].max()))
            yield block

    def _sample(self, number: int) -> tuple[NDArray[Any], NDArray[Any]]:
        sample = self._dataset[number]
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise InvalidInputError(
                f"sample {number} is a {type(sample).__name__}; a dataset must give pairs of input and target"
            )
        return _to_array(sample[0]), np.asarray(sample[1])


def _to_array(value: Any) -> NDArray[Any]:
    if hasattr(value, "getbands"):  # a picture of Pillow
        pixels = np.asarray(value)
        return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return np.asarray(value)
