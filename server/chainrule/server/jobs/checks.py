"""What is wrong with a job as asked for, field by field."""

from __future__ import annotations

import math
from dataclasses import fields

from chainrule.server.errors import InvalidRequestError, Violation, echo
from chainrule.server.jobs.column_checks import check_inputs
from chainrule.server.jobs.image_checks import check_augmentation
from chainrule.server.jobs.objective_checks import check_objective
from chainrule.server.training.config import Adam, ParameterGroup, Schedule, Sgd, TrainingConfig, Validation

MAX_EPOCHS = 1_000_000
MAX_SHARDS = 65_536
MAX_PARTITIONS = 64
MAX_KEPT_CHECKPOINTS = 1000
MAX_PRIORITY = 100
"""Highest priority; the lowest is as far below 0."""
MAX_GROUPS = 64
MAX_FRACTION = 0.9
"""Largest share of a dataset that can be kept back for validation."""


class _Checks:
    """Collects what is wrong under a path."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.found: list[Violation] = []

    def that(self, right: bool, field: str, description: str) -> None:
        if not right:
            self.found.append(Violation(f"{self._path}.{field}", description))

    def above_zero(self, field: str, value: float) -> None:
        self.that(math.isfinite(value) and value > 0, field, f"is {value}; use a number above 0")

    def from_zero(self, field: str, value: float) -> None:
        self.that(math.isfinite(value) and value >= 0, field, f"is {value}; use 0 or more")

    def share(self, field: str, value: float) -> None:
        self.that(0 <= value <= 1, field, f"is {value}; use 0 to 1")


def check_config(config: TrainingConfig) -> list[Violation]:
    """Everything that is wrong with a configuration, whatever the model and the data."""
    checks = _Checks("job.config")
    _check_steps(checks, config)
    _check_workers(checks, config)
    match config.optimizer:
        case Sgd() as sgd:
            _check_sgd(checks, sgd)
        case Adam() as adam:
            _check_adam(checks, adam)
    _check_groups(checks, config)
    _check_average(checks, config)
    _check_schedule(checks, config.schedule)
    _check_gradients(checks, config)
    _check_validation(checks, config.validation)
    _check_operation(checks, config)
    return [*checks.found, *check_inputs(config), *check_objective(config), *check_augmentation(config.augmentation)]


def check_priority(priority: int) -> list[Violation]:
    """What is wrong with a priority."""
    if -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        return []
    return [Violation("job.priority", f"is {priority}; use {-MAX_PRIORITY} to {MAX_PRIORITY}")]


def scaled(config: TrainingConfig, *, min_workers: int, max_workers: int) -> tuple[int, int]:
    """The fewest and the most workers of a job that is asked to have others; 0 leaves one as it is. Raises
    InvalidRequestError naming the request's field."""
    least, most = min_workers or config.min_workers, max_workers or config.max_workers
    if min_workers < 0:
        raise InvalidRequestError.of("min_workers", f"is {min_workers}; use 1 or more, or 0 to leave it")
    if max_workers < 0 or most > config.shards:
        raise InvalidRequestError.of(
            "max_workers",
            f"is {max_workers}; use 1 to {config.shards}, the job's shards, since a shard is computed by one worker, "
            "or 0 to leave it",
        )
    if least > most:
        field = "min_workers" if min_workers else "max_workers"
        raise InvalidRequestError.of(field, f"makes them {least} to {most}; use at most max_workers for min_workers")
    return least, most


# --- what fixes the weights ------------------------------------------------------------------------------------


def _check_steps(checks: _Checks, config: TrainingConfig) -> None:
    checks.that(1 <= config.epochs <= MAX_EPOCHS, "epochs", f"is {config.epochs}; use 1 to {MAX_EPOCHS:,}")
    checks.that(config.batch_size >= 1, "batch_size", f"is {config.batch_size}; use at least 1")
    checks.that(1 <= config.shards <= MAX_SHARDS, "shards", f"is {config.shards}; use 1 to {MAX_SHARDS:,}")
    checks.that(
        config.shards <= max(config.batch_size, 1),
        "shards",
        f"is {config.shards}, more than batch_size {config.batch_size}: a shard would have no example; "
        "use at most one shard for each example of a batch",
    )
    smallest = config.batch_size // max(config.shards, 1)
    checks.that(config.accumulate >= 1, "accumulate", f"is {config.accumulate}; use at least 1")
    checks.that(
        config.accumulate <= max(smallest, 1),
        "accumulate",
        f"is {config.accumulate}, but the smallest of {config.shards} shards of a batch of {config.batch_size} has "
        f"{smallest} examples: a piece would have none; use at most {max(smallest, 1)}, or fewer shards",
    )


