"""How to train: the settings of a job, and what a caller may give in place of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, SupportsFloat, TypeVar, cast

from chainrule.client.augmentation import Augmentation
from chainrule.client.errors import InvalidInputError
from chainrule.client.wire import resource_name, texts

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sgd:
    """Stochastic gradient descent with PyTorch's formulas (torch.optim.SGD)."""

    lr: float = 0.01
    """Learning rate, above 0."""
    momentum: float = 0.0
    """Momentum factor, from 0."""
    dampening: float = 0.0
    """Dampening of the momentum."""
    weight_decay: float = 0.0
    """L2 penalty, from 0."""
    nesterov: bool = False
    """Nesterov momentum; needs momentum above 0 and dampening 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """Adam with PyTorch's formulas (torch.optim.Adam); AdamW (torch.optim.AdamW) if the weight decay is decoupled."""

    lr: float = 1e-3
    """Learning rate, above 0."""
    beta1: float = 0.9
    """How much of the average gradient is kept at a step; from 0, below 1."""
    beta2: float = 0.999
    """How much of the average squared gradient is kept at a step; from 0, below 1."""
    eps: float = 1e-8
    """What keeps the denominator from 0; from 0."""
    weight_decay: float = 0.0
    """Weight decay, from 0."""
    decoupled: bool = False
    """Whether the parameters decay by themselves (AdamW) instead of in the gradient."""


