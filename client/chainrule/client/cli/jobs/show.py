"""`chainrule jobs ls` and `status`, and how every command shows a job."""

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainrule.client.cli.jobs.options import JobArgument
from chainrule.client.cli.options import FilterOption, LimitOption, OrderByOption, labels_text
from chainrule.client.cli.output import first_line, short_digest, when
from chainrule.client.cli.session import AddressOption, FormatOption, Session, open_session

if TYPE_CHECKING:
    from chainrule.client.config import Loss, MetricSpec, Optimizer, Schedule, TrainingConfig, Validation
    from chainrule.client.status import Evaluation, JobEvent, JobStatus, Timings

SHOWN = 5  # events and evaluations of a status; there are commands for all of them
_FALLING = ("perplexity", "mae", "mse", "rmse")  # metrics of which less is better


def list_jobs(
    ctx: typer.Context,
    filter: FilterOption = "",
    order_by: OrderByOption = "",
    limit: LimitOption = 50,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """List jobs, newest first unless told otherwise."""
    with open_session(ctx, address, form) as session:
        session.output.rows(
            session.client.jobs.list(filter=filter, order_by=order_by, limit=limit),
            {
                "JOB": lambda s: s.name,
                "STATE": lambda s: s.state,
                "WORKERS": lambda s: str(s.running_workers),
                "MODEL": lambda s: s.model,
                "DATASET": lambda s: s.dataset,
                "EPOCH": lambda s: f"{s.progress.epoch}/{s.progress.total_epochs}",
                "LOSS": lambda s: "-" if s.progress.loss is None else f"{s.progress.loss:.4f}",
                "WEIGHTS": lambda s: short_digest(s.weights_digest),
                "LABELS": lambda s: labels_text(s.labels),
                "CREATED": lambda s: when(s.create_time),
            },
        )


def status(
    ctx: typer.Context,
    job: JobArgument,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show the traceback of a job that FAILED. JSON always has it.")
    ] = False,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Show one job as it is now, with its latest evaluations and events."""
    with open_session(ctx, address, form) as session:
        show(session, session.client.jobs.get(job).status(), traceback=traceback)


def show(session: Session, status: "JobStatus", *, error: bool = True, traceback: bool = False) -> None:
    """Show all of a job; of why it FAILED its first line, unless that is said elsewhere, and how to read the rest."""
    from chainrule.client.progress import describe

    lines = [
        ("job", status.name),
        ("progress", describe(status)),
        *_submitted_lines(status),
        *((("begins with", status.source_version),) if status.source_version else ()),
        *((("has made", status.result_version),) if status.result_version else ()),
        *(
            (("computed with", "; ".join(f"{k} {v}" for k, v in status.fingerprint.items())),)
            if status.fingerprint
            else ()
        ),
        ("created", when(status.create_time)),
        ("started", when(status.start_time)),
        ("ended", when(status.end_time)),
        *_timing_lines(status.timings),
        *_evaluation_lines(status),
        *_event_lines(session, status),
        ("weights sha256", status.weights_digest or "-"),
    ]
    if status.weights_step is not None and status.weights_step != status.progress.total_steps:
        lines.append(("weights after", f"step {status.weights_step} of {status.progress.total_steps}"))
    failure = status.error
    if failure and error:
        message = failure.message if traceback else first_line(failure.message)
        lines.append(("error", f"{failure.reason}: {message}"))
    if failure and failure.traceback:
        command = session.command(f"jobs status {status.name} --traceback")
        lines.append(("traceback", failure.traceback if traceback else f"shown by: {command}"))
    session.output.record(status, lines)


def show_submission(session: Session, status: "JobStatus") -> None:
    """Show what a job would be, if it were submitted."""
    session.output.record(status, _submitted_lines(status))


def _submitted_lines(status: "JobStatus") -> Iterator[tuple[str, str]]:
    yield "model", status.model
    yield "dataset", status.dataset
    if status.labels:
        yield "labels", labels_text(status.labels)
    if status.description:
        yield "description", status.description
    if status.priority:
        yield "priority", str(status.priority)
    yield from _config_lines(status.config)
    yield "workers", _workers(status)
    yield "safety", _safety(status.config)


def _timing_lines(timings: "Timings") -> Iterator[tuple[str, str]]:
    from chainrule.client.progress import duration

    spent = {f.name.removesuffix("_s"): getattr(timings, f.name) for f in fields(timings)}
    if any(spent.values()):
        yield "time spent", ", ".join(f"{state} {duration(seconds)}" for state, seconds in spent.items() if seconds)


# What a job is made of, in words. What is as by default is left out, except where people look for it.


def _config_lines(config: "TrainingConfig") -> Iterator[tuple[str, str]]:
    yield (
        "config",
        f"epochs {config.epochs}, batch size {config.batch_size}, shards {config.shards}, seed {config.seed}"
        + (f", staleness {config.staleness}" if config.staleness else ""),
    )
    if config.trainable != ("*",):
        yield "trainable", ", ".join(config.trainable)
    if config.inputs:
        yield "inputs", ", ".join(f"{name} from {column}" for name, column in config.inputs.items())
    for loss in config.losses:
        yield "loss", _changed(loss)
    for metric in config.metrics:
        yield "metric", _changed(metric)
    clipped = f", clip norm {config.clip_norm:g}" if config.clip_norm else ""
    yield "optimizer", _optimizer(config.optimizer) + clipped
    for group in config.parameter_groups:
        settings = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in group.settings.items())
        yield "parameter group", f"{', '.join(group.patterns)}: {settings}"
    for transform in config.augmentation.transforms:
        settings = ", ".join(f"{name} {_plain(value)}" for name, value in transform.items() if name != "name")
        yield "images", f"{transform['name'].replace('_', ' ')}{f': {settings}' if settings else ''}"
    recipe = [
        f"mixup {config.augmentation.mixup:g}" if config.augmentation.mixup else "",
        f"in {config.accumulate} pieces a shard" if config.accumulate > 1 else "",
        f"average of the weights with decay {config.ema_decay:g}" if config.ema_decay else "",
        config.precision if config.precision != "float32" else "",
    ]
    if any(recipe):
        yield "recipe", ", ".join(filter(None, recipe))
    schedule = _schedule(config.schedule)
    if schedule:
        yield "schedule", schedule
    if config.validation.wanted:
        yield "validation", _validation(config.validation)


def _changed(spec: "Loss | MetricSpec") -> str:
    """A loss or metric: its name, and what is not as by default."""
    default = type(spec)(name=spec.name)
    told = [
        f"{f.name.replace('_', ' ')} {getattr(spec, f.name)}"
        for f in fields(spec)
        if getattr(spec, f.name) != getattr(default, f.name)
    ]
    return ", ".join([spec.name, *told])


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_plain, value))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _optimizer(optimizer: "Optimizer") -> str:
    from chainrule.client.config import Adam

    if isinstance(optimizer, Adam):
        name = "adamw" if optimizer.decoupled else "adam"
        return (
            f"{name}, lr {optimizer.lr:g}, beta1 {optimizer.beta1:g}, beta2 {optimizer.beta2:g}, "
            f"eps {optimizer.eps:g}, weight decay {optimizer.weight_decay:g}"
        )
    return (
        f"sgd, lr {optimizer.lr:g}, momentum {optimizer.momentum:g}, dampening {optimizer.dampening:g}, "
        f"weight decay {optimizer.weight_decay:g}" + (", nesterov" if optimizer.nesterov else "")
    )


def _schedule(schedule: "Schedule") -> str:
    length = f"{schedule.decay_steps} steps" if schedule.decay_steps else "the steps left"
    warmup = [f"a rise over {schedule.warmup_steps} steps"] if schedule.warmup_steps else []
    decay = {
        "none": [],
        "step": [f"times {schedule.gamma:g} every {length}"],
    }.get(schedule.decay, [f"{schedule.decay} fall to {schedule.final_factor:g} of it within {length}"])
    return ", then ".join([*warmup, *decay])


def _validation(validation: "Validation") -> str:
    share = f"{100 * validation.fraction:g} % of the dataset"
    drawn = f"{share}, drawn by seed {validation.seed}" if validation.seed else f"the last {share}"
    examples = validation.dataset or drawn
    patience = f", patience {validation.patience}" if validation.patience else ""
    watched = f", by {validation.metric}" if validation.metric else ""
    return f"{examples}{watched}{patience}" + (", the best weights are the result" if validation.restore_best else "")


def _workers(status: "JobStatus") -> str:
    config = status.config
    wanted = (
        f"{config.max_workers}"
        if config.min_workers == config.max_workers
        else (f"{config.min_workers} to {config.max_workers}")
    )
    partitions = f", {config.partitions} partitions" if config.partitions else ""
    return f"{status.running_workers} running, {wanted} wanted{partitions}"


def _safety(config: "TrainingConfig") -> str:
    every = f"every {config.checkpoint_every_steps} steps and epoch" if config.checkpoint_every_steps else "every epoch"
    receipts = f"every {config.receipt_every_steps} steps and epoch" if config.receipt_every_steps else "every epoch"
    audit = f", audit {100 * config.audit_fraction:g} % of shards" if config.audit_fraction else ""
    return (
        f"{'exact' if config.exact else 'not exact'}, checkpoint {every}, keep {config.keep_checkpoints}, "
        f"receipt {receipts}{audit}, max failures {config.max_failures}, non-finite: {config.non_finite}"
    )


# What happened to it.


def _evaluation_lines(status: "JobStatus") -> Iterator[tuple[str, str]]:
    best = _best(status)
    latest = status.evaluations[-SHOWN:]
    if best is not None and best not in latest:
        latest = (best, *latest)
    for evaluation in latest:
        yield "evaluation", _evaluation(evaluation) + ("  (best)" if evaluation is best else "")


def _best(status: "JobStatus") -> "Evaluation | None":
    """The best evaluation by what the job compares them by; the first of equals."""
    name = status.config.validation.metric
    sign = 1.0 if not name or name.rpartition(".")[2] in _FALLING else -1.0

    def rank(evaluation: "Evaluation") -> float:
        value = evaluation.values.get(name) if name else evaluation.loss
        if name == "accuracy":
            value = evaluation.accuracy
        return math.inf if value is None or math.isnan(value) else sign * value

    return min(status.evaluations, key=rank, default=None)


def _evaluation(evaluation: "Evaluation") -> str:
    from chainrule.client.progress import named_values

    parts = [
        f"epoch {evaluation.epoch}  step {evaluation.step}  loss {evaluation.loss:.4f}",
        "" if evaluation.accuracy is None else f"accuracy {evaluation.accuracy:.3f}",
        named_values(evaluation.values, digits=4),
        f"examples {evaluation.num_examples}",
    ]
    return "  ".join(part for part in parts if part)


def _event_lines(session: Session, status: "JobStatus") -> Iterator[tuple[str, str]]:
    earlier = len(status.events) - SHOWN
    if earlier > 0:
        yield "event", f"{earlier} earlier, shown by: {session.command(f'jobs events {status.name}')}"
    for event in status.events[-SHOWN:]:
        yield "event", _event(event)


def _event(event: "JobEvent") -> str:
    lost = f" ({event.seconds_lost:.1f} s lost)" if event.seconds_lost else ""
    return f"{when(event.time)}  step {event.step}  {event.kind}: {first_line(event.message)}{lost}"
