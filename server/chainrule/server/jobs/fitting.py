"""What the checks of losses and metrics against a model and a dataset go by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chainrule.server.errors import InvalidRequestError
from chainrule.server.records import Dataset, Model
from chainrule.server.training.config import TrainingConfig
from chainrule.server.training.examples import TARGETS
from chainrule.server.training.state import Array


@dataclass(frozen=True)
class Fit:
    """What the checks of one dataset go by."""

    model: Model
    dataset: Dataset
    config: TrainingConfig
    field: str
    """Of the request, that names the dataset."""
    is_first: bool
    """Whether it is the one that is trained on: then what does not fit is the loss as given."""

    @property
    def told(self) -> bool:
        """Whether what does not fit is a loss that was given, rather than the dataset."""
        return bool(self.config.losses) and self.is_first

    def refused(self, index: int, name: str, description: str) -> InvalidRequestError:
        """What is wrong with a loss; with the dataset, where no loss was given, or the loss fits another dataset."""
        if not self.told:
            if self.config.losses and description.startswith(("is ", "has ")):  # of the loss, which is to be named
                description = f"does not go with the {name} of losses[{index}], which {description}"
            return InvalidRequestError.of(self.field, description)
        return InvalidRequestError.of(f"job.config.losses[{index}].{name}", description)


@dataclass(frozen=True)
class Goal:
    """A column that outputs are compared with."""

    dataset: Dataset
    name: str
    array: Array
    """One example of it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example, as a batch."""
        return self.array.shape

    @property
    def what(self) -> str:
        return TARGETS if self.name == TARGETS else f'values of "{self.name}"'

    @property
    def where(self) -> str:
        return f'the {self.what} of "{self.dataset.name}"'

    @property
    def among(self) -> str:
        """Where its labels are."""
        return "" if self.name == TARGETS else f' in "{self.name}"'

    @property
    def num_classes(self) -> int:
        """The highest label plus one; 0: it has no labels."""
        if self.array.dtype != np.int64:
            return 0
        found = self.dataset.statistics_of(self.name)
        return self.dataset.num_classes if found is None or self.name == TARGETS else max(0, int(found.max) + 1)

    def highest_but(self, ignored: int | None) -> int:
        """The highest label, leaving out the one that counts for nothing; -1: it is not known, or there is none."""
        if ignored != self.num_classes - 1:
            return self.num_classes - 1
        found = self.dataset.statistics_of(self.name)
        counts = () if found is None else found.class_counts
        return max((label for label, count in enumerate(counts) if count and label != ignored), default=-1)


def batch_text(shape: tuple[object, ...]) -> str:
    """The shape of a batch, as one writes it."""
    return f"({', '.join(['N', *map(str, shape[1:])])})" if len(shape) > 1 else "(N,)"
