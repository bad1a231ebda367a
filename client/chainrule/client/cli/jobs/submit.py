"""`chainrule jobs submit`: a job from the command line, from a file, or from both.

The function is as long as its options are many: typer reads them from its parameters.
"""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from chainrule.client.cli.completion import complete_dataset, complete_model
from chainrule.client.cli.jobs.follow import follow
from chainrule.client.cli.jobs.job_file import VARIABLES, gather
from chainrule.client.cli.jobs.options import TimeoutOption
from chainrule.client.cli.jobs.show import show, show_submission
from chainrule.client.cli.options import DescriptionOption, LabelsOption, parse_labels
from chainrule.client.cli.session import AddressOption, FormatOption, open_session, reported

TRAINED, OPTIMIZER, EVALUATION = "What is trained", "Optimizer", "Evaluation"
WORKERS, SAFETY = "Workers", "Safety"

JOB_FILE_HELP = (
    "A TOML file with what the options say: model, dataset, epochs, \\[optimizer] with name and lr, \\[schedule], "
    "\\[\\[parameter_groups]] with patterns and what is theirs, "
    "\\[validation], \\[labels], and so on, as the arguments of the SDK's jobs.create."
)


class OptimizerName(StrEnum):
    """The optimizers there are."""

    SGD = "sgd"
    ADAM = "adam"
    ADAMW = "adamw"


class Decay(StrEnum):
    """What the learning rate does after its rise."""

    NONE = "none"
    STEP = "step"
    LINEAR = "linear"
    COSINE = "cosine"