def _check_sgd(checks: _Checks, sgd: Sgd, path: str = "sgd") -> None:
    checks.above_zero(f"{path}.lr", sgd.lr)
    checks.from_zero(f"{path}.momentum", sgd.momentum)
    checks.that(math.isfinite(sgd.dampening), f"{path}.dampening", f"is {sgd.dampening}; use a finite number")
    checks.from_zero(f"{path}.weight_decay", sgd.weight_decay)
    possible = not sgd.nesterov or (sgd.momentum > 0 and sgd.dampening == 0)
    checks.that(possible, f"{path}.nesterov", "needs momentum above 0 and dampening 0")


def _check_adam(checks: _Checks, adam: Adam, path: str = "adam") -> None:
    checks.above_zero(f"{path}.lr", adam.lr)
    for field in ("beta1", "beta2"):
        beta = getattr(adam, field)
        checks.that(0 <= beta < 1, f"{path}.{field}", f"is {beta}; use a number from 0, below 1")
    checks.from_zero(f"{path}.eps", adam.eps)
    checks.from_zero(f"{path}.weight_decay", adam.weight_decay)


def _check_groups(checks: _Checks, config: TrainingConfig) -> None:
    """The settings that each group comes to, unless those of the optimizer are wrong already."""
    count = len(config.parameter_groups)
    checks.that(count <= MAX_GROUPS, "parameter_groups", f"has {count} groups; use at most {MAX_GROUPS}")
    kind = "sgd" if isinstance(config.optimizer, Sgd) else "adam"
    is_wrong = any(violation.field.startswith(f"job.config.{kind}.") for violation in checks.found)
    known = {field.name for field in fields(config.optimizer)}
    for index, group in enumerate(config.parameter_groups):
        path = f"parameter_groups[{index}]"
        _check_patterns(checks, group, path)
        unknown = [name for name in group.settings if name not in known]
        for name in unknown:
            checks.that(False, f"{path}.{name}", f"is not a setting of the job's optimizer, {kind}; leave it out")
        checks.that(bool(group.settings), path, "sets nothing; give it lr, weight_decay or the like, or leave it out")
        if unknown or is_wrong:
            continue
        match group.of(config.optimizer):
            case Sgd() as sgd:
                _check_sgd(checks, sgd, path)
            case Adam() as adam:
                _check_adam(checks, adam, path)


def _check_patterns(checks: _Checks, group: ParameterGroup, path: str) -> None:
    checks.that(bool(group.patterns), f"{path}.patterns", 'names nothing; use patterns of names, for example "*.bias"')
    for place, pattern in enumerate(group.patterns):
        where = f"{path}.patterns[{place}]"
        checks.that(bool(pattern), where, 'is empty; use a pattern of names, for example "*.bias"')


def _check_average(checks: _Checks, config: TrainingConfig) -> None:
    decay = config.ema_decay
    checks.that(0 <= decay < 1, "ema_decay", f"is {decay}; use a number above 0, below 1, or 0 for no average")


def _check_schedule(checks: _Checks, schedule: Schedule) -> None:
    checks.from_zero("schedule.warmup_steps", schedule.warmup_steps)
    checks.from_zero("schedule.decay_steps", schedule.decay_steps)
    checks.that(0 < schedule.gamma <= 1, "schedule.gamma", f"is {schedule.gamma}; use a number above 0, at most 1")
    checks.share("schedule.final_factor", schedule.final_factor)


