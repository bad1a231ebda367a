"""A job from a file, the environment, --set and options: who holds over whom, and what is said of mistakes."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import Result

from chainrule.client import Adam, InvalidInputError, ParameterGroup, Schedule, Sgd, TrainingConfig, Validation
from chainrule.client.cli.exits import ExitCode
from chainrule.client.cli.jobs.job_file import OPTIONS, gather
from chainrule.client.config_messages import from_message
from chainrule.client.submission import job_request
from tests.client.fake_server import Failure, FakeServer

Run = Callable[..., Result]

JOB = """
model = "digits/versions/2"
dataset = "digits"
epochs = 20
batch_size = 32
shards = 4
max_workers = 2
trainable = ["fc.*"]
exact = false
priority = 5
description = "the baseline"

accumulate = 4
ema_decay = 0.999
precision = "bfloat16"

[optimizer]
name = "adamw"
lr = 0.001

[[parameter_groups]]
patterns = ["*.bias", "bn*"]
weight_decay = 0

[[parameter_groups]]
patterns = ["fc.*"]
lr = 0.01

[schedule]
decay = "cosine"
warmup_steps = 10

[validation]
fraction = 0.1
patience = 3

[labels]
team = "vision"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


def test_a_file_is_a_whole_job(run: Run, server: FakeServer, file: Path) -> None:
    result = run("jobs", "submit", str(file))
    assert result.exit_code == 0, result.output
    [request] = server.requests("CreateJob")
    assert from_message(request.job.config) == TrainingConfig(
        epochs=20,
        batch_size=32,
        shards=4,
        max_workers=2,
        trainable=("fc.*",),
        exact=False,
        optimizer=Adam(lr=0.001, weight_decay=0.01, decoupled=True),
        parameter_groups=(
            ParameterGroup(patterns=("*.bias", "bn*"), weight_decay=0.0),
            ParameterGroup(patterns=("fc.*",), lr=0.01),
        ),
        accumulate=4,
        ema_decay=0.999,
        precision="bfloat16",
        schedule=Schedule(decay="cosine", warmup_steps=10),
        validation=Validation(fraction=0.1, patience=3),
    )
    job = request.job
    assert (job.model, job.dataset) == ("models/digits/versions/2", "datasets/digits")
    assert (job.priority, job.description, dict(job.labels)) == (5, "the baseline", {"team": "vision"})


def gathered(file: Path, *settings: str, environment: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
    return gather(options, labels={}, settings=settings, job_file=file, environment=environment or {})


def test_options_hold_over_set_over_the_environment_over_the_file(file: Path) -> None:
    environment = {"CHAINRULE_JOB_EPOCHS": "30", "CHAINRULE_JOB_LR": "0.2", "CHAINRULE_JOB_SEED": "3"}
    found = gathered(file, "epochs=40", "optimizer.lr=0.3", environment=environment, epochs=50)
    assert (found["epochs"], found["seed"], found["batch_size"]) == (50, 3, 32)
    assert found["optimizer"] == {"name": "adamw", "lr": 0.3}
    assert gathered(file, "epochs=40", environment=environment)["epochs"] == 40
    assert gathered(file, environment=environment)["epochs"] == 30
    assert gathered(file)["epochs"] == 20


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("CHAINRULE_JOB_EPOCH", "did you mean CHAINRULE_JOB_EPOCHS"),
        ("CHAINRULE_JOB_XYZ", "they are named as the options"),
    ],
)
def test_a_variable_that_is_no_setting_is_named(file: Path, variable: str, meant: str) -> None:
    with pytest.raises(InvalidInputError, match=f"the variable {variable} .* is no setting of a job; {meant}"):
        gathered(file, environment={variable: "7"})


def test_settings_have_values_of_toml_or_are_texts(file: Path) -> None:
    found = gathered(
        file,
        *(
            "clip_norm=1",
            'trainable=["a.*", "b"]',
            "exact=true",
            "dataset=other",
            "description=5 epochs",
            "optimizer=sgd",
            'parameter_groups=[{patterns=["*.bias"], weight_decay=0}]',
            "precision=bfloat16",
        ),
        *("labels.run=7", 'labels."a/b"=x', "schedule = {decay = 'step'}", "model='m'"),
    )
    assert (found["clip_norm"], found["trainable"], found["exact"], found["dataset"]) == (
        1,
        ["a.*", "b"],
        True,
        "other",
    )
    assert (found["description"], found["model"]) == ("5 epochs", "m")
    assert found["optimizer"]["name"] == "sgd"
    assert found["parameter_groups"] == [{"patterns": ["*.bias"], "weight_decay": 0}]
    assert found["precision"] == "bfloat16"
    assert found["labels"] == {"team": "vision", "run": "7", "a/b": "x"}
    assert found["schedule"] == {"decay": "step", "warmup_steps": 10}


