"""Datasets that give one sample for each number, as those of PyTorch do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.client.errors import InvalidInputError
from chainrule.client.reading.arrays import to_block
from chainrule.client.reading.options import ReadOptions
from chainrule.client.reading.source import Block, rows_at_a_time
from chainrule.client.reading.tables import TARGET_NAMES


class SampleReader:
    """A map-style dataset: `len(dataset)`, and `dataset[i]`, which is a pair of input and target, or a mapping with a
    value for each column. Of a mapping, one column is the target, as of a table, and the others keep their names.

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
        first = self._sample(0)
        rows = rows_at_a_time(sum(array.size for array in first.values()) * 8)
        for start in range(0, total, rows):
            samples = [self._sample(number) for number in range(start, min(start + rows, total))]
            for number, sample in enumerate(samples, start):
                if _shapes(sample) != _shapes(first):
                    raise InvalidInputError(
                        f"sample {number} has {_shapes(sample)}, sample 0 has {_shapes(first)}; all must be alike"
                    )
            columns = {name: np.stack([sample[name] for sample in samples]) for name in first}
            block = to_block(columns, replace(self._options, pictures=True), first_row=start)
            if not self._options.regression and "targets" in block:
                self._highest = max(self._highest, int(block["targets"].max()))
            yield block

    def _sample(self, number: int) -> Mapping[str, NDArray[Any]]:
        sample = self._dataset[number]
        if isinstance(sample, Mapping):
            return self._columns(number, sample)
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise InvalidInputError(
                f"sample {number} is a {type(sample).__name__}; a dataset must give pairs of input and target, or "
                "mappings by column"
            )
        return {"inputs": _to_array(sample[0]), "targets": np.asarray(sample[1])}

    def _columns(self, number: int, sample: Mapping[Any, Any]) -> Mapping[str, NDArray[Any]]:
        names = [str(name) for name in sample]
        target = self._options.target or next((name for name in names if name.lower() in TARGET_NAMES), None)
        others = [name for name in names if name != target] if self._options.columns is None else self._options.columns
        wanted = [*others, *([] if target is None else [target])]
        for name in wanted:
            if name not in sample:
                raise InvalidInputError(f'sample {number} has no "{name}"; it has {", ".join(names[:20])}')
        try:
            found = {"targets" if name == target else name: _to_array(sample[name]) for name in wanted}
        except ValueError as error:
            raise InvalidInputError(f"sample {number} has lists of different lengths: {error}") from error
        for name, array in found.items():
            if array.dtype.kind not in "fiub":
                raise InvalidInputError(
                    f'sample {number}, "{name}" is no array of numbers; leave it out: choose others with columns'
                )
        return found


def _shapes(sample: Mapping[str, NDArray[Any]]) -> str:
    """What tells a sample from one that is not like it."""
    return ", ".join(f"{name} of shape {array.shape}" for name, array in sample.items())


def _to_array(value: Any) -> NDArray[Any]:
    if hasattr(value, "getbands"):  # a picture of Pillow
        pixels = np.asarray(value)
        return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return np.asarray(value)
