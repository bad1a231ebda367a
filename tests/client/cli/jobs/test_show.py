"""`chainrule jobs ls` and `status`: what they show of a job."""

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from chainrule.client import Adam, ParameterGroup, Schedule, TrainingConfig, Validation
from chainrule.client.config_messages import to_message
from chainrule.v1 import job_pb2
from tests.client.fake_server import NOW, FakeServer

Run = Callable[..., Result]
SUBMIT = ("jobs", "submit", "--model", "m", "--dataset", "d")
DIGEST = "ab" * 32


def test_the_traceback_of_a_failed_job_is_shown_on_demand(
    run: Run, run_json: Callable[..., Any], server: FakeServer
) -> None:
    trace = "Traceback (most recent call last):\n  File ...\nValueError: boom"
    error = job_pb2.JobError(reason="WORKER_ERROR", message="boom\nand more", traceback=trace)
    server.first_job = job_pb2.Job(state=job_pb2.Job.STATE_FAILED, error=error)
    waited = run(*SUBMIT, "--wait")
    assert "error: jobs/1 FAILED (WORKER_ERROR): boom\n" in waited.stderr
    assert "boom" not in waited.stdout
    for result in (waited, run("jobs", "watch", "1"), run("jobs", "status", "1")):
        assert "Traceback" not in result.output
        assert "and more" not in result.output
        assert "shown by: chainrule jobs status jobs/1 --traceback\n" in result.stdout
    short, long = run("jobs", "status", "1").stdout, run("jobs", "status", "1", "--traceback").stdout
    assert "WORKER_ERROR: boom\n" in short
    assert all(line.strip() in long for line in trace.splitlines())
    assert run_json("jobs", "status", "1")["error"]["traceback"] == trace


def test_a_job_that_waits_has_no_loss_in_json(run_json: Callable[..., Any], server: FakeServer) -> None:
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_QUEUED)
    progress = run_json("jobs", "status", "1")["progress"]
    assert (progress["loss"], progress["accuracy"]) == (None, None)


def test_no_line_of_a_table_ends_in_spaces(run: Run, server: FakeServer) -> None:
    server.put_job(name="jobs/1")
    server.put_job(name="jobs/2222", model="models/a-long-name")
    for words in (("ls",), ("status", "1")):
        lines = run("jobs", *words).stdout.splitlines()
        assert lines == [line.rstrip() for line in lines]


def test_status_as_json_has_the_digest_of_the_weights(run_json: Callable[..., Any], server: FakeServer) -> None:
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_SUCCEEDED, weights_digest=DIGEST)
    job = run_json("jobs", "status", "1")
    assert (job["name"], job["state"], job["weights_digest"]) == ("jobs/1", "SUCCEEDED", DIGEST)
    assert job["config"]["optimizer"]["lr"] == 0.01
    assert job["create_time"] == NOW.ToDatetime().isoformat() + "+00:00"
    assert job["error"] is None


def test_a_loss_that_is_not_finite_is_null_in_json(run_json: Callable[..., Any], server: FakeServer) -> None:
    server.put_job(name="jobs/1", progress=job_pb2.Progress(step=1, loss=float("nan")))
    assert run_json("jobs", "status", "1")["progress"]["loss"] is None


def test_status_as_table_names_everything(run: Run, server: FakeServer) -> None:
    server.put_job(
        name="jobs/1", model="models/m", dataset="datasets/d", state=job_pb2.Job.STATE_SUCCEEDED, weights_digest=DIGEST
    )
    rows = dict(line.split("  ", 1) for line in run("jobs", "status", "1").stdout.splitlines())
    assert rows["job"].strip() == "jobs/1"
    assert rows["model"].strip() == "models/m"
    assert rows["weights sha256"].strip() == DIGEST