Optimizer = Sgd | Adam


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Parameters with settings of their own, as torch.optim's parameter groups. What is None is as the optimizer has
    it."""

    patterns: tuple[str, ...]
    """Which parameters: patterns of their names, as in a shell. One that several groups match is of the first."""
    lr: float | None = None
    """Learning rate in place of the optimizer's, above 0; the schedule is a factor of it, too."""
    weight_decay: float | None = None
    """Weight decay, from 0."""
    momentum: float | None = None
    """Momentum factor, from 0; SGD only."""
    dampening: float | None = None
    """Dampening of the momentum; SGD only."""
    nesterov: bool | None = None
    """Nesterov momentum; SGD only."""
    beta1: float | None = None
    """How much of the average gradient is kept at a step; from 0, below 1; Adam only."""
    beta2: float | None = None
    """How much of the average squared gradient is kept at a step; from 0, below 1; Adam only."""
    eps: float | None = None
    """What keeps the denominator from 0; from 0; Adam only."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the group sets, by name."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "patterns"}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The learning rate of each step, as a factor of the optimizer's: first a linear rise, then a decay."""

    warmup_steps: int = 0
    """Steps of the rise: step s of them, from 0, has the factor (s + 1) / (warmup_steps + 1)."""
    decay: Literal["none", "step", "linear", "cosine"] = "none"
    """What follows: nothing; a drop by `gamma` every `decay_steps`; or a fall to `final_factor` within `decay_steps`,
    straight or along half a cosine."""
    decay_steps: int = 0
    """Steps between two drops, or of the fall; 0: all that are left of the job."""
    gamma: float = 0.1
    """Factor of a drop; above 0, at most 1."""
    final_factor: float = 0.0
    """Where a fall ends; from 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """How a model is evaluated after each epoch: on the workers, and with the running statistics."""

    dataset: str = ""
    """Name of a second dataset, "val" or "datasets/val"; empty: a share of the first."""
    fraction: float = 0.0
    """Share of the dataset that is kept back from training, its last examples or those that `seed` draws; 0: none. Not
    with `dataset`."""
    patience: int = 0
    """Epochs without a better evaluation after which the job stops early; 0: never."""
    restore_best: bool = False
    """Whether the weights of the epoch with the best evaluation are the result, instead of the last."""
    seed: int = 0
    """Draws the examples that `fraction` keeps back, from 0; 0: they are the last ones."""
    metric: str = ""
    """What tells whether an evaluation is better than another: a value that is measured, by its name: "accuracy",
    "f1_macro", "rmse". Which way is better follows from the metric. Empty: the loss."""

    @property
    def wanted(self) -> bool:
        """Whether the model is evaluated at all."""
        return bool(self.dataset) or self.fraction > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a target costs, given an output of the model: the mean over the global batch. A field that the loss of this
    name does not have must keep its default."""

    name: str = "cross_entropy"
    """"cross_entropy" and "nll" of class labels, "bce_with_logits" of several labels at once, "mse", "l1", "huber" and
    "smooth_l1" of numbers, "dice" of regions."""
    output: str = ""
    """Name of the model's output, or its place, from "0"; empty: the first."""
    target: str = ""
    """Column of the dataset; empty: "targets"."""
    weight: float = 1.0
    """Factor in the sum of several losses, above 0."""
    label_smoothing: float = 0.0
    """cross_entropy: share of each target that is spread evenly over all classes, from 0 to 1."""
    class_weights: tuple[float, ...] = ()
    """cross_entropy, nll: a weight for each class, from 0; empty: all weigh the same."""
    ignore_index: int | None = None
    """cross_entropy, nll, dice: a label that does not count, as -100; None: all do."""
    example_weight: str = ""
    """Column of the dataset with a weight for each example; empty: all weigh the same."""
    pos_weight: tuple[float, ...] = ()
    """bce_with_logits: what positive targets are multiplied by, one number for each label or one for all."""
    delta: float = 1.0
    """huber: from which difference on the loss is linear, above 0."""
    beta: float = 1.0
    """smooth_l1: from which difference on the loss is linear, from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """Something that is measured of each step and evaluation, besides the loss."""

    name: str
    """Of classes "accuracy", "top_k", "perplexity"; of classes, several labels or regions "precision", "recall", "f1",
    "iou", "mean_iou"; of several labels "accuracy", "subset_accuracy"; of numbers "mae", "mse", "rmse", "r2"."""
    output: str = ""
    """Name of the model's output, or its place, from "0"; empty: the first."""
    target: str = ""
    """Column of the dataset; empty: "targets"."""
    k: int = 5
    """top_k: among how many of the highest outputs the label has to be, from 1."""
    threshold: float = 0.5
    """Of several labels: the probability above which one counts as predicted."""
    average: str = ""
    """precision, recall, f1, iou: "macro", "micro", "binary" or "none", a value for each class; r2: "macro" or "micro".
    Empty: "macro"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How to train. WEIGHT_FIELDS fix the resulting weights; the others, from `min_workers` on, do not."""

    epochs: int = 1
    """Passes over the dataset."""
    batch_size: int = 64
    """Examples of one step: the global batch."""
    shards: int = 1
    """Slices each global batch is cut into, at most `batch_size`; fixes the numerics."""
    seed: int = 0
    """Seed of the order of examples and of dropout."""
    optimizer: Optimizer = field(default_factory=Sgd)
    """What turns gradients into weights."""
    schedule: Schedule = field(default_factory=Schedule)
    """How the learning rate changes."""
    clip_norm: float = 0.0
    """Longest gradient, as the norm over all parameters; a longer one is shortened to it. 0: no limit."""
    parameter_groups: tuple[ParameterGroup, ...] = ()
    """Parameters with settings of their own; a parameter is of the first group that matches it, and those that none
    matches have the optimizer's settings."""
    accumulate: int = 1
    """Pieces that each shard is cut into. They are computed one after another and their gradients added up: the global
    batch is the same, the memory for it less."""
    ema_decay: float = 0.0
    """How much of the average of the weights is kept at an update; above 0, below 1. The average is what is evaluated,
    and the result. 0: there is none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What products and convolutions of a step compute in. Weights, gradients and the optimizer's state are float32
    with either."""
    trainable: tuple[str, ...] = ("*",)
    """Which parameters are trained: patterns of their names, as in a shell; the others stay as they are."""
    non_finite: Literal["fail", "skip"] = "fail"
    """What a loss or gradient that is NaN or infinite does: fail the job, or leave out the step's update."""
    validation: Validation = field(default_factory=Validation)
    """How the model is evaluated after each epoch; by default not at all."""
    staleness: int = 0
    """Steps that a worker may be ahead of the slowest. 0: synchronous, and exact. Above it, the weights depend on
    timing, and `exact` must be False."""
    losses: tuple[Loss, ...] = ()
    """What is minimised: their sum, each times its weight. Empty: cross entropy."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """What is done to images before they are trained on; by default nothing."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Input of the model → column of the dataset that it takes. The only input takes "inputs" where nothing is said,
    each of several the column of its name."""
    metrics: tuple[MetricSpec, ...] = ()
    """What is measured besides. Empty: accuracy, where the first loss is cross_entropy or nll."""
    min_workers: int = 1
    """Fewest workers to train with; with fewer the job waits."""
    max_workers: int = 1
    """Most workers, at most one for each shard; as many are used as the cluster has room for."""
    partitions: int = 0
    """Parts of the parameter server; 0: chosen by the size of the model."""
    checkpoint_every_steps: int = 0
    """Steps between two checkpoints, besides those at the ends of epochs; 0: only those."""
    keep_checkpoints: int = 3
    """Latest checkpoints that are kept, besides the best."""
    receipt_every_steps: int = 100
    """Steps between two receipts, besides those at the ends of epochs; 0: only those."""
    audit_fraction: float = 0.0
    """Share of shards, drawn at random, that two workers compute and whose results are compared; from 0 to 1."""
    exact: bool = True
    """Whether workers whose kernels, instruction sets, threads or versions differ from the first's are refused."""
    max_failures: int = 10
    """Recoveries from a checkpoint without progress in between after which the job fails."""


