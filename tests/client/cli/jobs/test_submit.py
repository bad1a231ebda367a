"""`chainrule jobs submit`: what it sends, and what its exit codes say."""

import json
from collections.abc import Callable

import grpc
import pytest
from typer.testing import Result

from chainrule.client import Adam, Schedule, Sgd, TrainingConfig, Validation
from chainrule.client.cli.exits import ExitCode
from chainrule.client.config_messages import from_message
from chainrule.v1 import job_pb2
from tests.client.fake_server import Failure, FakeServer

Run = Callable[..., Result]
SUBMIT = ("jobs", "submit", "--model", "m", "--dataset", "d")
DIGEST = "ab" * 32
SUCCEEDED = job_pb2.Job(state=job_pb2.Job.STATE_SUCCEEDED, weights_digest=DIGEST)
FAILED = job_pb2.Job(
    state=job_pb2.Job.STATE_FAILED, error=job_pb2.JobError(reason="NON_FINITE_LOSS", message="the loss is NaN")
)
CANCELLED = job_pb2.Job(state=job_pb2.Job.STATE_CANCELLED)


def test_submit_sends_every_option(run: Run, server: FakeServer) -> None:
    result = run(
        *SUBMIT,
        *("--trainable", "fc.*", "--trainable", "layer4.*"),
        *("--epochs", "20", "--batch-size", "32", "--shards", "4", "--seed", "5"),
        *("--optimizer", "adamw", "--lr", "0.05", "--beta1", "0.8", "--beta2", "0.9", "--eps", "1e-6"),
        *("--weight-decay", "0.001", "--clip-norm", "2"),
        *("--accumulate", "4", "--ema-decay", "0.99", "--precision", "bfloat16"),
        *("--warmup-steps", "3", "--decay", "step", "--decay-steps", "7", "--gamma", "0.5", "--final-factor", "0.25"),
        *("--validation-dataset", "val", "--validation-fraction", "0.2", "--patience", "4", "--restore-best"),
        *("--min-workers", "2", "--max-workers", "3", "--partitions", "2", "--staleness", "1", "--no-exact"),
        *("--non-finite", "skip", "--checkpoint-every-steps", "10", "--keep-checkpoints", "4"),
        *("--receipt-every-steps", "20", "--audit-fraction", "0.1", "--max-failures", "6"),
        *("--request-id", "once"),
    )
    assert result.exit_code == 0, result.output
    [request] = server.requests("CreateJob")
    assert from_message(request.job.config) == TrainingConfig(
        trainable=("fc.*", "layer4.*"),
        epochs=20,
        batch_size=32,
        shards=4,
        seed=5,
        optimizer=Adam(lr=0.05, beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.001, decoupled=True),
        clip_norm=2.0,
        accumulate=4,
        ema_decay=0.99,
        precision="bfloat16",
        schedule=Schedule(warmup_steps=3, decay="step", decay_steps=7, gamma=0.5, final_factor=0.25),
        validation=Validation(dataset="datasets/val", fraction=0.2, patience=4, restore_best=True),
        min_workers=2,
        max_workers=3,
        partitions=2,
        staleness=1,
        exact=False,
        non_finite="skip",
        checkpoint_every_steps=10,
        keep_checkpoints=4,
        receipt_every_steps=20,
        audit_fraction=0.1,
        max_failures=6,
    )
    assert (request.job.model, request.job.dataset, request.request_id) == ("models/m", "datasets/d", "once")
    assert "jobs/1" in result.stdout
    assert "follow it with: chainrule jobs watch jobs/1" in result.stderr


def test_submit_without_options_sends_the_defaults(run: Run, server: FakeServer) -> None:
    assert run(*SUBMIT).exit_code == 0
    [request] = server.requests("CreateJob")
    assert from_message(request.job.config) == TrainingConfig()