def test_jobs_are_listed_newest_first(run: Run, run_json: Callable[..., Any], server: FakeServer) -> None:
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_SUCCEEDED, weights_digest=DIGEST)
    server.put_job(name="jobs/2", state=job_pb2.Job.STATE_RUNNING)
    assert [job["name"] for job in run_json("jobs", "ls")] == ["jobs/2", "jobs/1"]
    assert [job["name"] for job in run_json("jobs", "ls", "--limit", "1")] == ["jobs/2"]
    header, second, first = run("jobs", "ls").stdout.splitlines()
    assert header.split()[:3] == ["JOB", "STATE", "WORKERS"]
    assert second.split()[:2] == ["jobs/2", "RUNNING"]
    assert first.split()[:2] == ["jobs/1", "SUCCEEDED"]
    assert DIGEST[:12] in first


def rows_of(text: str) -> list[tuple[str, str]]:
    """The labels and texts of a record; labels come again where there are several."""
    lines = [line.partition("  ") for line in text.splitlines()]
    return [(label, words.strip()) for label, _, words in lines]


def test_status_says_what_is_not_as_by_default(run: Run, server: FakeServer) -> None:
    config = TrainingConfig(
        trainable=("fc.*",),
        optimizer=Adam(decoupled=True, weight_decay=0.01),
        clip_norm=1.0,
        parameter_groups=(ParameterGroup(patterns=("*.bias", "bn*"), weight_decay=0, nesterov=True),),
        accumulate=4,
        ema_decay=0.999,
        precision="bfloat16",
        schedule=Schedule(warmup_steps=10, decay="cosine"),
        validation=Validation(fraction=0.1, patience=3, restore_best=True),
        min_workers=2,
        max_workers=4,
        checkpoint_every_steps=50,
        audit_fraction=0.05,
    )
    server.put_job(name="jobs/1", config=to_message(config), running_workers=3, fingerprint='{"kernels": "reference"}')
    rows = dict(rows_of(run("jobs", "status", "1").stdout))
    assert rows["config"] == "epochs 1, batch size 64, shards 1, seed 0"
    assert rows["trainable"] == "fc.*"
    assert rows["optimizer"] == ("adamw, lr 0.001, beta1 0.9, beta2 0.999, eps 1e-08, weight decay 0.01, clip norm 1")
    assert rows["parameter group"] == "*.bias, bn*: weight decay 0, nesterov true"
    assert rows["recipe"] == "in 4 pieces a shard, average of the weights with decay 0.999, bfloat16"
    assert rows["schedule"] == "a rise over 10 steps, then cosine fall to 0 of it within the steps left"
    assert rows["validation"] == "the last 10 % of the dataset, patience 3, the best weights are the result"
    assert rows["workers"] == "3 running, 2 to 4 wanted"
    assert rows["safety"] == (
        "exact, checkpoint every 50 steps and epoch, keep 3, receipt every 100 steps and epoch, "
        "audit 5 % of shards, max failures 10, non-finite: fail"
    )
    assert rows["computed with"] == "kernels reference"


def test_status_says_what_draws_the_examples_kept_back(run: Run, server: FakeServer) -> None:
    config = TrainingConfig(validation=Validation(fraction=0.1, seed=5))
    server.put_job(name="jobs/1", config=to_message(config))
    rows = dict(rows_of(run("jobs", "status", "1").stdout))
    assert rows["validation"] == "10 % of the dataset, drawn by seed 5"


def test_status_of_a_plain_job_says_no_more_than_needed(run: Run, server: FakeServer) -> None:
    server.put_job(name="jobs/1", config=to_message(TrainingConfig()))
    rows = dict(rows_of(run("jobs", "status", "1").stdout))
    assert {
        "trainable",
        "parameter group",
        "recipe",
        "schedule",
        "validation",
        "event",
        "evaluation",
        "computed with",
    }.isdisjoint(rows)
    assert rows["workers"] == "0 running, 1 wanted"


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Schedule(decay="step", decay_steps=30, gamma=0.5), "times 0.5 every 30 steps"),
        (Schedule(decay="linear", decay_steps=9, final_factor=0.1), "linear fall to 0.1 of it within 9 steps"),
        (Schedule(warmup_steps=5), "a rise over 5 steps"),
    ],
)
def test_status_says_how_the_learning_rate_changes(run: Run, server: FakeServer, schedule: Schedule, text: str) -> None:
    server.put_job(name="jobs/1", config=to_message(TrainingConfig(schedule=schedule)))
    assert dict(rows_of(run("jobs", "status", "1").stdout))["schedule"] == text