def _check_gradients(checks: _Checks, config: TrainingConfig) -> None:
    checks.from_zero("clip_norm", config.clip_norm)
    one = config.partitions <= 1
    split = f"needs the whole gradient in one place, but partitions is {config.partitions}; use partitions 0 or 1"
    checks.that(one or not config.clip_norm > 0, "clip_norm", split)
    checks.that(one or config.non_finite == "fail", "non_finite", f"SKIP {split}")
    checks.that(bool(config.trainable), "trainable", "names nothing; leave it out to train all parameters")
    for index, pattern in enumerate(config.trainable):
        checks.that(bool(pattern), f"trainable[{index}]", 'is empty; use a pattern of names, for example "fc.*"')
    checks.from_zero("staleness", config.staleness)
    if config.staleness > 0:
        _check_stale(checks, config)


def _check_stale(checks: _Checks, config: TrainingConfig) -> None:
    """What goes with contributions that are applied when they come, each by itself."""
    is_set = f"does not go with staleness {config.staleness}, which applies every contribution by itself"
    checks.that(
        not config.exact,
        "staleness",
        f"is {config.staleness}: weights would depend on timing, but exact is true; use staleness 0, or exact false",
    )
    checks.that(config.partitions <= 1, "partitions", f"is {config.partitions}, which {is_set}; use partitions 0 or 1")
    checks.that(not config.clip_norm > 0, "clip_norm", f"is {config.clip_norm}, which {is_set}; use clip_norm 0")
    checks.that(not config.ema_decay > 0, "ema_decay", f"is {config.ema_decay}, which {is_set}; use ema_decay 0")
    checks.that(config.non_finite == "fail", "non_finite", f"SKIP {is_set}; use FAIL")
    most = 4096  # the place of every shard is told with every answer
    checks.that(config.shards <= most, "shards", f"is {config.shards}; with staleness use at most {most:,}")
    checks.that(not config.audit_fraction > 0, "audit_fraction", f"is {config.audit_fraction}, which {is_set}; use 0")


def _check_validation(checks: _Checks, validation: Validation) -> None:
    fraction = validation.fraction
    checks.that(
        0 <= fraction <= MAX_FRACTION,
        "validation.fraction",
        f"is {fraction}; use a number above 0, at most {MAX_FRACTION}, or 0 for none",
    )
    checks.that(
        not (validation.dataset and fraction > 0),
        "validation.fraction",
        f"is {fraction}, but validation.dataset is {echo(validation.dataset)}; use one of the two",
    )
    checks.that(
        fraction > 0 or not validation.seed,
        "validation.seed",
        f"is {validation.seed}, but there is no share to draw; set validation.fraction, or leave the seed out",
    )
    wanted = "needs something to evaluate on; set validation.dataset or validation.fraction, or leave it out"
    checks.from_zero("validation.patience", validation.patience)
    checks.that(
        validation.wanted or validation.patience <= 0, "validation.patience", f"is {validation.patience}; {wanted}"
    )
    checks.that(validation.wanted or not validation.restore_best, "validation.restore_best", wanted)
    checks.that(validation.wanted or not validation.metric, "validation.metric", wanted)


# --- what does not ---------------------------------------------------------------------------------------------


def _check_workers(checks: _Checks, config: TrainingConfig) -> None:
    checks.that(
        1 <= config.max_workers <= max(config.shards, 1),
        "max_workers",
        f"is {config.max_workers}; use 1 to shards ({config.shards}), since a shard is computed by one worker",
    )
    checks.that(config.min_workers >= 1, "min_workers", f"is {config.min_workers}; use at least 1")
    checks.that(
        config.min_workers <= max(config.max_workers, 1),
        "min_workers",
        f"is {config.min_workers}, more than max_workers {config.max_workers}; use at most that, or more max_workers",
    )


def _check_operation(checks: _Checks, config: TrainingConfig) -> None:
    partitions, kept = config.partitions, config.keep_checkpoints
    checks.that(0 <= partitions <= MAX_PARTITIONS, "partitions", f"is {partitions}; use 0 to {MAX_PARTITIONS}")
    checks.from_zero("checkpoint_every_steps", config.checkpoint_every_steps)
    checks.that(1 <= kept <= MAX_KEPT_CHECKPOINTS, "keep_checkpoints", f"is {kept}; use 1 to {MAX_KEPT_CHECKPOINTS:,}")
    checks.from_zero("receipt_every_steps", config.receipt_every_steps)
    checks.share("audit_fraction", config.audit_fraction)
    checks.from_zero("max_failures", config.max_failures)
