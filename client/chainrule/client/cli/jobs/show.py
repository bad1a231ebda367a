"""`chainrule jobs`: submit training runs, follow them, stop them."""

from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from chainrule.client.cli.exits import EXIT_CODES_HELP, ExitCode
from chainrule.client.cli.output import Format, first_line, short_digest, when
from chainrule.client.cli.session import AddressOption, FormatOption, Session, open_session

if TYPE_CHECKING:
    from chainrule.client.jobs import Job
    from chainrule.client.status import JobStatus, Metric

app = typer.Typer(help="Submit training runs, follow them, stop them.", no_args_is_help=True)

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job, for example jobs/bea3phtux7dd.")]


def _positive(seconds: float | None) -> float | None:
    if seconds is not None and not seconds > 0:
        raise typer.BadParameter(f"{seconds:g} is not above 0.")
    return seconds


TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", help="The longest to wait, above 0.", callback=_positive, show_default=False
    ),
]


@app.command("submit", epilog=EXIT_CODES_HELP)
def submit(
    ctx: typer.Context,
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="The model to train.")],
    dataset: Annotated[str, typer.Option("--dataset", metavar="DATASET", help="The dataset to train on.")],
    epochs: Annotated[int, typer.Option(help="Passes over the dataset.")] = 1,
    batch_size: Annotated[int, typer.Option(help="Examples of one step.")] = 64,
    shards: Annotated[int, typer.Option(help="Slices of each batch; fixes the numerics.")] = 1,
    workers: Annotated[int, typer.Option(help="Workers; does not change the weights.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the order of examples.")] = 0,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.01,
    momentum: Annotated[float, typer.Option(help="Momentum factor.")] = 0.0,
    dampening: Annotated[float, typer.Option(help="Dampening of the momentum.")] = 0.0,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty.")] = 0.0,
    nesterov: Annotated[bool, typer.Option("--nesterov", help="Nesterov momentum.")] = False,
    request_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The same id gives the same job.", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; the exit code tells it.")] = False,
    timeout_s: TimeoutOption = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Submit a job: train a model on a dataset."""
    with open_session(ctx, address, form) as session:
        job = session.client.jobs.create(
            model=model,
            dataset=dataset,
            epochs=epochs,
            batch_size=batch_size,
            shards=shards,
            workers=workers,
            seed=seed,
            optimizer={
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
            },
            request_id=request_id,
        )
        if wait:
            session.output.note(f"submitted {job.name}")
            _follow(session, job, timeout_s=timeout_s)
        else:
            _show(session, job.status())
            session.output.note(f"follow it with: {session.command(f'jobs watch {job.name}')}")


@app.command("ls")
def list_jobs(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="The most to list.")] = 50,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """List jobs, newest first."""
    with open_session(ctx, address, form) as session:
        session.output.rows(
            session.client.jobs.list(limit=limit),
            {
                "JOB": lambda s: s.name,
                "STATE": lambda s: s.state,
                "MODEL": lambda s: s.model,
                "DATASET": lambda s: s.dataset,
                "EPOCH": lambda s: f"{s.progress.epoch}/{s.progress.total_epochs}",
                "LOSS": lambda s: "-" if s.progress.loss is None else f"{s.progress.loss:.4f}",
                "WEIGHTS": lambda s: short_digest(s.weights_digest),
                "CREATED": lambda s: when(s.create_time),
            },
        )


@app.command("status")
def status(
    ctx: typer.Context,
    job: JobArgument,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show the traceback of a job that FAILED. JSON always has it.")
    ] = False,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Show one job as it is now."""
    with open_session(ctx, address, form) as session:
        _show(session, session.client.jobs.get(job).status(), traceback=traceback)