def test_status_shows_the_latest_events_and_evaluations_and_the_best(
    run: Run, run_json: Callable[..., Any], server: FakeServer
) -> None:
    server.put_job(
        name="jobs/1",
        events=[
            job_pb2.JobEvent(kind="recovery", message=f"loss {i}\nmore", step=i, seconds_lost=i / 2, time=NOW)
            for i in range(7)
        ],
        evaluations=[
            job_pb2.Evaluation(epoch=i, step=10 * i, loss=abs(i - 2), accuracy=0.5, num_examples=8, time=NOW)
            for i in range(1, 9)
        ],
    )
    shown = rows_of(run("jobs", "status", "1").stdout)
    events = [text for label, text in shown if label == "event"]
    assert events[0] == "2 earlier, shown by: chainrule jobs events jobs/1"
    assert events[1:3] == [
        "2025-06-15 15:06:40  step 2  recovery: loss 2 (1.0 s lost)",
        "2025-06-15 15:06:40  step 3  recovery: loss 3 (1.5 s lost)",
    ]
    assert len(events) == 6
    evaluations = [text for label, text in shown if label == "evaluation"]
    assert evaluations[0] == "epoch 2  step 20  loss 0.0000  accuracy 0.500  examples 8  (best)"
    assert [text.split()[1] for text in evaluations[1:]] == ["4", "5", "6", "7", "8"]
    told = run_json("jobs", "status", "1")
    assert (len(told["events"]), told["events"][6]["seconds_lost"], told["evaluations"][1]["loss"]) == (7, 3.0, 0.0)


def test_the_best_evaluation_is_that_by_what_the_job_watches(run: Run, server: FakeServer) -> None:
    seen = [
        job_pb2.Evaluation(epoch=i, step=i, loss=1 / i, accuracy=a, values={"rmse": a}, num_examples=8, time=NOW)
        for i, a in ((1, 0.25), (2, 0.75), (3, 0.5))
    ]
    for name, metric, epoch in (("jobs/1", "accuracy", "2"), ("jobs/2", "rmse", "1"), ("jobs/3", "", "3")):
        config = TrainingConfig(validation=Validation(fraction=0.1, patience=2, metric=metric))
        server.put_job(name=name, config=to_message(config), evaluations=seen)
        shown = rows_of(run("jobs", "status", name).stdout)
        assert [text.split()[1] for label, text in shown if label == "evaluation" and "(best)" in text] == [epoch]
        by = f", by {metric}" if metric else ""
        assert dict(shown)["validation"] == f"the last 10 % of the dataset{by}, patience 2"


def test_weights_that_are_not_of_the_last_step_say_so(run: Run, server: FakeServer) -> None:
    progress = job_pb2.Progress(step=60, total_steps=100)
    ended = {"state": job_pb2.Job.STATE_SUCCEEDED, "weights_digest": DIGEST, "progress": progress}
    server.put_job(name="jobs/1", weights_step=40, **ended)
    assert dict(rows_of(run("jobs", "status", "1").stdout))["weights after"] == "step 40 of 100"
    server.put_job(name="jobs/2", weights_step=100, **ended)
    assert "weights after" not in run("jobs", "status", "2").stdout


def test_status_tells_where_a_job_begins_what_it_made_and_how_long_it_took(run: Run, server: FakeServer) -> None:
    job = server.put_job(
        name="jobs/1",
        state=job_pb2.Job.STATE_SUCCEEDED,
        source_version="models/m/versions/1",
        result_version="models/m/versions/2",
        description="the baseline",
        labels={"team": "vision"},
        priority=-4,
    )
    job.timings.queued.FromSeconds(3)
    job.timings.running.FromSeconds(75)
    lines = {
        line.partition("  ")[0]: line.split("  ")[-1].strip() for line in run("jobs", "status", "1").stdout.splitlines()
    }
    assert lines["begins with"] == "models/m/versions/1"
    assert lines["has made"] == "models/m/versions/2"
    assert lines["time spent"] == "queued 0:03, running 1:15"
    assert (lines["labels"], lines["description"], lines["priority"]) == ("team=vision", "the baseline", "-4")
