"""What makes a job worth queueing."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from chainrule.engine import graph, io
from chainrule.server.architecture import Builtin, GraphArchitecture
from chainrule.server.blobs import BlobStore
from chainrule.server.datasets import DatasetCatalog
from chainrule.server.errors import (
    AlreadyExistsError,
    DamagedBlobError,
    IllegalStateError,
    InvalidRequestError,
    NotFoundError,
    QueueFullError,
)
from chainrule.server.jobs.checks import check_config
from chainrule.server.jobs.submission import Submission, Submissions, num_kept_back
from chainrule.server.models import ModelCatalog
from chainrule.server.records import JobState
from chainrule.server.store import Request, Store
from chainrule.server.tenant_blobs import TenantBlobs
from chainrule.server.training.augmentation import (
    Augmentation,
    ColorJitter,
    Cutout,
    Normalize,
    RandomCrop,
    RandomFlip,
    RandomResizedCrop,
    Resize,
    Transform,
)
from chainrule.server.training.config import Adam, Loss, MetricSpec, Schedule, Sgd, TrainingConfig, Validation
from chainrule.server.training.config import ParameterGroup as Group
from tests import graphs
from tests.server.conftest import refusal

CONFIG = TrainingConfig(epochs=3, batch_size=4, shards=4, max_workers=2)


class Catalogs:
    """Submissions to a store that has the model "models/m" and the dataset "datasets/d"."""

    def __init__(self, store: Store, blobs: BlobStore) -> None:
        self.blobs = blobs
        everybodys = TenantBlobs(blobs, store, are_apart=False)
        self.models = ModelCatalog(store, blobs, everybodys)
        self.datasets = DatasetCatalog(store, blobs, everybodys)
        self.submissions = Submissions(store, self.models)
        self.models.create(
            "m", architecture=Builtin("small_cnn", {"width": 2}), weights_digest="", init_seed=0, tenant="default"
        )
        self.create_dataset("d", (1, 8, 8))

    def create_dataset(self, dataset_id: str, shape: tuple[int, ...], label: int = 9, count: int = 10) -> str:
        return self.create(dataset_id, np.zeros((count, *shape), np.float32), np.full(count, label))

    def create(self, dataset_id: str, inputs: np.ndarray, targets: np.ndarray) -> str:
        digest = self.blobs.put(io.save({"inputs": inputs, "targets": targets}))
        return self.datasets.create(dataset_id, digest=digest, tenant="default").name

    def create_gpt(self, **config: Any) -> str:
        """A GPT of 16 tokens and at most 8 in a row."""
        small = {"vocab_size": 16, "context": 8, "dim": 8, "heads": 2, "layers": 1, **config}
        return self.models.create(
            "gpt", architecture=Builtin("gpt", small), weights_digest="", init_seed=0, tenant="default"
        ).name

    def submit(self, cpus: float = 4, **fields: Any) -> tuple[JobState, bool]:
        submission = Submission(**{"model": "models/m", "dataset": "datasets/d", "config": CONFIG, **fields})
        job, new = self.submissions.submit(submission, cluster_cpus=cpus)
        return job.state, new


@pytest.fixture
def catalogs(store: Store, blobs: BlobStore) -> Catalogs:
    return Catalogs(store, blobs)


# --- the configuration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        TrainingConfig(),
        CONFIG,
        replace(CONFIG, optimizer=Sgd(lr=1e-9, momentum=0.9, nesterov=True)),
        replace(CONFIG, optimizer=Sgd(lr=10, dampening=0.5, weight_decay=0.1)),
        replace(CONFIG, optimizer=Adam(beta1=0, beta2=0, eps=0, weight_decay=0.1, decoupled=True)),
        replace(CONFIG, seed=2**64 - 1),
        replace(CONFIG, min_workers=4, max_workers=4, partitions=64, audit_fraction=1, max_failures=0),
        replace(CONFIG, clip_norm=1.0, non_finite="skip", partitions=1),
        replace(CONFIG, staleness=3, exact=False),
        replace(CONFIG, batch_size=11, accumulate=2, ema_decay=0.999, precision="bfloat16"),
        replace(CONFIG, optimizer=Sgd(nesterov=True, momentum=0.9), parameter_groups=(Group(("a",), weight_decay=0),)),
        replace(CONFIG, optimizer=Adam(), parameter_groups=(Group(("a", "b"), lr=1), Group(("*",), beta1=0.5))),
        replace(CONFIG, staleness=3, exact=False, accumulate=1, parameter_groups=(Group(("*",), lr=1),)),
        replace(CONFIG, schedule=Schedule(10, "cosine", 100, gamma=1, final_factor=1)),
        replace(CONFIG, validation=Validation(fraction=0.9, patience=3, restore_best=True)),
        replace(CONFIG, checkpoint_every_steps=1, keep_checkpoints=1, receipt_every_steps=0),
    ],
)
def test_a_configuration_that_can_be_run_is_taken(config: TrainingConfig) -> None:
    assert check_config(config) == []


@pytest.mark.parametrize(
    ("changed", "field", "description"),
    [
        ({"epochs": 0}, "epochs", "is 0; use 1 to 1,000,000"),
        ({"epochs": 1_000_001}, "epochs", "is 1000001; use 1 to 1,000,000"),
        ({"shards": 0, "max_workers": 0}, "shards", "is 0; use 1 to 65,536"),
        ({"batch_size": 10**6, "shards": 65_537}, "shards", "is 65537; use 1 to 65,536"),
        ({"shards": 5}, "shards", "is 5, more than batch_size 4"),
        ({"max_workers": 5}, "max_workers", "is 5; use 1 to shards (4)"),
        ({"max_workers": 0}, "max_workers", "is 0; use 1 to shards (4)"),
        ({"min_workers": 0}, "min_workers", "is 0; use at least 1"),
        ({"min_workers": 3}, "min_workers", "is 3, more than max_workers 2"),
        ({"optimizer": Sgd(lr=0)}, "sgd.lr", "is 0; use a number above 0"),
        ({"optimizer": Sgd(lr=math.nan)}, "sgd.lr", "is nan; use a number above 0"),
        ({"optimizer": Sgd(momentum=-0.1)}, "sgd.momentum", "is -0.1; use 0 or more"),
        ({"optimizer": Sgd(dampening=math.inf)}, "sgd.dampening", "is inf; use a finite number"),
        ({"optimizer": Sgd(weight_decay=-1)}, "sgd.weight_decay", "is -1; use 0 or more"),
        ({"optimizer": Sgd(nesterov=True)}, "sgd.nesterov", "needs momentum above 0"),
        ({"optimizer": Sgd(nesterov=True, momentum=0.9, dampening=0.1)}, "sgd.nesterov", "needs momentum above 0"),
        ({"optimizer": Adam(lr=math.inf)}, "adam.lr", "is inf; use a number above 0"),
        ({"optimizer": Adam(beta1=1)}, "adam.beta1", "is 1; use a number from 0, below 1"),
        ({"optimizer": Adam(beta2=math.nan)}, "adam.beta2", "is nan; use a number from 0, below 1"),
        ({"optimizer": Adam(eps=-1e-8)}, "adam.eps", "is -1e-08; use 0 or more"),
        ({"optimizer": Adam(weight_decay=-1)}, "adam.weight_decay", "is -1; use 0 or more"),
        ({"schedule": Schedule(warmup_steps=-1)}, "schedule.warmup_steps", "is -1; use 0 or more"),
        ({"schedule": Schedule(decay_steps=-1)}, "schedule.decay_steps", "is -1; use 0 or more"),
        ({"schedule": Schedule(gamma=0)}, "schedule.gamma", "is 0; use a number above 0, at most 1"),
        ({"schedule": Schedule(gamma=1.5)}, "schedule.gamma", "is 1.5; use a number above 0, at most 1"),
        ({"schedule": Schedule(final_factor=2)}, "schedule.final_factor", "is 2; use 0 to 1"),
        ({"clip_norm": -1}, "clip_norm", "is -1; use 0 or more"),
        ({"accumulate": 0}, "accumulate", "is 0; use at least 1"),
        ({"accumulate": 2}, "accumulate", "is 2, but the smallest of 4 shards of a batch of 4 has 1 examples"),
        ({"ema_decay": -0.1}, "ema_decay", "is -0.1; use a number above 0, below 1, or 0 for no average"),
        ({"ema_decay": 1.0}, "ema_decay", "is 1.0; use a number above 0, below 1"),
        ({"ema_decay": math.nan}, "ema_decay", "is nan; use a number above 0, below 1"),
        ({"parameter_groups": (Group((), lr=1),)}, "parameter_groups[0].patterns", "names nothing; use patterns"),
        ({"parameter_groups": (Group(("",), lr=1),)}, "parameter_groups[0].patterns[0]", "is empty; use a pattern"),
        ({"parameter_groups": (Group(("*",)),)}, "parameter_groups[0]", "sets nothing; give it lr"),
        (
            {"parameter_groups": (Group(("a",), lr=1), Group(("*",), lr=0))},
            "parameter_groups[1].lr",
            "is 0; use a number above 0",
        ),
        (
            {"parameter_groups": (Group(("*",), weight_decay=-1),)},
            "parameter_groups[0].weight_decay",
            "is -1; use 0 or more",
        ),
        (
            {"parameter_groups": (Group(("*",), nesterov=True),)},
            "parameter_groups[0].nesterov",
            "needs momentum above 0 and dampening 0",
        ),
        (
            {"parameter_groups": (Group(("*",), beta1=0.5),)},
            "parameter_groups[0].beta1",
            "is not a setting of the job's optimizer, sgd; leave it out",
        ),
        (
            {"optimizer": Adam(), "parameter_groups": (Group(("*",), momentum=0.5),)},
            "parameter_groups[0].momentum",
            "is not a setting of the job's optimizer, adam; leave it out",
        ),
        (
            {"optimizer": Adam(), "parameter_groups": (Group(("*",), beta2=1.0),)},
            "parameter_groups[0].beta2",
            "is 1.0; use a number from 0, below 1",
        ),
        ({"parameter_groups": (Group(("*",), lr=1),) * 65}, "parameter_groups", "has 65 groups; use at most 64"),
        ({"clip_norm": 1, "partitions": 2}, "clip_norm", "needs the whole gradient in one place, but partitions is 2;"),
        ({"non_finite": "skip", "partitions": 2}, "non_finite", "SKIP needs the whole gradient in one place"),
        ({"trainable": ()}, "trainable", "names nothing; leave it out to train all parameters"),
        ({"trainable": ("*", "")}, "trainable[1]", "is empty; use a pattern of names"),
        (
            {"validation": Validation(fraction=0.91)},
            "validation.fraction",
            "is 0.91; use a number above 0, at most 0.9",
        ),
        ({"validation": Validation(fraction=-0.1)}, "validation.fraction", "is -0.1; use a number above 0"),
        ({"validation": Validation("datasets/v", 0.1)}, "validation.fraction", "is 0.1, but validation.dataset is"),
        ({"validation": Validation("datasets/v", seed=5)}, "validation.seed", "is 5, but there is no share to draw"),
        ({"validation": Validation(patience=1)}, "validation.patience", "is 1; needs something to evaluate on"),
        ({"validation": Validation(fraction=0.1, patience=-1)}, "validation.patience", "is -1; use 0 or more"),
        ({"validation": Validation(restore_best=True)}, "validation.restore_best", "needs something to evaluate on"),
        ({"staleness": -1}, "staleness", "is -1; use 0 or more"),
        ({"staleness": 1}, "staleness", "is 1: weights would depend on timing, but exact is true"),
        ({"partitions": -1}, "partitions", "is -1; use 0 to 64"),
        ({"partitions": 65}, "partitions", "is 65; use 0 to 64"),
        ({"checkpoint_every_steps": -1}, "checkpoint_every_steps", "is -1; use 0 or more"),
        ({"keep_checkpoints": 0}, "keep_checkpoints", "is 0; use 1 to 1,000"),
        ({"receipt_every_steps": -1}, "receipt_every_steps", "is -1; use 0 or more"),
        ({"audit_fraction": 1.5}, "audit_fraction", "is 1.5; use 0 to 1"),
        ({"max_failures": -1}, "max_failures", "is -1; use 0 or more"),
    ],
)
def test_a_field_that_is_wrong_is_named(changed: dict[str, Any], field: str, description: str) -> None:
    violation = check_config(replace(CONFIG, **changed))[0]
    assert violation.field == f"job.config.{field}"
    assert violation.description.startswith(description)


def test_all_fields_that_are_wrong_are_named() -> None:
    wrong = TrainingConfig(epochs=-1, batch_size=0, shards=-1, max_workers=-1, optimizer=Sgd(lr=-1, momentum=-1))
    fields = {violation.field.removeprefix("job.config.") for violation in check_config(wrong)}
    assert fields == {"epochs", "batch_size", "shards", "max_workers", "sgd.lr", "sgd.momentum"}


# --- the model on the data -------------------------------------------------------------------------------------


def test_a_job_that_can_be_run_is_queued(catalogs: Catalogs) -> None:
    assert catalogs.submit() == (JobState.QUEUED, True)
    job, _ = catalogs.submissions.submit(Submission("models/m", "datasets/d", CONFIG), cluster_cpus=4)
    assert (job.model, job.dataset, job.config) == ("models/m", "datasets/d", CONFIG)
    assert job.progress.total_steps == 3 * 3  # 3 epochs of 10 examples, 4 a step


@pytest.mark.parametrize("name", ["", "m", "jobs/m"])
@pytest.mark.parametrize("field", ["model", "dataset"])
def test_a_name_of_something_else_is_refused_in_its_field(catalogs: Catalogs, field: str, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="is no name in") as caught:
        catalogs.submit(4, **{field: name})
    assert refusal(caught).field == f"job.{field}"


@pytest.mark.parametrize(("field", "name"), [("model", "models/x"), ("dataset", "datasets/x")])
def test_a_model_or_dataset_that_is_not_there_is_not_found(catalogs: Catalogs, field: str, name: str) -> None:
    with pytest.raises(NotFoundError, match=name):
        catalogs.submit(4, **{field: name})


@pytest.mark.parametrize("shape", [(), (64,), (8, 8), (3, 8, 8), (1, 4, 16), (1, 9, 9), (1, 1, 8, 8), (1, 3000, 3000)])
def test_inputs_that_the_model_does_not_take_are_refused(catalogs: Catalogs, shape: tuple[int, ...]) -> None:
    dataset = catalogs.create_dataset("other", shape, count=1)
    with pytest.raises(InvalidRequestError, match=r'of "datasets/other" do not fit "models/m": .* got \(1') as caught:
        catalogs.submit(dataset=dataset)
    assert refusal(caught).field == "job.dataset"


def test_a_label_that_the_model_does_not_know_is_refused(catalogs: Catalogs) -> None:
    dataset = catalogs.create_dataset("other", (1, 8, 8), label=10)
    with pytest.raises(InvalidRequestError, match=r"has the label 10, but .* tells 10 classes apart"):
        catalogs.submit(dataset=dataset)


@pytest.mark.parametrize("pattern", ["conv1.weight", "conv*", "*.bias", "f[a-d].*"])
def test_what_is_trained_is_named_by_patterns(catalogs: Catalogs, pattern: str) -> None:
    assert catalogs.submit(config=replace(CONFIG, trainable=(pattern,))) == (JobState.QUEUED, True)


def test_a_pattern_that_names_no_parameter_is_refused(catalogs: Catalogs) -> None:
    config = replace(CONFIG, trainable=("fc.*", "fd.*", "bn1.running_mean"))
    with pytest.raises(InvalidRequestError, match=r"'fd\.\*' matches no parameter of \"models/m\"; its") as caught:
        catalogs.submit(config=config)
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["job.config.trainable[1]", "job.config.trainable[2]"]


def test_groups_of_parameters_are_named_by_patterns(catalogs: Catalogs) -> None:
    groups = (Group(("*.bias", "bn?.*"), weight_decay=0.0), Group(("fc.*",), lr=1.0), Group(("*",), momentum=0.5))
    assert catalogs.submit(config=replace(CONFIG, parameter_groups=groups)) == (JobState.QUEUED, True)
    job, _ = catalogs.submissions.submit(
        Submission("models/m", "datasets/d", replace(CONFIG, parameter_groups=groups)), cluster_cpus=4
    )
    assert job.config.parameter_groups == groups  # from the store


def test_a_group_that_names_no_parameter_is_refused(catalogs: Catalogs) -> None:
    config = replace(CONFIG, parameter_groups=(Group(("fc.*",), lr=1.0), Group(("*.bias", "fd.*"), lr=2.0)))
    with pytest.raises(
        InvalidRequestError, match=r"'fd\.\*' matches no parameter of \"models/m\"; its .*'conv1"
    ) as caught:
        catalogs.submit(config=config)
    assert refusal(caught).field == "job.config.parameter_groups[1].patterns[1]"


def test_a_group_behind_one_that_takes_all_of_it_is_refused(catalogs: Catalogs) -> None:
    config = replace(CONFIG, parameter_groups=(Group(("*",), lr=1.0), Group(("*.bias",), weight_decay=0.0)))
    with pytest.raises(InvalidRequestError, match="matches only parameters that are of groups before it") as caught:
        catalogs.submit(config=config)
    assert refusal(caught).field == "job.config.parameter_groups[1].patterns"


def test_a_call_of_before_the_recipe_is_the_same_call() -> None:
    def digest(**config: Any) -> str:
        asked = Submission("models/m", "datasets/d", replace(CONFIG, **config), request_id="r")
        return asked.request().payload_digest

    before = {**asdict(CONFIG)}
    for name in ("losses", "metrics", "parameter_groups", "accumulate", "ema_decay", "precision", "augmentation"):
        del before[name]
    del before["validation"]["seed"]
    assert digest() == Request.of("r", model="models/m", dataset="datasets/d", config=before).payload_digest
    other: list[dict[str, Any]] = [
        {"parameter_groups": (Group(("*",), lr=1.0),)},
        {"accumulate": 2},
        {"ema_decay": 0.9},
    ]
    assert len({digest(), *(digest(**config) for config in other), digest(precision="bfloat16")}) == 5


# --- tokens ----------------------------------------------------------------------------------------------------


TOKENS = np.arange(30).reshape(5, 6) % 16


def test_a_model_of_tokens_is_trained_on_tokens(catalogs: Catalogs) -> None:
    dataset = catalogs.create("tokens", TOKENS, (TOKENS + 1) % 16)
    assert catalogs.submit(model=catalogs.create_gpt(), dataset=dataset) == (JobState.QUEUED, True)


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (TOKENS + 1, TOKENS, r"inputs of shape \[6\] .* do not fit .*16"),
        (np.tile(TOKENS, 2), np.tile(TOKENS, 2), r"inputs of shape \[12\] .* do not fit .* at most 8"),
        (TOKENS, TOKENS + 1, r"has the label 16, but .* tells 16 classes apart"),
        (
            TOKENS,
            TOKENS[:, 0],
            r"targets of shape \(N,\), which go with outputs of shape \(N, classes\), but those of ",
        ),
    ],
)
def test_tokens_that_do_not_fit_the_model_are_refused(
    catalogs: Catalogs, inputs: np.ndarray, targets: np.ndarray, message: str
) -> None:
    dataset = catalogs.create("tokens", inputs, targets)
    with pytest.raises(InvalidRequestError, match=message) as caught:
        catalogs.submit(model=catalogs.create_gpt(), dataset=dataset)
    assert refusal(caught).field == "job.dataset"


def test_features_are_no_tokens(catalogs: Catalogs) -> None:
    dataset = catalogs.create_dataset("features", (6,))
    with pytest.raises(InvalidRequestError, match="do not fit"):
        catalogs.submit(model=catalogs.create_gpt(), dataset=dataset)


# --- evaluation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_examples", "fraction", "kept_back"),
    [(10, 0.0, 0), (10, 0.2, 2), (10, 0.01, 1), (10, 0.26, 3), (3, 0.9, 2), (2, 0.9, 1), (1000, 0.9, 900)],
)
def test_a_share_of_the_examples_is_kept_back_but_not_all(num_examples: int, fraction: float, kept_back: int) -> None:
    assert num_kept_back(num_examples, fraction) == kept_back


def test_what_is_kept_back_takes_no_steps(catalogs: Catalogs) -> None:
    config = replace(CONFIG, validation=Validation(fraction=0.2))
    job, _ = catalogs.submissions.submit(Submission("models/m", "datasets/d", config), cluster_cpus=4)
    assert job.progress.total_steps == 3 * 2  # 3 epochs of 8 examples, 4 a step


def test_a_single_example_cannot_be_split(catalogs: Catalogs) -> None:
    dataset = catalogs.create_dataset("one", (1, 8, 8), count=1)
    with pytest.raises(InvalidRequestError, match=r'is 0\.5, but "datasets/one" has 1 example') as caught:
        catalogs.submit(dataset=dataset, config=replace(CONFIG, validation=Validation(fraction=0.5)))
    assert refusal(caught).field == "job.config.validation.fraction"


def test_a_second_dataset_must_be_there_and_look_like_the_first(catalogs: Catalogs) -> None:
    def submit(dataset: str) -> tuple[JobState, bool]:
        return catalogs.submit(config=replace(CONFIG, validation=Validation(dataset=dataset)))

    assert submit(catalogs.create_dataset("v", (1, 8, 8), count=3)) == (JobState.QUEUED, True)
    with pytest.raises(NotFoundError, match="datasets/x"):
        submit("datasets/x")
    for name, message in (
        ("v", "is no name in datasets"),
        (catalogs.create_dataset("wide", (1, 8, 16)), r'"datasets/wide" has inputs of shape \(N, 1, 8, 16\), but "dat'),
        (catalogs.create_dataset("other", (1, 8, 8), label=10), "has the label 10"),
    ):
        with pytest.raises(InvalidRequestError, match=message) as caught:
            submit(name)
        assert refusal(caught).field == "job.config.validation.dataset"


def test_tokens_and_features_are_not_evaluated_on_each_other(catalogs: Catalogs) -> None:
    catalogs.models.create(
        "mlp", architecture=Builtin("mlp", {"in_features": 6}), weights_digest="", init_seed=0, tenant="default"
    )
    features = catalogs.create_dataset("features", (6,))
    tokens = catalogs.create("tokens", TOKENS, TOKENS[:, 0])
    with pytest.raises(InvalidRequestError, match=r"are tokens, but those of .* are float32 features") as caught:
        catalogs.submit(
            model="models/mlp", dataset=features, config=replace(CONFIG, validation=Validation(dataset=tokens))
        )
    assert refusal(caught).field == "job.config.validation.dataset"


def test_a_model_whose_weights_are_damaged_is_refused(catalogs: Catalogs) -> None:
    digest = catalogs.models.get("models/m", tenant="default").weights_digest
    path = catalogs.blobs.path(digest)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DamagedBlobError, match="upload it again with WriteBlob"):
        catalogs.submit()
    catalogs.blobs.put(content)
    assert catalogs.submit() == (JobState.QUEUED, True)


# --- the rest --------------------------------------------------------------------------------------------------


def test_only_the_fewest_workers_must_have_a_place(catalogs: Catalogs) -> None:
    assert catalogs.submit(cpus=1) == (JobState.QUEUED, True)
    with pytest.raises(IllegalStateError, match=r"min_workers is 2, but the cluster has 1 CPUs .* --num-cpus 2"):
        catalogs.submit(cpus=1, config=replace(CONFIG, min_workers=2))


def test_a_repeated_request_answers_with_its_job(catalogs: Catalogs) -> None:
    assert catalogs.submit(request_id="r") == (JobState.QUEUED, True)
    assert catalogs.submit(request_id="r") == (JobState.QUEUED, False)
    with pytest.raises(AlreadyExistsError, match='request_id "r" has already made'):
        catalogs.submit(request_id="r", config=replace(CONFIG, epochs=4))


def test_a_request_id_that_is_too_long_is_refused(catalogs: Catalogs) -> None:
    with pytest.raises(InvalidRequestError, match="request_id: it has 129 characters; use at most 128"):
        catalogs.submit(request_id="r" * 129)


def test_all_that_is_wrong_with_what_is_noted_of_a_job_is_named(catalogs: Catalogs) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        catalogs.submit(labels={"Team": "x"}, description="x" * 1001, priority=101, config=replace(CONFIG, epochs=0))
    assert [violation.field for violation in caught.value.violations] == [
        "job.config.epochs",
        "job.labels['Team']",
        "job.description",
        "job.priority",
    ]
    for priority in (-100, 100):
        assert catalogs.submit(priority=priority) == (JobState.QUEUED, True)
    with pytest.raises(InvalidRequestError, match=r"job\.priority: is -101; use -100 to 100"):
        catalogs.submit(priority=-101)


@pytest.mark.parametrize("change", [{"labels": {"a": "b"}}, {"description": "d"}, {"priority": 1}])
def test_what_is_noted_of_a_job_is_part_of_what_was_asked_for(catalogs: Catalogs, change: dict[str, Any]) -> None:
    catalogs.submit(request_id="r")
    with pytest.raises(AlreadyExistsError):
        catalogs.submit(request_id="r", **change)


@pytest.mark.parametrize(("model", "version"), [("models/m/versions/1", 1), ("models/m/versions/latest", 1)])
def test_a_job_keeps_the_number_of_its_version(catalogs: Catalogs, model: str, version: int) -> None:
    job, _ = catalogs.submissions.submit(Submission(model, "datasets/d", CONFIG), cluster_cpus=4)
    assert (job.model, job.source_version) == ("models/m", version)
    assert job.dataset_digest == catalogs.datasets.get("datasets/d", tenant="default").digest


@pytest.mark.parametrize("model", ["models/m/versions/2", "models/x/versions/latest", "models/m/versions/x"])
def test_a_version_that_is_not_there_cannot_be_trained(catalogs: Catalogs, model: str) -> None:
    with pytest.raises(NotFoundError):
        catalogs.submit(model=model)


def test_another_tenant_trains_its_own(catalogs: Catalogs) -> None:
    with pytest.raises(NotFoundError, match='there is no model "models/m"'):
        catalogs.submit(tenant="others")
    catalogs.models.create(
        "m", architecture=Builtin("small_cnn", {"width": 3}), weights_digest="", init_seed=0, tenant="others"
    )
    with pytest.raises(NotFoundError, match='there is no dataset "datasets/d"'):
        catalogs.submit(tenant="others")


def test_a_preview_is_checked_like_a_job_and_leaves_nothing(catalogs: Catalogs, store: Store) -> None:
    asked = Submission("models/m", "datasets/d", CONFIG, request_id="r", labels={"a": "b"})
    job = catalogs.submissions.preview(asked, cluster_cpus=4)
    assert (job.config, job.labels, job.progress.total_steps) == (CONFIG, {"a": "b"}, 9)
    assert store.unfinished_jobs() == []
    with pytest.raises(InvalidRequestError):
        catalogs.submissions.preview(replace(asked, priority=1000), cluster_cpus=4)
    with pytest.raises(IllegalStateError):
        catalogs.submissions.preview(asked, cluster_cpus=0)
    assert catalogs.submit(request_id="r", labels={"a": "b"}) == (JobState.QUEUED, True)


def test_a_full_queue_takes_no_more(catalogs: Catalogs, store: Store) -> None:
    submissions = Submissions(store, catalogs.models, max_waiting=1)
    asked = Submission("models/m", "datasets/d", CONFIG)
    submissions.submit(asked, cluster_cpus=4)
    for refuse in (submissions.submit, submissions.preview):
        with pytest.raises(QueueFullError):
            refuse(asked, cluster_cpus=4)


# --- graphs ----------------------------------------------------------------------------------------------------


def create_graph(catalogs: Catalogs, content: bytes, model_id: str = "g") -> str:
    architecture, weights = graph.split(content)
    return catalogs.models.create(
        model_id,
        architecture=GraphArchitecture(catalogs.blobs.put(architecture)),
        weights_digest=catalogs.blobs.put(io.save(weights)),
        init_seed=0,
        tenant="default",
    ).name


def test_a_graph_is_tried_on_the_dataset(catalogs: Catalogs) -> None:
    model = create_graph(catalogs, graphs.small_onnx())
    fits = catalogs.create_dataset("fits", (graphs.FEATURES,))
    assert catalogs.submit(model=model, dataset=fits) == (JobState.QUEUED, True)
    config = replace(CONFIG, trainable=("fc2.*",))
    assert catalogs.submit(model=model, dataset=fits, config=config) == (JobState.QUEUED, True)


def test_inputs_that_a_graph_does_not_take_are_refused_with_those_that_it_declares(catalogs: Catalogs) -> None:
    model = create_graph(catalogs, graphs.small_onnx())
    wide = catalogs.create_dataset("wide", (graphs.FEATURES + 1,))
    with pytest.raises(
        InvalidRequestError, match=r'do not fit "models/g", which takes "x" of float32 \(N, 8\)'
    ) as error:
        catalogs.submit(model=model, dataset=wide)
    assert refusal(error).field == "job.dataset"
    labels = catalogs.create_dataset("labels", (graphs.FEATURES,), label=10)
    with pytest.raises(InvalidRequestError, match=r"has the label 10, but .* tells 10 classes apart"):
        catalogs.submit(model=model, dataset=labels)


def test_a_loss_names_one_of_the_outputs_of_a_graph(catalogs: Catalogs) -> None:
    model, dataset = create_graph(catalogs, graphs.two_outputs()), catalogs.create_dataset("pairs", (2,), label=1)
    assert catalogs.submit(model=model, dataset=dataset, config=replace(CONFIG, losses=(Loss(output="z"),)))
    with pytest.raises(InvalidRequestError, match=r'is "q", but the outputs of the model are y, z') as error:
        catalogs.submit(model=model, dataset=dataset, config=replace(CONFIG, losses=(Loss(output="q"),)))
    assert refusal(error).field == "job.config.losses[0].output"


def test_a_graph_that_inflates_its_input_is_refused_before_it_does(catalogs: Catalogs) -> None:
    dataset = catalogs.create_dataset("thin", (2, 1), label=2)
    assert catalogs.submit(model=create_graph(catalogs, graphs.inflating(100)), dataset=dataset)[1]
    for elements in (10**8, 10**12, 2**62):
        model = create_graph(catalogs, graphs.inflating(elements), f"g{elements}")
        tracemalloc.start()
        try:
            with pytest.raises(InvalidRequestError, match="blow up") as error:
                catalogs.submit(model=model, dataset=dataset)
            assert tracemalloc.get_traced_memory()[1] < 2**26
        finally:
            tracemalloc.stop()
        assert refusal(error).field == "job.dataset"


# --- what is done to images ------------------------------------------------------------------------------------


def augmented(*transforms: Transform, mixup: float = 0.0) -> TrainingConfig:
    return replace(CONFIG, augmentation=Augmentation(transforms, mixup))


@pytest.mark.parametrize(
    ("config", "field", "wrong"),
    [
        (augmented(mixup=1.5), "mixup", r"is 1\.5; use 0 to 1"),
        (augmented(Resize(0, 8)), "transforms[0].height", r"is 0; use 1 to 4,096"),
        (augmented(RandomFlip(), Cutout(9999)), "transforms[1].size", r"is 9999; use 1 to"),
        (augmented(Normalize((), ())), "transforms[0].mean", r"is \[\]; use a finite number for each channel"),
        (augmented(Normalize((0.5,), (0.0,))), "transforms[0].std", r"use a number above 0 for each of 1 channels"),
        (augmented(RandomResizedCrop(8, 8, scale=(0.5, 2.0))), "transforms[0].scale", r"above 0, at most 1"),
        (augmented(ColorJitter(2.0)), "transforms[0].brightness", r"is 2\.0; use 0 to 1"),
        (augmented(RandomFlip(-1.0)), "transforms[0].probability", r"use 0 to 1"),
        (augmented(*[RandomFlip()] * 33), "transforms", r"are 33; use at most 32"),
        (augmented(RandomCrop(99, 8)), "transforms[0]", r"height 99 is more than the image's 8"),
        (augmented(Normalize((0.5, 0.5), (1.0, 1.0))), "transforms[0].mean", r"has 2 values; images have 1 channels"),
    ],
)
def test_what_is_wrong_with_what_is_done_to_images(
    catalogs: Catalogs, config: TrainingConfig, field: str, wrong: str
) -> None:
    with pytest.raises(InvalidRequestError, match=wrong) as error:
        catalogs.submit(config=config)
    assert refusal(error).field == f"job.config.augmentation.{field}"


def test_images_are_tried_as_they_are_trained_on(catalogs: Catalogs) -> None:
    assert catalogs.submit(config=augmented(RandomCrop(8, 8, padding=2), RandomFlip(), mixup=0.2))
    with pytest.raises(InvalidRequestError, match=r"inputs of shape \[1, 5, 5\].*do not fit"):
        catalogs.submit(config=augmented(Resize(5, 5)))


def test_rows_of_a_table_are_no_images(catalogs: Catalogs) -> None:
    dataset = catalogs.create_dataset("rows", (3,), label=1)
    with pytest.raises(InvalidRequestError, match=r"is for float32 or uint8 images .* float32 of shape \[3\]"):
        catalogs.submit(dataset=dataset, config=augmented(RandomFlip()))


# --- losses and metrics ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "metrics", "field", "description"),
    [
        ((Loss("hinge"),), (), "losses[0].name", "is 'hinge', which is no loss; there are cross_entropy, nll, "),
        ((Loss(label_smoothing=2),), (), "losses[0].label_smoothing", "is 2; use 0 to 1"),
        ((Loss("mse", label_smoothing=0.1),), (), "losses[0].label_smoothing", 'which the loss "mse" does not have'),
        ((Loss("huber", delta=math.nan),), (), "losses[0].delta", "is nan; use a number above 0"),
        ((Loss(class_weights=(1, -1)),), (), "losses[0].class_weights", "use 0 or more, and not 0 for all"),
        ((Loss(weight=0),), (), "losses[0].weight", "is 0; use a number above 0"),
        ((), (MetricSpec("auc"),), "metrics[0].name", "is 'auc', which is no metric; there are accuracy, top_k, "),
        ((), (MetricSpec("f1", average="mean"),), "metrics[0].average", "use macro, micro, binary, none"),
        ((), (MetricSpec("f1"), MetricSpec("f1")), "metrics[1]", "is called 'f1' as another one is"),
    ],
)
def test_losses_and_metrics_that_make_no_sense_are_refused(
    losses: tuple[Loss, ...], metrics: tuple[MetricSpec, ...], field: str, description: str
) -> None:
    [violation] = check_config(replace(CONFIG, losses=losses, metrics=metrics))
    assert violation.field == f"job.config.{field}"
    assert description in violation.description


@pytest.mark.parametrize(
    ("config", "field", "description"),
    [
        ({"losses": (Loss("mse"),)}, "losses[0].name", "compares each output with a target"),
        ({"losses": (Loss(output="head"),)}, "losses[0].output", 'is "head", but the outputs of the model are 0'),
        ({"losses": (Loss(target="y"),)}, "losses[0].target", 'has "inputs" and "targets"'),
        ({"losses": (Loss(class_weights=(1, 2)),)}, "losses[0].class_weights", "has 2 numbers, but"),
        ({"metrics": (MetricSpec("top_k", k=11),)}, "metrics[0].k", "is 11, but there are 10 classes"),
        ({"metrics": (MetricSpec("mae"),)}, "metrics[0].name", "needs a target for each number of the output"),
        ({"metrics": (MetricSpec("f1", average="binary"),)}, "metrics[0].average", "is binary, but there are 10"),
    ],
)
def test_losses_and_metrics_that_do_not_fit_are_refused(
    catalogs: Catalogs, config: dict[str, Any], field: str, description: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        catalogs.submit(config=replace(CONFIG, **config))
    assert refusal(caught).field == f"job.config.{field}"
    assert description in refusal(caught).description


def test_numbers_are_trained_on_with_a_loss_of_numbers(catalogs: Catalogs) -> None:
    inputs = np.zeros((10, 1, 8, 8), np.float32)
    name = catalogs.create("numbers", inputs, np.zeros((10, 10), np.float32))
    taken = replace(CONFIG, losses=(Loss("mse"), Loss("l1")), metrics=(MetricSpec("r2"),))
    assert catalogs.submit(dataset=name, config=taken)[0] is JobState.QUEUED
    other = catalogs.create("column", inputs, np.zeros(10, np.float32))
    with pytest.raises(InvalidRequestError, match="goes with int64 class labels, but the targets of") as caught:
        catalogs.submit(dataset=other)
    assert refusal(caught).field == "job.dataset"
