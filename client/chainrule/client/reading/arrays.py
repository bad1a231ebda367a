"""Arrays in memory, or mapped into it: cut into blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.client.examples import to_examples
from chainrule.client.reading.options import ReadOptions
from chainrule.client.reading.source import Block, rows_at_a_time


class ArrayReader:
    """Inputs and targets that are arrays. Arrays of different lengths are one block, for the server to refuse."""

    class_labels: tuple[str, ...] = ()

    def __init__(self, inputs: ArrayLike, targets: ArrayLike, options: ReadOptions | None = None) -> None:
        self._inputs = np.asarray(inputs)
        self._targets = np.asarray(targets)
        self._options = options or ReadOptions()

    @property
    def num_rows(self) -> int | None:
        """See Reader."""
        return len(self._inputs) if self._inputs.ndim else None

    def blocks(self) -> Iterator[Block]:
        """See Reader."""
        inputs, targets = self._inputs, self._targets
        if not inputs.ndim or not targets.ndim or len(inputs) != len(targets) or len(inputs) == 0:
            yield self._block(inputs, targets, 0)
            return
        rows = rows_at_a_time((inputs.size + targets.size) * 8 // len(inputs))
        for start in range(0, len(inputs), rows):
            yield self._block(inputs[start : start + rows], targets[start : start + rows], start)

    def _block(self, inputs: NDArray[Any], targets: NDArray[Any], first_row: int) -> Block:
        return to_block(inputs, targets, self._options, first_row=first_row)


def to_block(inputs: NDArray[Any], targets: NDArray[Any], options: ReadOptions, *, first_row: int = 0) -> Block:
    """Some examples as they are sent. Raises InvalidInputError."""
    regression = options.regression
    if options.pictures and inputs.dtype == np.uint8:
        no_inputs = np.zeros(len(inputs))
        found = to_examples(inputs=no_inputs, targets=targets, regression=regression, first_row=first_row)
        return {"inputs": np.ascontiguousarray(inputs), "targets": found["targets"]}
    return to_examples(
        inputs=inputs, targets=targets, tokens=options.tokens, regression=regression, first_row=first_row
    )
