"""What makes a job worth queueing, besides the model on the data: names, room, repeated calls, versions, tenants."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from chainrule.server.architecture import Builtin
from chainrule.server.errors import (
    AlreadyExistsError,
    DamagedBlobError,
    IllegalStateError,
    InvalidRequestError,
    NotFoundError,
    QueueFullError,
)
from chainrule.server.jobs.submission import Submission, Submissions
from chainrule.server.records import JobState
from chainrule.server.store import Request, Store
from chainrule.server.training.config import ParameterGroup as Group
from tests.server.jobs.submitting import CONFIG, Catalogs


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


def test_a_call_of_before_the_recipe_is_the_same_call() -> None:
    def digest(**config: Any) -> str:
        asked = Submission("models/m", "datasets/d", replace(CONFIG, **config), request_id="r")
        return asked.request().payload_digest

    before = {**asdict(CONFIG)}
    groups, rates = ("losses", "metrics", "parameter_groups"), ("accumulate", "ema_decay", "precision")
    for name in (*groups, *rates, "augmentation", "inputs"):
        del before[name]
    del before["validation"]["seed"], before["validation"]["metric"]
    assert digest() == Request.of("r", model="models/m", dataset="datasets/d", config=before).payload_digest
    other: list[dict[str, Any]] = [
        {"parameter_groups": (Group(("*",), lr=1.0),)},
        {"accumulate": 2},
        {"ema_decay": 0.9},
    ]
    assert len({digest(), *(digest(**config) for config in other), digest(precision="bfloat16")}) == 5


def test_a_model_whose_weights_are_damaged_is_refused(catalogs: Catalogs) -> None:
    digest = catalogs.models.get("models/m", tenant="default").weights_digest
    path = catalogs.blobs.path(digest)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DamagedBlobError, match="upload it again with WriteBlob"):
        catalogs.submit()
    catalogs.blobs.put(content)
    assert catalogs.submit() == (JobState.QUEUED, True)
