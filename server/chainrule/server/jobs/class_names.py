"""What the classes are called that a job trains a network to tell apart."""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.server.errors import InvalidRequestError, echo
from chainrule.server.records import Dataset, Model
from chainrule.server.training.config import TrainingConfig
from chainrule.server.training.losses import TARGETS, class_axis
from chainrule.server.training.objectives import Objective


def class_names(
    outputs: object, output_names: Sequence[str], model: Model, dataset: Dataset, config: TrainingConfig
) -> tuple[str, ...]:
    """The dataset's names of classes, if the version that the job makes is to have them; none if it is called as its
    model says, or nobody says.

    They are those of the first loss, if it is one of classes, and the network tells as many apart.

    Args:
        outputs: of one example, as the losses take them.

    Raises InvalidRequestError if the model has other names: one of the two would be wrong.
    """
    objective = Objective(config, output_names)
    term = objective.terms[0]
    if term.kind.family != "classes" or term.column != TARGETS or not dataset.class_labels or not dataset.num_classes:
        return ()
    shape = tuple(objective.output(outputs, term.settings.output).shape)
    axis = class_axis(shape, (1, *dataset.target_shape))
    if axis is None or shape[axis] != len(dataset.class_labels):
        return ()
    if not model.class_labels:
        return dataset.class_labels
    if model.class_labels != dataset.class_labels:
        place = next(
            (
                i
                for i, pair in enumerate(zip(model.class_labels, dataset.class_labels, strict=False))
                if len({*pair}) > 1
            ),
            0,
        )
        raise InvalidRequestError.of(
            "job.dataset",
            f'calls class {place} {echo(dataset.class_labels[place])}, but "{model.name}" calls it '
            f"{echo(model.class_labels[place])}; create the dataset with the class_labels of the "
            "model, in the order of its targets, or a model without class_labels",
        )
    return ()