@app.command("watch", epilog=EXIT_CODES_HELP)
def watch(
    ctx: typer.Context,
    job: JobArgument,
    timeout_s: TimeoutOption = None,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Follow a job until it has ended; the exit code tells how. Ctrl-C stops watching, not the job.

    With --format json, every status on the way is one line.
    """
    with open_session(ctx, address, form) as session:
        handle = session.client.jobs.get(job)
        if session.output.form is not Format.JSON:
            _follow(session, handle, timeout_s=timeout_s)
            return
        try:
            handle.wait(progress=session.output.line, timeout_s=timeout_s)
        except KeyboardInterrupt:
            _stop_watching(session, handle)


@app.command("metrics")
def metrics(
    ctx: typer.Context,
    job: JobArgument,
    after: Annotated[int, typer.Option(min=0, metavar="N", help="Leave out the first N.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job has ended.")] = False,
    address: AddressOption = None,
    form: FormatOption = None,
) -> None:
    """Show what each step measured; with --follow --format json, one object per line."""

    def text(metric: "Metric") -> str:
        return (
            f"epoch {metric.epoch}  step {metric.step}  loss {metric.loss:.6f}  "
            f"accuracy {metric.accuracy:.4f}  examples {metric.num_examples}"
        )

    with open_session(ctx, address, form) as session:
        handle = session.client.jobs.get(job)
        if not follow:
            session.output.rows(
                handle.metrics(after=after),
                {
                    "STEP": lambda m: str(m.step),
                    "EPOCH": lambda m: str(m.epoch),
                    "LOSS": lambda m: f"{m.loss:.6f}",
                    "ACCURACY": lambda m: f"{m.accuracy:.4f}",
                    "EXAMPLES": lambda m: str(m.num_examples),
                    "TIME": lambda m: when(m.time),
                },
            )
            return
        try:
            for metric in handle.stream_metrics(after=after):
                session.output.line(metric, text)
        except KeyboardInterrupt:
            _stop_watching(session, handle)


@app.command("cancel")
def cancel(ctx: typer.Context, job: JobArgument, address: AddressOption = None, form: FormatOption = None) -> None:
    """Ask a job to stop."""
    with open_session(ctx, address, form) as session:
        _show(session, session.client.jobs.get(job).cancel())


def _follow(session: Session, job: "Job", *, timeout_s: float | None) -> None:
    """Show a job's progress until it has ended; a bad end is raised, after the job was shown."""
    from chainrule.client.errors import JobCancelledError, JobFailedError

    try:
        with session.output.progress() as show:
            ended = job.wait(progress=show, timeout_s=timeout_s)
    except (JobCancelledError, JobFailedError):
        _show(session, job.status(), error=False)  # it is reported on stderr
        raise
    except KeyboardInterrupt:
        _stop_watching(session, job)
    _show(session, ended)


def _stop_watching(session: Session, job: "Job") -> NoReturn:
    session.output.note(
        f"\nstopped watching; {job.name} goes on. Cancel it with: {session.command(f'jobs cancel {job.name}')}"
    )
    raise typer.Exit(ExitCode.INTERRUPTED)


def _show(session: Session, status: "JobStatus", *, error: bool = True, traceback: bool = False) -> None:
    """Show all of a job; of why it FAILED its first line, unless that is said elsewhere, and how to read the rest."""
    from chainrule.client.progress import describe

    config = status.config
    sgd = config.optimizer
    lines = [
        ("job", status.name),
        ("progress", describe(status)),
        ("model", status.model),
        ("dataset", status.dataset),
        (
            "config",
            f"epochs {config.epochs}, batch size {config.batch_size}, shards {config.shards}, "
            f"workers {config.workers}, seed {config.seed}",
        ),
        (
            "optimizer",
            f"sgd, lr {sgd.lr:g}, momentum {sgd.momentum:g}, dampening {sgd.dampening:g}, "
            f"weight decay {sgd.weight_decay:g}" + (", nesterov" if sgd.nesterov else ""),
        ),
        ("created", when(status.create_time)),
        ("started", when(status.start_time)),
        ("ended", when(status.end_time)),
        ("weights sha256", status.weights_digest or "-"),
    ]
    failure = status.error
    if failure and error:
        message = failure.message if traceback else first_line(failure.message)
        lines.append(("error", f"{failure.reason}: {message}"))
    if failure and failure.traceback:
        command = session.command(f"jobs status {status.name} --traceback")
        lines.append(("traceback", failure.traceback if traceback else f"shown by: {command}"))
    session.output.record(status, lines)