def test_a_text_stays_one_where_it_looks_like_a_number(file: Path) -> None:
    assert gathered(file, "model=7", environment={"CHAINRULE_JOB_DATASET": "8"}) | {} == {
        **gathered(file),
        "model": "7",
        "dataset": "8",
    }


@pytest.mark.parametrize("text", ["🙂", "a\x7fb", 'say "no"', "back\\slash", "two\nlines", "2026-01-01 \nseed = 7"])
def test_every_text_arrives_as_it_is(file: Path, text: str) -> None:
    found = gathered(file, f"labels.note={text}", environment={"CHAINRULE_JOB_DESCRIPTION": text})
    assert (found["description"], found["labels"]["note"], "seed" in found) == (text, text, False)


@pytest.mark.parametrize("setting", ["epochs=3\nseed = 7", "optimizer.lr=0.1\noptimizer.momentum = 0.9"])
def test_a_setting_with_a_line_break_sets_no_second_key(run: Run, server: FakeServer, file: Path, setting: str) -> None:
    result = run("jobs", "submit", str(file), "--set", setting)
    assert result.exit_code == ExitCode.USAGE
    assert f" is {setting.partition('=')[2]!r}; it must be a" in result.stderr
    assert server.requests("CreateJob") == []


def test_an_optimizer_replaces_the_settings_of_another(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text(
        'model = "m"\ndataset = "d"\n[optimizer]\nname = "adamw"\nlr = 0.1\nbeta1 = 0.8\nweight_decay = 0.2'
    )
    assert gathered(file, optimizer="sgd")["optimizer"] == {"name": "sgd", "lr": 0.1, "weight_decay": 0.2}
    assert gathered(file, optimizer="adam")["optimizer"] == {
        "name": "adam",
        "lr": 0.1,
        "beta1": 0.8,
        "weight_decay": 0.2,
    }
    assert gathered(file, optimizer="adamw")["optimizer"]["beta1"] == 0.8
    file.write_text('model = "m"\ndataset = "d"\n[optimizer]\nmomentum = 0.9')
    assert gathered(file, optimizer="adam")["optimizer"] == {"name": "adam"}


def test_a_name_in_a_file_takes_the_settings_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('model = "m"\ndataset = "d"\noptimizer = "adam"\nschedule = "cosine"\nloss = "mse"')
    found = gathered(file, lr=0.1, warmup_steps=5)
    assert found["optimizer"] == {"name": "adam", "lr": 0.1}
    assert found["schedule"] == {"decay": "cosine", "warmup_steps": 5}


def test_what_to_evaluate_on_replaces_the_other_way_to_say_it(file: Path) -> None:
    assert gathered(file, validation_dataset="val")["validation"] == {"dataset": "val", "patience": 3}
    found = gathered(file, environment={"CHAINRULE_JOB_VALIDATION_DATASET": "val"}, validation_fraction=0.2)
    assert found["validation"] == {"fraction": 0.2, "patience": 3}
    assert gathered(file, patience=4)["validation"] == {"fraction": 0.1, "patience": 4}
    assert gathered(file, validation_metric="f1")["validation"] == {"fraction": 0.1, "patience": 3, "metric": "f1"}


def test_a_switch_of_the_file_can_be_turned_off(run: Run, server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text(
        'model = "m"\ndataset = "d"\n[optimizer]\nmomentum = 0.9\nnesterov = true\n'
        "[validation]\nfraction = 0.1\nrestore_best = true"
    )
    run("jobs", "submit", str(file), "--no-nesterov", "--no-restore-best")
    config = from_message(server.requests("CreateJob")[0].job.config)
    assert config.optimizer == Sgd(momentum=0.9)
    assert config.validation == Validation(fraction=0.1)


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("--timeout", "3"), "--timeout"),
        (("--dry-run", "--wait"), "--wait"),
        (("--dry-run", "--timeout", "3"), "--timeout"),
        (("--dry-run", "--request-id", "once"), "--request-id"),
    ],
)
def test_an_option_that_would_do_nothing_is_wrong_usage(
    run: Run, server: FakeServer, file: Path, words: tuple[str, ...], option: str
) -> None:
    result = run("jobs", "submit", str(file), *words)
    assert result.exit_code == ExitCode.USAGE
    assert f"Invalid value for {option}" in result.stderr
    assert server.calls == []


def test_the_two_ways_to_say_how_many_workers_replace_each_other(file: Path) -> None:
    found = gathered(file, workers=4)
    assert (found["workers"], "max_workers" in found) == (4, False)


