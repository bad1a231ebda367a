"""`chainrule jobs submit`: a job from the command line."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from chainrule.client.cli.jobs.follow import follow
from chainrule.client.cli.jobs.options import TimeoutOption
from chainrule.client.cli.jobs.show import show
from chainrule.client.cli.session import AddressOption, FormatOption, open_session

TRAINED, OPTIMIZER, EVALUATION = "What is trained", "Optimizer", "Evaluation"
WORKERS, SAFETY = "Workers", "Safety"


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


class NonFinite(StrEnum):
    """What a loss or gradient that is NaN or infinite does."""

    FAIL = "fail"
    SKIP = "skip"


def _option(panel: str, text: str, *, metavar: str | None = None, default: str = "") -> Any:
    """An option in a panel of the help.

    Args:
        default: the default in words, where it is not a value of the option.
    """
    said = f"{text} \\[default: {default}]" if default else text
    return typer.Option(help=said, metavar=metavar, rich_help_panel=panel, show_default=not default)


def submit(
    ctx: typer.Context,
    model: Annotated[str, _option(TRAINED, "The model to train.", metavar="MODEL")],
    dataset: Annotated[str, _option(TRAINED, "The dataset to train on.", metavar="DATASET")],
    trainable: Annotated[
        list[str] | None,
        _option(
            TRAINED,
            "Parameters to train: a pattern of their names, as 'fc.*'; may be given several times.",
            metavar="PATTERN",
            default="all",
        ),
    ] = None,
    epochs: Annotated[int, _option(TRAINED, "Passes over the dataset.")] = 1,
    batch_size: Annotated[int, _option(TRAINED, "Examples of one step.")] = 64,
    shards: Annotated[int, _option(TRAINED, "Slices of each batch; fixes the numerics.")] = 1,
    seed: Annotated[int, _option(TRAINED, "Seed of the order of examples and of dropout.")] = 0,
    optimizer: Annotated[OptimizerName, _option(OPTIMIZER, "The optimizer.")] = OptimizerName.SGD,
    lr: Annotated[float | None, _option(OPTIMIZER, "Learning rate.", default="sgd 0.01, adam and adamw 0.001")] = None,
    momentum: Annotated[float | None, _option(OPTIMIZER, "sgd: momentum factor.", default="0")] = None,
    dampening: Annotated[float | None, _option(OPTIMIZER, "sgd: dampening of the momentum.", default="0")] = None,
    nesterov: Annotated[bool, typer.Option("--nesterov", help="sgd: Nesterov momentum.", rich_help_panel=OPTIMIZER)] = (
        False
    ),
    beta1: Annotated[
        float | None, _option(OPTIMIZER, "adam: how much of the average gradient is kept.", default="0.9")
    ] = None,
    beta2: Annotated[
        float | None, _option(OPTIMIZER, "adam: how much of the average squared gradient is kept.", default="0.999")
    ] = None,
    eps: Annotated[float | None, _option(OPTIMIZER, "adam: keeps the denominator from 0.", default="1e-8")] = None,
    weight_decay: Annotated[
        float | None, _option(OPTIMIZER, "Weight decay; decoupled with adamw.", default="0, adamw 0.01")
    ] = None,
    clip_norm: Annotated[
        float, _option(OPTIMIZER, "Longest gradient, as the norm over all parameters; 0: no limit.")
    ] = 0.0,
    warmup_steps: Annotated[int, _option(OPTIMIZER, "Steps in which the learning rate rises.")] = 0,
    decay: Annotated[Decay, _option(OPTIMIZER, "What the learning rate does afterwards.")] = Decay.NONE,
    decay_steps: Annotated[
        int, _option(OPTIMIZER, "Steps between two drops, or of the fall; 0: all that are left.")
    ] = 0,
    gamma: Annotated[float, _option(OPTIMIZER, "step: factor of a drop.")] = 0.1,
    final_factor: Annotated[float, _option(OPTIMIZER, "linear, cosine: where the fall ends, from 0 to 1.")] = 0.0,
    validation_fraction: Annotated[
        float, _option(EVALUATION, "Share of the dataset, its last examples, to evaluate on after each epoch.")
    ] = 0.0,
    validation_dataset: Annotated[
        str | None, _option(EVALUATION, "A second dataset to evaluate on.", metavar="DATASET", default="none")
    ] = None,
    patience: Annotated[
        int, _option(EVALUATION, "Epochs without a better loss after which the job stops; 0: never.")
    ] = 0,
    restore_best: Annotated[
        bool,
        typer.Option(
            "--restore-best", help="The best weights are the result, not the last.", rich_help_panel=EVALUATION
        ),
    ] = False,
    workers: Annotated[int | None, _option(WORKERS, "Short for --max-workers.", metavar="N", default="1")] = None,
    min_workers: Annotated[int, _option(WORKERS, "Fewest workers to train with; with fewer the job waits.")] = 1,
    max_workers: Annotated[
        int | None,
        _option(WORKERS, "Most workers, at most --shards; they do not change the weights.", metavar="N", default="1"),
    ] = None,
    partitions: Annotated[int, _option(WORKERS, "Parts of the parameter server; 0: by the size of the model.")] = 0,
    staleness: Annotated[
        int,
        _option(
            WORKERS,
            "Steps that a worker may be ahead of the slowest. Above 0 the weights depend on timing; needs --no-exact.",
        ),
    ] = 0,
    exact: Annotated[
        bool, _option(SAFETY, "Refuse workers whose kernels, instruction sets, threads or versions differ.")
    ] = True,
    non_finite: Annotated[
        NonFinite, _option(SAFETY, "What a NaN or infinite loss or gradient does: fail the job, or skip the update.")
    ] = NonFinite.FAIL,
    checkpoint_every_steps: Annotated[
        int, _option(SAFETY, "Steps between two checkpoints, besides the ends of epochs; 0: only those.")
    ] = 0,
    keep_checkpoints: Annotated[int, _option(SAFETY, "Latest checkpoints to keep, besides the best.")] = 3,
    receipt_every_steps: Annotated[
        int, _option(SAFETY, "Steps between two receipts, besides the ends of epochs; 0: only those.")
    ] = 100,
    audit_fraction: Annotated[
        float, _option(SAFETY, "Share of shards that two workers compute, to be compared; from 0 to 1.")
    ] = 0.0,
    max_failures: Annotated[
        int, _option(SAFETY, "Recoveries without progress in between after which the job fails.")
    ] = 10,
    request_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The same id gives the same job.", show_default=False)
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end, also while PAUSED; the exit code tells it.")
    ] = False,
    timeout_s: TimeoutOption = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Submit a job: train a model on a dataset."""
    with open_session(ctx, address, form) as session:
        chosen = {
            **{"lr": lr, "momentum": momentum, "dampening": dampening, "nesterov": nesterov or None},
            **{"beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay},
        }
        job = session.client.jobs.create(
            model=model,
            dataset=dataset,
            trainable=trainable or ("*",),
            epochs=epochs,
            batch_size=batch_size,
            shards=shards,
            seed=seed,
            optimizer={"name": optimizer.value, **{k: value for k, value in chosen.items() if value is not None}},
            clip_norm=clip_norm,
            schedule={
                "warmup_steps": warmup_steps,
                "decay": decay.value,
                "decay_steps": decay_steps,
                "gamma": gamma,
                "final_factor": final_factor,
            },
            validation={
                "dataset": validation_dataset or "",
                "fraction": validation_fraction,
                "patience": patience,
                "restore_best": restore_best,
            },
            workers=workers,
            min_workers=min_workers,
            max_workers=max_workers,
            partitions=partitions,
            staleness=staleness,
            exact=exact,
            non_finite=non_finite.value,
            checkpoint_every_steps=checkpoint_every_steps,
            keep_checkpoints=keep_checkpoints,
            receipt_every_steps=receipt_every_steps,
            audit_fraction=audit_fraction,
            max_failures=max_failures,
            request_id=request_id,
        )
        if wait:
            session.output.note(f"submitted {job.name}")
            follow(session, job, timeout_s=timeout_s)
        else:
            show(session, job.status())
            session.output.note(f"follow it with: {session.command(f'jobs watch {job.name}')}")
