"""What is wrong with the columns that a job reads of its datasets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chainrule.engine import nn
from chainrule.server.errors import InvalidRequestError, Violation, echo
from chainrule.server.records import Dataset, Model
from chainrule.server.training.config import TrainingConfig
from chainrule.server.training.examples import INPUTS, TARGETS
from chainrule.server.training.reading import input_columns, input_names
from chainrule.server.training.state import Array

_FIELD = "job.config.inputs"
MAX_INPUTS = 64
MAX_NAME_LENGTH = 128
"""Longest name of an input or a column."""


# --- columns ---------------------------------------------------------------------------------------------------


def listed(dataset: Dataset) -> str:
    """The columns of a dataset, as errors name them."""
    *most, last = [f'"{column.name}"' for column in dataset.columns] or ["none"]
    names = f"{', '.join(most)} and {last}" if most else last
    return f'"{dataset.name}" has {names if len(names) <= 400 else f"{names[:400]}…"}'


def missing(dataset: Dataset, column: str) -> str:
    """That a dataset lacks a column."""
    return f"{listed(dataset)}, but no column {echo(column)}"


def example_of(dataset: Dataset, name: str) -> Array:
    """One example of a column, (1, ...), as workers read it: zeros, float32 or int64."""
    column = dataset.column(name)
    assert column is not None
    return np.zeros((1, *column.shape), np.int64 if column.dtype == "int64" else np.float32)


def check_alike(
    dataset: Dataset, validation: Dataset, columns: Sequence[str], *, may_differ: Sequence[str], field: str
) -> None:
    """What a network is evaluated on must look like what it is trained on. Raises InvalidRequestError naming the
    request's field, if one of the columns that the job reads is missing or other.

    Args:
        may_differ: columns whose shapes may, as those of images that are cropped for training.
    """
    for name in columns:
        own, other = dataset.column(name), validation.column(name)
        if other is None:
            raise InvalidRequestError.of(
                field, f"{missing(validation, name)}, which the job reads; evaluate on a dataset that has it"
            )
        if own is None:
            continue  # what trains is told of it
        what = name if name in (INPUTS, TARGETS) else f'values of "{name}"'
        if own.shape != other.shape and name not in may_differ:
            raise InvalidRequestError.of(
                field,
                f'"{validation.name}" has {what} of shape {_batch(other.shape)}, but "{dataset.name}" has '
                f"{_batch(own.shape)}; evaluate on a dataset of the same shape",
            )
        if (own.dtype == "int64") != (other.dtype == "int64"):
            kinds = {
                INPUTS: ("tokens", "float32 features"),
                TARGETS: ("class labels", "float32 numbers"),
            }.get(name, ("whole numbers", "float32 numbers"))
            of_own, of_other = (kinds[column.dtype != "int64"] for column in (own, other))
            raise InvalidRequestError.of(
                field,
                f'the {what} of "{validation.name}" are {of_other}, but those of "{dataset.name}" are {of_own}; '
                "evaluate on a dataset of the same kind",
            )


# --- inputs ----------------------------------------------------------------------------------------------------


def check_inputs(config: TrainingConfig) -> list[Violation]:
    """Everything that is wrong with which input takes which column, whatever the model and the data."""
    if len(config.inputs) > MAX_INPUTS:
        return [Violation(_FIELD, f"has {len(config.inputs)} inputs; use at most {MAX_INPUTS}")]
    return [
        Violation(_FIELD, f"takes {echo(column)} for {echo(name)}; names have 1 to {MAX_NAME_LENGTH} characters")
        for name, column in config.inputs.items()
        if not (1 <= len(name) <= MAX_NAME_LENGTH and 1 <= len(column) <= MAX_NAME_LENGTH)
    ]


def columns_of_inputs(
    module: nn.Module | None, model: Model, dataset: Dataset, config: TrainingConfig, *, field: str
) -> tuple[str, ...]:
    """The columns that the inputs of a network are read from, in their order; without the network, of its only input.
    Raises InvalidRequestError if the network has no such input, or the dataset no such column."""
    names = input_names(module) or [INPUTS]
    for name in config.inputs:
        if name not in names:
            takes = ", ".join(f'"{known}"' for known in names)
            raise InvalidRequestError.of(
                _FIELD, f'names {echo(name)}, but "{model.name}" takes {takes}; name one of these'
            )
    columns = input_columns(module, config)
    for name, column in zip(names, columns, strict=True):
        if dataset.column(column) is None:
            raise InvalidRequestError.of(
                _FIELD if name in config.inputs and field == "job.dataset" else field,
                f'{missing(dataset, column)}, which "{model.name}" takes as its input "{name}"; say which column it '
                f"takes with inputs={{{name!r}: …}}, or make a dataset with this one",
            )
    return columns


def example_of_inputs(dataset: Dataset, columns: Sequence[str]) -> list[Array]:
    """One example of each column: of zeros, if it is "inputs", else of the highest number, so that of a mask nothing is
    left out; with the highest and the lowest of whole numbers, whether the network has them."""
    found = [example_of(dataset, name) for name in columns]
    for name, array in zip(columns, found, strict=True):
        known, numbers = dataset.statistics_of(name), array.reshape(-1)
        if known is not None and name != INPUTS:
            numbers[:] = known.max
        if known is not None and array.dtype == np.int64:
            numbers[-1], numbers[0] = known.min, known.max
        elif array.dtype == np.int64 and name == INPUTS:
            numbers[0] = dataset.num_tokens - 1
    return found


def _batch(shape: tuple[int, ...]) -> str:
    """The shape of a batch of such examples, as one writes it."""
    return f"({', '.join(['N', *map(str, shape)])})" if shape else "(N,)"