WEIGHT_FIELDS = (
    "epochs",
    "batch_size",
    "shards",
    "seed",
    "optimizer",
    "schedule",
    "clip_norm",
    "parameter_groups",
    "accumulate",
    "ema_decay",
    "precision",
    "trainable",
    "non_finite",
    "validation",
    "staleness",
    "losses",
    "augmentation",
    "inputs",
)

LISTS_OF_NUMBERS = frozenset({"class_weights", "pos_weight"})
"""Fields of a loss."""

# What a caller may give in place of the settings.

_OPTIMIZERS: Mapping[str, tuple[type[Optimizer], Mapping[str, Any]]] = {
    "sgd": (Sgd, {}),
    "adam": (Adam, {}),
    "adamw": (Adam, {"decoupled": True, "weight_decay": 0.01}),  # torch.optim.AdamW's default
}


def to_optimizer(optimizer: Optimizer | str | Mapping[str, Any] | None) -> Optimizer:
    """An optimizer from its name, "sgd", "adam" or "adamw", or from its fields by name, of which "name" is one.

    None is SGD with its defaults, and so are fields without a name but with settings of their own.

    Raises:
        InvalidInputError: there is no optimizer of that name, or it has no such field.
    """
    if isinstance(optimizer, (Sgd, Adam)):
        return optimizer
    given = _mapping("optimizer", optimizer, example='"adam" or {"name": "adam", "lr": 0.001}', text="name")
    name = given.pop("name", "sgd")
    if name not in _OPTIMIZERS:
        raise InvalidInputError(f"there is no optimizer {name!r}; it must be one of {', '.join(_OPTIMIZERS)}")
    cls, preset = _OPTIMIZERS[name]
    if name == "adamw" and not given.get("decoupled", True):
        raise InvalidInputError('the weight decay of adamw is decoupled; for a coupled one, name the optimizer "adam"')
    return _from_mapping("optimizer", name, cls, {**preset, **given})


def to_parameter_groups(groups: Sequence[ParameterGroup | Mapping[str, Any]]) -> tuple[ParameterGroup, ...]:
    """Parameter groups, each from its fields by name.

    Raises:
        InvalidInputError: they are no list, one has no patterns, or there is no such field.
    """
    if isinstance(groups, (str, bytes, Mapping)) or not isinstance(groups, Sequence):
        raise InvalidInputError(f"parameter_groups is {groups!r}; it must be a list of groups, as [{_GROUP_EXAMPLE}]")
    return tuple(_to_parameter_group(f"parameter_groups[{index}]", group) for index, group in enumerate(groups))


_GROUP_EXAMPLE = '{"patterns": ["*.bias"], "weight_decay": 0}'


def _to_parameter_group(where: str, group: object) -> ParameterGroup:
    if isinstance(group, ParameterGroup):
        given = {"patterns": group.patterns, **group.settings}
    else:
        given = _mapping(where, group, example=_GROUP_EXAMPLE)
    patterns = texts(f"the patterns of {where}", given.pop("patterns", []))
    if not patterns:
        raise InvalidInputError(f"{where} has no patterns; name its parameters, as {_GROUP_EXAMPLE}")
    return _from_mapping(where, "it", ParameterGroup, {"patterns": patterns, **given})


def to_schedule(schedule: Schedule | str | Mapping[str, Any] | None) -> Schedule:
    """A schedule from its fields by name, or from its decay; None is a learning rate that stays as it is.

    Raises:
        InvalidInputError: a schedule has no such field, or there is no such decay.
    """
    if isinstance(schedule, Schedule):
        return schedule
    given = _mapping("schedule", schedule, example='"cosine" or {"decay": "cosine", "warmup_steps": 100}', text="decay")
    return _from_mapping("schedule", "it", Schedule, given)