def test_options_of_sgd_and_the_short_form_of_max_workers(run: Run, server: FakeServer) -> None:
    words = ("--lr", "0.05", "--momentum", "0.9", "--dampening", "0.1", "--weight-decay", "0.001", "--nesterov")
    run(*SUBMIT, *words, "--workers", "2")
    [request] = server.requests("CreateJob")
    assert from_message(request.job.config) == TrainingConfig(
        optimizer=Sgd(lr=0.05, momentum=0.9, dampening=0.1, weight_decay=0.001, nesterov=True), max_workers=2
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--optimizer", "adam", "--momentum", "0.9"), "the optimizer has no field momentum; adam takes lr, beta1"),
        (("--nesterov", "--eps", "1"), "the optimizer has no field eps; sgd takes lr, momentum"),
        (("--workers", "2", "--max-workers", "3"), "workers is short for max_workers: give one of them"),
        (("--optimizer", "rmsprop"), "'rmsprop' is not one of 'sgd', 'adam', 'adamw'"),
        (("--decay", "cos"), "'cos' is not one of 'none', 'step', 'linear', 'cosine'"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    run: Run, server: FakeServer, words: tuple[str, ...], message: str
) -> None:
    result = run(*SUBMIT, *words)
    assert result.exit_code == ExitCode.USAGE
    assert message in " ".join(result.stderr.replace("│", "").split())
    assert server.requests("CreateJob") == []


def test_the_help_has_a_panel_for_each_purpose(run: Run) -> None:
    text = run("jobs", "submit", "--help").stdout
    places = [
        text.index(f"─ {panel} ─") for panel in ("What is trained", "Optimizer", "Evaluation", "Workers", "Safety")
    ]
    assert places == sorted(places)
    panels = [text[start:end] for start, end in zip(places, [*places[1:], len(text)], strict=True)]
    for panel, option in zip(panels, ("--trainable", "--decay", "--patience", "--min-workers", "--audit"), strict=True):
        assert option in panel


@pytest.mark.parametrize(
    ("end", "code"),
    [(SUCCEEDED, ExitCode.SUCCEEDED), (FAILED, ExitCode.FAILED), (CANCELLED, ExitCode.CANCELLED)],
    ids=["succeeded", "failed", "cancelled"],
)
@pytest.mark.parametrize("form", ["table", "json"])
def test_the_exit_code_of_a_wait_is_the_jobs_result(
    run: Run, server: FakeServer, end: job_pb2.Job, code: ExitCode, form: str
) -> None:
    server.first_job = end
    result = run(*SUBMIT, "--wait", "--format", form)
    assert result.exit_code == code
    state = job_pb2.Job.State.Name(end.state).removeprefix("STATE_")
    shown = json.loads(result.stdout)["state"] if form == "json" else result.stdout
    assert state in shown


def test_a_failed_job_says_why(run: Run, server: FakeServer) -> None:
    server.first_job = FAILED
    assert "error: jobs/1 FAILED (NON_FINITE_LOSS): the loss is NaN\n" in run(*SUBMIT, "--wait").stderr
    error = json.loads(run("jobs", "watch", "1", "--format", "json").stderr)["error"]
    assert (error["type"], error["job"], error["reason"]) == ("JobFailedError", "jobs/1", "NON_FINITE_LOSS")


def test_a_number_that_cannot_be_sent_is_wrong_usage_and_names_its_option(run: Run) -> None:
    result = run(*SUBMIT, "--epochs", "99999999999")
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr == "error: epochs is 99999999999; it must be a whole number from 1 to 2147483647\n"
    assert "seed is -1; it must be" in run(*SUBMIT, "--seed", "-1").stderr


def test_a_server_that_cannot_be_reached_is_no_failed_job(run: Run, server: FakeServer) -> None:
    server.first_job = job_pb2.Job(state=job_pb2.Job.STATE_RUNNING)
    server.take("WatchJob", Failure(code=grpc.StatusCode.INTERNAL, message="a defect"))
    assert run(*SUBMIT, "--wait").exit_code == ExitCode.SERVICE


def test_submit_help_documents_the_exit_codes(run: Run) -> None:
    text = " ".join(run("jobs", "submit", "--help").stdout.split())
    assert "0 the job SUCCEEDED, 1 it FAILED, 2 wrong usage, 3 it was CANCELLED" in text


def test_refused_fields_are_a_line_each(run: Run, server: FakeServer) -> None:
    server.fail(
        "CreateJob",
        Failure(
            code=grpc.StatusCode.INVALID_ARGUMENT,
            message="the job is invalid",
            violations={"job.config.epochs": "must be at least 1", "job.config.shards": "must be at most 64"},
        ),
    )
    result = run(*SUBMIT)
    assert result.exit_code == ExitCode.SERVICE
    assert result.stderr.splitlines() == [
        "error: the job is invalid",
        "  epochs: must be at least 1",
        "  shards: must be at most 64",
    ]


def test_refused_fields_that_are_the_whole_message_are_told_once(run: Run, server: FakeServer) -> None:
    violations = {"job.config.epochs": "is -1; it must be at least 1", "job.config.shards": "is 0"}
    message = "; ".join(f"{field}: {text}" for field, text in violations.items())
    server.fail("CreateJob", Failure(code=grpc.StatusCode.INVALID_ARGUMENT, message=message, violations=violations))
    assert run(*SUBMIT).stderr.splitlines() == [
        "error: epochs: is -1; it must be at least 1",
        "  shards: is 0",
    ]