class Precision(StrEnum):
    """What products and convolutions of a step compute in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class NonFinite(StrEnum):
    """What a loss or gradient that is NaN or infinite does."""

    FAIL = "fail"
    SKIP = "skip"


def _option(
    panel: str, text: str, default: str, metavar: str | None = None, completed: Callable[..., list[str]] | None = None
) -> Any:
    """An option in a panel of the help, with its default in words: what is not given is left to the file."""
    said = f"{text} \\[default: {default}]" if default else text
    return typer.Option(help=said, metavar=metavar, rich_help_panel=panel, show_default=False, autocompletion=completed)


def _switch(names: str, panel: str, text: str) -> Any:
    """An option without a value."""
    return typer.Option(names, help=text, rich_help_panel=panel, show_default=False)


def submit(
    ctx: typer.Context,
    job_file: Annotated[
        Path | None,
        typer.Argument(metavar="[JOBFILE]", exists=True, dir_okay=False, help=JOB_FILE_HELP, show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        _option(TRAINED, "The model to train, or a version: digits/versions/2.", "", "MODEL", complete_model),
    ] = None,
    dataset: Annotated[
        str | None, _option(TRAINED, "The dataset to train on.", "", "DATASET", complete_dataset)
    ] = None,
    trainable: Annotated[
        list[str] | None,
        _option(
            TRAINED,
            "Parameters to train: a pattern of their names, as 'fc.*'; may be given several times.",
            "all",
            "PATTERN",
        ),
    ] = None,
    epochs: Annotated[int | None, _option(TRAINED, "Passes over the dataset.", "1")] = None,
    batch_size: Annotated[int | None, _option(TRAINED, "Examples of one step.", "64")] = None,
    shards: Annotated[int | None, _option(TRAINED, "Slices of each batch; fixes the numerics.", "1")] = None,
    seed: Annotated[int | None, _option(TRAINED, "Seed of the order of examples and of dropout.", "0")] = None,
    loss: Annotated[
        str | None,
        _option(
            TRAINED,
            "What is minimised: cross_entropy, nll, bce_with_logits, mse, l1, huber, smooth_l1 or dice; more of it in "
            "\\[loss] of a job file.",
            "cross_entropy",
            "NAME",
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None, _option(TRAINED, "cross_entropy: share of each target spread over all classes.", "0")
    ] = None,
    optimizer: Annotated[OptimizerName | None, _option(OPTIMIZER, "The optimizer.", "sgd")] = None,
    lr: Annotated[float | None, _option(OPTIMIZER, "Learning rate.", "sgd 0.01, adam and adamw 0.001")] = None,
    momentum: Annotated[float | None, _option(OPTIMIZER, "sgd: momentum factor.", "0")] = None,
    dampening: Annotated[float | None, _option(OPTIMIZER, "sgd: dampening of the momentum.", "0")] = None,
    nesterov: Annotated[bool | None, _switch("--nesterov/--no-nesterov", OPTIMIZER, "sgd: Nesterov momentum.")] = None,
    beta1: Annotated[float | None, _option(OPTIMIZER, "adam: how much of the average gradient is kept.", "0.9")] = None,
    beta2: Annotated[
        float | None, _option(OPTIMIZER, "adam: how much of the average squared gradient is kept.", "0.999")
    ] = None,
    eps: Annotated[float | None, _option(OPTIMIZER, "adam: keeps the denominator from 0.", "1e-8")] = None,
    weight_decay: Annotated[
        float | None, _option(OPTIMIZER, "Weight decay; decoupled with adamw.", "0, adamw 0.01")
    ] = None,
    clip_norm: Annotated[
        float | None, _option(OPTIMIZER, "Longest gradient, as the norm over all parameters; 0: no limit.", "0")
    ] = None,
    accumulate: Annotated[
        int | None, _option(OPTIMIZER, "Pieces of each shard, computed one after another to save memory.", "1")
    ] = None,
    ema_decay: Annotated[
        float | None,
        _option(OPTIMIZER, "How much of the average of the weights is kept at a step, as 0.999; 0: no average.", "0"),
    ] = None,
    precision: Annotated[
        Precision | None, _option(OPTIMIZER, "What products and convolutions compute in.", "float32")
    ] = None,
    warmup_steps: Annotated[int | None, _option(OPTIMIZER, "Steps in which the learning rate rises.", "0")] = None,
    decay: Annotated[Decay | None, _option(OPTIMIZER, "What the learning rate does afterwards.", "none")] = None,
    decay_steps: Annotated[
        int | None, _option(OPTIMIZER, "Steps between two drops, or of the fall; 0: all that are left.", "0")
    ] = None,
    gamma: Annotated[float | None, _option(OPTIMIZER, "step: factor of a drop.", "0.1")] = None,
    final_factor: Annotated[
        float | None, _option(OPTIMIZER, "linear, cosine: where the fall ends, from 0 to 1.", "0")
    ] = None,
    metric: Annotated[
        list[str] | None,
        _option(
            EVALUATION,
            "What is measured besides the loss: accuracy, top_k, f1, mae, ...; may be given several times.",
            "accuracy, of class labels",
            "NAME",
        ),
    ] = None,
    validation_fraction: Annotated[
        float | None,
        _option(EVALUATION, "Share of the dataset, its last examples, to evaluate on after each epoch.", "0"),
    ] = None,
    validation_seed: Annotated[
        int | None, _option(EVALUATION, "Draws the examples of that share; 0: they are the last ones.", "0")
    ] = None,
    validation_dataset: Annotated[
        str | None, _option(EVALUATION, "A second dataset to evaluate on.", "none", "DATASET", complete_dataset)
    ] = None,
    patience: Annotated[
        int | None, _option(EVALUATION, "Epochs without a better evaluation after which the job stops; 0: never.", "0")
    ] = None,
    restore_best: Annotated[
        bool | None,
        _switch("--restore-best/--no-restore-best", EVALUATION, "The best weights are the result, not the last."),
    ] = None,
    validation_metric: Annotated[
        str | None,
        _option(EVALUATION, "What evaluations are compared by, of what is measured.", "the loss", "NAME"),
    ] = None,
    workers: Annotated[int | None, _option(WORKERS, "Short for --max-workers.", "1", "N")] = None,
    min_workers: Annotated[
        int | None, _option(WORKERS, "Fewest workers to train with; with fewer the job waits.", "1")
    ] = None,
    max_workers: Annotated[
        int | None,
        _option(WORKERS, "Most workers, at most --shards; they do not change the weights.", "1", "N"),
    ] = None,
    partitions: Annotated[
        int | None, _option(WORKERS, "Parts of the parameter server; 0: by the size of the model.", "0")
    ] = None,
    staleness: Annotated[
        int | None,
        _option(
            WORKERS,
            "Steps that a worker may be ahead of the slowest. Above 0 the weights depend on timing; needs --no-exact.",
            "0",
        ),
    ] = None,
    priority: Annotated[
        int | None, _option(WORKERS, "Which waiting job goes first: the highest, from -100 to 100.", "0", "N")
    ] = None,
    exact: Annotated[
        bool | None,
        _option(SAFETY, "Refuse workers whose kernels, instruction sets, threads or versions differ.", "exact"),
    ] = None,
    non_finite: Annotated[
        NonFinite | None,
        _option(SAFETY, "What a NaN or infinite loss or gradient does: fail the job, or skip the update.", "fail"),
    ] = None,
    checkpoint_every_steps: Annotated[
        int | None, _option(SAFETY, "Steps between two checkpoints, besides the ends of epochs; 0: only those.", "0")
    ] = None,
    keep_checkpoints: Annotated[
        int | None, _option(SAFETY, "Latest checkpoints to keep, besides the best.", "3")
    ] = None,
    receipt_every_steps: Annotated[
        int | None, _option(SAFETY, "Steps between two receipts, besides the ends of epochs; 0: only those.", "100")
    ] = None,
    audit_fraction: Annotated[
        float | None, _option(SAFETY, "Share of shards that two workers compute, to be compared; from 0 to 1.", "0")
    ] = None,
    max_failures: Annotated[
        int | None, _option(SAFETY, "Recoveries without progress in between after which the job fails.", "10")
    ] = None,
    labels: LabelsOption = None,
    description: DescriptionOption = None,
    request_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The same id gives the same job.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting as in the job file: optimizer.lr=0.1, trainable='[\"fc.*\"]'; may be given several times.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Have the server check the job, show what it would be, and stop.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end, also while PAUSED; the exit code tells it.")
    ] = False,
    timeout_s: TimeoutOption = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Submit a job: train a model on a dataset.

    What an option does not say is taken from --set, then from the environment (CHAINRULE_JOB_EPOCHS for --epochs, and
    likewise for the others), then from JOBFILE, then from the defaults.
    """
    given = locals()
    options = {name: given[name] for name in VARIABLES if given[name] is not None}
    _check_use(dry_run=dry_run, wait=wait, timeout_s=timeout_s, request_id=request_id)
    with reported(ctx, form):
        job_arguments = gather(options, labels=parse_labels(labels), settings=settings or (), job_file=job_file)
    with open_session(ctx, address, form) as session:
        if dry_run:
            show_submission(session, session.client.jobs.check(**job_arguments))
            session.output.note("checked only; nothing was submitted")
            return
        job = session.client.jobs.create(**job_arguments, request_id=request_id)
        if wait:
            session.output.note(f"submitted {job.name}")
            follow(session, job, timeout_s=timeout_s)
        else:
            show(session, job.status())
            session.output.note(f"follow it with: {session.command(f'jobs watch {job.name}')}")


def _check_use(*, dry_run: bool, wait: bool, timeout_s: float | None, request_id: str | None) -> None:
    """Raises typer.BadParameter for an option that would do nothing."""
    options = {"--wait": wait, "--timeout": timeout_s is not None, "--request-id": request_id is not None}
    for option, is_given in options.items():
        if dry_run and is_given:
            raise typer.BadParameter("with --dry-run nothing is submitted; leave one of them out.", param_hint=option)
    if timeout_s is not None and not wait:
        raise typer.BadParameter("it is how long to --wait; give both, or leave it out.", param_hint="--timeout")
