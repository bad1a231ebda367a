"""How to train, as values. The first part fixes the weights that come out; the second does not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from chainrule.server.training.augmentation import Augmentation


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with PyTorch's formulas."""

    lr: float = 0.01
    """Learning rate, above 0."""
    momentum: float = 0.0
    """Momentum factor, from 0."""
    dampening: float = 0.0
    """Dampening of the momentum."""
    weight_decay: float = 0.0
    """L2 penalty, from 0."""
    nesterov: bool = False
    """Nesterov momentum; needs momentum above 0 and no dampening."""


@dataclass(frozen=True)
class Adam:
    """Adam with PyTorch's formulas; AdamW if the weight decay is decoupled."""

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


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with settings of their own. What is None is as the optimizer has it."""

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

    def has(self, name: str) -> bool:
        """Whether a parameter's name fits one of the patterns."""
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)

    @property
    def settings(self) -> dict[str, Any]:
        """What the group sets, by name."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "patterns"}
        return {name: value for name, value in given.items() if value is not None}

    def of(self, optimizer: Optimizer) -> Optimizer:
        """The optimizer of the group's parameters. Raises TypeError for a setting that the optimizer does not have."""
        return replace(optimizer, **self.settings)


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each step, as a factor of the optimizer's `lr`: first a linear rise, then a decay."""

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

    def factor(self, step: int, total_steps: int) -> float:
        """The factor of step number `step`, from 0, in a job of `total_steps`."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.decay == "none":
            return 1.0
        done = step - self.warmup_steps
        length = self.decay_steps or max(1, total_steps - self.warmup_steps)
        if self.decay == "step":
            return math.prod([self.gamma] * (done // length))
        share = min(1.0, done / length)
        falling = 1.0 - share if self.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * share))
        return self.final_factor + (1.0 - self.final_factor) * falling


@dataclass(frozen=True)
class Validation:
    """How a model is evaluated after each epoch, on the workers and with the running statistics."""

    dataset: str = ""
    """Resource name of a second dataset; empty: a share of the first."""
    fraction: float = 0.0
    """Share of the dataset that is kept back, its last examples or those that `seed` draws; 0: none. Not with
    `dataset`."""
    patience: int = 0
    """Epochs without a better evaluation after which the job stops early; 0: never."""
    restore_best: bool = False
    """Whether the weights of the epoch with the best evaluation are the result, instead of the last."""
    seed: int = 0
    """Draws the examples that `fraction` keeps back; 0: they are the last ones."""
    metric: str = ""
    """What tells whether an evaluation is better than another: the name of a measured value; empty: the loss."""

    @property
    def wanted(self) -> bool:
        return bool(self.dataset) or self.fraction > 0


@dataclass(frozen=True)
class Loss:
    """What a target costs, given an output of the model: the mean over the global batch."""

    name: str = "cross_entropy"
    """As in `objectives.LOSSES`."""
    output: str = ""
    """Name or place of the model's output; empty: the first."""
    target: str = ""
    """Column of the dataset; empty: "targets"."""
    weight: float = 1.0
    """Factor in the sum of the losses, above 0."""
    label_smoothing: float = 0.0
    """cross_entropy: share of each target that is spread over all classes, from 0 to 1."""
    class_weights: tuple[float, ...] = ()
    """cross_entropy, nll: a weight for each class; empty: all weigh the same."""
    ignore_index: int | None = None
    """cross_entropy, nll, dice: a label that does not count; None: all do."""
    example_weight: str = ""
    """Column of the dataset with a weight for each example; empty: all weigh the same."""
    pos_weight: tuple[float, ...] = ()
    """bce_with_logits: what positive targets are multiplied by, one number for each label or one for all."""
    delta: float = 1.0
    """huber: from which difference on it is linear, above 0."""
    beta: float = 1.0
    """smooth_l1: from which difference on it is linear, from 0."""


@dataclass(frozen=True)
class MetricSpec:
    """Something that is measured besides the loss."""

    name: str
    """As in `metrics.METRICS`."""
    output: str = ""
    """Name or place of the model's output; empty: the first."""
    target: str = ""
    """Column of the dataset; empty: "targets"."""
    k: int = 5
    """top_k: among how many of the highest outputs the label has to be, from 1."""
    threshold: float = 0.5
    """Of several labels: the probability above which one counts as predicted."""
    average: str = ""
    """precision, recall, f1, iou: macro, micro, binary or none; r2: macro or micro. Empty: macro."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train."""

    # --- what fixes the weights ---
    epochs: int = 1
    """Passes over the dataset."""
    batch_size: int = 64
    """Examples of one step: the global batch."""
    shards: int = 1
    """Slices of each global batch. Fixes the numerics."""
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
    """What a NaN or infinite loss or gradient does: fail the job, or leave out the step's update."""
    validation: Validation = field(default_factory=Validation)
    """How the model is evaluated after each epoch."""
    staleness: int = 0
    """Steps that a worker may be ahead of the slowest. 0: synchronous, and exact. Above it, every contribution is
    applied when it comes, and the weights depend on timing."""
    losses: tuple[Loss, ...] = ()
    """What is minimised: their sum, each times its weight. Empty: cross entropy."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """What is done to images before they are trained on."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Input of the network → column of the dataset that it takes. The only input takes "inputs" where nothing is said,
    each of several the column of its name."""
    metrics: tuple[MetricSpec, ...] = ()
    """What is measured besides. Empty: accuracy, where the first loss is one of classes."""

    # --- what does not ---
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
    """Steps between two digests of the state, besides those at the ends of epochs; 0: only those."""
    audit_fraction: float = 0.0
    """Share of shards, drawn at random, that two workers compute and whose results are compared. From 0 to 1."""
    exact: bool = True
    """Whether workers whose kernels, instruction sets, threads or versions differ from the first's are refused."""
    max_failures: int = 10
    """Recoveries from a checkpoint without progress in between after which the job fails."""

    def optimizer_of(self, name: str) -> Optimizer:
        """The optimizer of a parameter: that of the first group that matches its name."""
        group = next((group for group in self.parameter_groups if group.has(name)), None)
        return self.optimizer if group is None else group.of(self.optimizer)