def test_every_option_is_an_argument_and_every_argument_an_option() -> None:
    arguments = set(inspect.signature(job_request).parameters)
    others = {
        "labels",
        "request_id",
        "parameter_groups",
        "augmentation",
        "inputs",
    }  # the last three have --set: tables are no options
    assert {key.partition(".")[0] for key in OPTIONS.values()} | others == arguments


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", 'job.toml has the unknown key "epoch"; did you mean "epochs"?'),
        ("[optimiser]\nlr = 1", 'the unknown key "optimiser"; did you mean "optimizer"?'),
        ("[optimizer]\nlearning = 1\nmomentun = 2", 'the unknown key "optimizer.learning"'),
        ("[optimizer]\nmomentun = 2", 'the unknown key "optimizer.momentun"; did you mean "optimizer.momentum"?'),
        ("lr = 1", 'the unknown key "lr"; did you mean "optimizer.lr"?'),
        ("zzzz = 1", 'the unknown key "zzzz"; there are model, dataset, epochs'),
        ("epochs = ", "job.toml cannot be read as a TOML file: Invalid value"),
        ("epochs = 3", "nothing says which model to take; give --model, or name it in a job file"),
        ('model = "m"', "nothing says which dataset to take"),
        ("[validation]\nshare = 1", 'the unknown key "validation.share"'),
    ],
)
def test_mistakes_in_a_file_are_wrong_usage(
    run: Run, server: FakeServer, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "job.toml").write_text(text)
    result = run("jobs", "submit", str(tmp_path / "job.toml"))
    assert result.exit_code == ExitCode.USAGE
    assert message in result.stderr
    assert server.calls == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "--set 'epochs' is not key=value, as optimizer.lr=0.1"),
        ("=3", "--set '=3' is not key=value"),
        ("a b=3", "--set 'a b=3' has no key of TOML before its ="),
        ("epoch=3", '--set has the unknown key "epoch"; did you mean "epochs"?'),
        ("request_id=3", '--set has the unknown key "request_id"'),
        ("epochs=[3]", r"epochs is [3]; it must be a whole number from 1 to 2147483647"),
        ("optimizer=[1]", "optimizer is [1]; it must be a name or a mapping"),
        ("labels=3", "labels is 3; it must be a mapping of texts"),
        ("exact='no'", "exact is 'no'; it must be True or False"),
    ],
)
def test_mistakes_in_settings_are_wrong_usage(
    run: Run, server: FakeServer, file: Path, setting: str, message: str
) -> None:
    result = run("jobs", "submit", str(file), "--set", setting)
    assert result.exit_code == ExitCode.USAGE, result.output
    assert message in result.stderr
    assert server.requests("CreateJob") == []


def test_a_model_that_is_no_name_is_wrong_usage(run: Run, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('model = 7\ndataset = "d"')
    result = run("jobs", "submit", str(tmp_path / "job.toml"))
    assert (result.exit_code, result.stderr) == (ExitCode.USAGE, "error: model is 7; it must be a handle or a name\n")


def test_a_file_that_is_no_text_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match="cannot be read as a TOML file"):
        gathered(tmp_path / "job.toml")


def test_a_dry_run_shows_the_job_and_submits_nothing(
    run: Run, run_json: Callable[..., Any], server: FakeServer, file: Path
) -> None:
    result = run("jobs", "submit", str(file), "--dry-run", "--epochs", "7")
    assert result.exit_code == 0, result.output
    assert "epochs 7, batch size 32, shards 4" in result.stdout
    assert "team=vision" in result.stdout
    assert result.stderr == "checked only; nothing was submitted\n"
    assert server.jobs == {}
    assert run_json("jobs", "submit", str(file), "--dry-run")["config"]["epochs"] == 20


def test_a_dry_run_of_a_job_that_is_refused_tells_the_violations(run: Run, server: FakeServer, file: Path) -> None:
    violations = {"job.config.shards": "is 4; at most 2", "job.config.adam.lr": "is 0"}
    server.fail("CreateJob", Failure(code=grpc.StatusCode.INVALID_ARGUMENT, message="no", violations=violations))
    result = run("jobs", "submit", str(file), "--dry-run")
    assert result.exit_code == ExitCode.SERVICE
    assert result.stderr.splitlines() == ["error: no", "  shards: is 4; at most 2", "  optimizer.lr: is 0"]


def test_labels_of_the_command_line_join_those_of_the_file(run: Run, server: FakeServer, file: Path) -> None:
    run("jobs", "submit", str(file), "--label", "run=7", "--label", "team=speech", "--priority", "-1")
    [request] = server.requests("CreateJob")
    assert (dict(request.job.labels), request.job.priority) == ({"team": "speech", "run": "7"}, -1)


def test_the_environment_is_read_by_the_command(
    run: Run, server: FakeServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAINRULE_JOB_OPTIMIZER", "sgd")
    monkeypatch.setenv("CHAINRULE_JOB_MOMENTUM", "0.5")
    run("jobs", "submit", str(file))
    [request] = server.requests("CreateJob")
    assert from_message(request.job.config).optimizer == Sgd(lr=0.001, momentum=0.5)


def test_the_help_says_who_holds_over_whom(run: Run) -> None:
    text = " ".join(run("jobs", "submit", "--help").stdout.replace("│", "").split())
    assert "taken from --set, then from the environment (CHAINRULE_JOB_EPOCHS for --epochs, and likewise" in text
    assert "then from JOBFILE, then from the defaults" in text