def to_validation(validation: Validation | Mapping[str, Any] | None) -> Validation:
    """A validation from its fields by name, with the full name of its dataset; None is no validation.

    Raises:
        InvalidInputError: a validation has no such field.
    """
    if isinstance(validation, Validation):
        given = {f.name: getattr(validation, f.name) for f in fields(validation)}
    else:
        given = _mapping("validation", validation, example='{"fraction": 0.1}')
    dataset = given.get("dataset") or ""
    name = getattr(dataset, "name", dataset)  # a handle, or its name
    if isinstance(name, str) and name:
        name = resource_name("datasets", name)
    return _from_mapping("validation", "it", Validation, {**given, "dataset": name})


def to_losses(given: object) -> tuple[Loss, ...]:
    """Losses from the name of one, from its fields by name, or from a list of these; None is none: the default.

    Raises:
        InvalidInputError: a loss has no such field, or a value has the wrong type.
    """
    listed = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    return tuple(_loss(one) for one in listed)


def to_columns(inputs: Mapping[str, str] | None) -> dict[str, str]:
    """The columns of the dataset by the inputs that take them; None is none: as inputs are called.

    Raises:
        InvalidInputError: it is no mapping of texts.
    """
    given = _mapping("inputs", inputs, example='{"input_ids": "tokens"}')
    for name, column in given.items():
        if not isinstance(name, str) or not isinstance(column, str):
            raise InvalidInputError(f"inputs has {name!r}: {column!r}; each input takes the name of a column")
    return given


def to_metrics(given: object) -> tuple[MetricSpec, ...]:
    """Metrics from names, from their fields by name, or from a list of these.

    Raises:
        InvalidInputError: a metric has no name or no such field, or a value has the wrong type.
    """
    listed = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    return tuple(_metric(one) for one in listed)


def _loss(given: object) -> Loss:
    if isinstance(given, Loss):
        return given
    example = '"mse" or {"name": "cross_entropy", "label_smoothing": 0.1}'
    values = _mapping("loss", given, example=example, text="name")
    for name in LISTS_OF_NUMBERS & set(values):
        values[name] = _numbers(name, values[name])
    return _from_mapping("loss", "it", Loss, values)


def _metric(given: object) -> MetricSpec:
    if isinstance(given, MetricSpec):
        return given
    example = '"f1" or {"name": "top_k", "k": 3}'
    values = _mapping("metric", given, example=example, text="name")
    if not values.get("name"):
        raise InvalidInputError(f"the metric {values!r} has no name; give it, as {example}")
    return _from_mapping("metric", "it", MetricSpec, values)


def _numbers(field: str, values: object) -> tuple[float, ...]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidInputError(f"{field} is {values!r}; it must be a list of numbers")
    numbers = tuple(values)
    if not all(isinstance(value, SupportsFloat) and not isinstance(value, str) for value in numbers):
        raise InvalidInputError(f"{field} is {values!r}; it must be a list of numbers")
    return tuple(map(float, numbers))


def to_max_workers(*, workers: int | None, max_workers: int | None) -> int:
    """The most workers, from either way to say it.

    Raises:
        InvalidInputError: both are given, and are not the same.
    """
    if workers is not None and max_workers is not None and workers != max_workers:
        raise InvalidInputError(
            f"workers is {workers} and max_workers is {max_workers}; workers is short for max_workers: give one of them"
        )
    given = max_workers if workers is None else workers
    return TrainingConfig().max_workers if given is None else given


def to_trainable(trainable: Sequence[str]) -> tuple[str, ...]:
    """The patterns of what is trained.

    Raises:
        InvalidInputError: they are no list of texts, or there is none.
    """
    patterns = texts("trainable", trainable)
    if not patterns:
        raise InvalidInputError('trainable is empty; name what is trained, as ["fc.*"], or leave it out to train all')
    return patterns


def _mapping(kind: str, given: object, *, example: str, text: str = "") -> dict[str, Any]:
    """What is given by fields; a text alone is that of the field `text`, if there is one."""
    if given is None:
        return {}
    if text and isinstance(given, str):
        return {text: given}
    if not isinstance(given, Mapping):
        what = "a name or a mapping" if text else "a mapping"
        raise InvalidInputError(f"{kind} is {given!r}; it must be {what}, as {example}")
    return dict(given)


def _from_mapping(kind: str, subject: str, cls: type[T], given: Mapping[str, Any]) -> T:
    known = [f.name for f in fields(cast(Any, cls))]
    unknown = sorted(str(name) for name in set(given) - set(known))
    if unknown:
        raise InvalidInputError(f"the {kind} has no field {', '.join(unknown)}; {subject} takes {', '.join(known)}")
    return cls(**given)
