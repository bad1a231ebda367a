"""Models, versions and datasets in the store: whose they are, what changes them, what keeps them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chainrule.server.annotations import AnnotationChange
from chainrule.server.errors import (
    AlreadyExistsError,
    IllegalStateError,
    InvalidRequestError,
    NotFoundError,
    StaleEtagError,
)
from chainrule.server.records import Dataset, JobState, Model, ModelVersion
from chainrule.server.store import PageRequest, Request, Store
from tests.server.store.catalogued import add_job, add_version, dataset, end_job, model

ENDED = [state for state in JobState if state.terminal]
NOT_ENDED = [state for state in JobState if not state.terminal]


class Clock:
    """Time that goes on a second at a time."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        self.now_s += 1
        return self.now_s


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url, clock=Clock())
    yield store
    store.close()


class Kind:
    """Models or datasets, where the same holds of both."""

    def __init__(self, kind: str, make: Callable[..., Any], other: dict[str, Any]) -> None:
        self.kind, self.name, self.make, self.other = kind, f"{kind}s/x", make, other

    def create(self, store: Store, tenant: str = "default", request: Request | None = None, **changes: Any) -> Any:
        validate_only = changes.pop("validate_only", False)
        record = self.make(**{"name": self.name, **changes})
        make = getattr(store, f"create_{self.kind}")
        return make(record, tenant=tenant, request=request or Request(), validate_only=validate_only)

    def get(self, store: Store, tenant: str = "default") -> Model | Dataset:
        found: Model | Dataset = getattr(store, f"get_{self.kind}")(self.name, tenant=tenant)
        return found

    def of_request(self, store: Store, request: Request, tenant: str = "default") -> Model | Dataset | None:
        found: Model | Dataset | None = getattr(store, f"{self.kind}_of_request")(request, tenant=tenant)
        return found

    def list(self, store: Store, tenant: str = "default", **asked: Any) -> list[str]:
        found, _ = getattr(store, f"list_{self.kind}s")(PageRequest(**asked), tenant=tenant)
        return [each.name for each in found]

    def update(self, store: Store, change: AnnotationChange, tenant: str = "default", etag: str = "") -> Any:
        return getattr(store, f"update_{self.kind}")(self.name, change, tenant=tenant, etag=etag)

    def delete(self, store: Store, tenant: str = "default", etag: str = "") -> None:
        getattr(store, f"delete_{self.kind}")(self.name, tenant=tenant, etag=etag)


KINDS = [Kind("model", model, {"weights_digest": "f" * 64}), Kind("dataset", dataset, {"digest": "f" * 64})]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.kind)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


# --- what holds of both ----------------------------------------------------------------------------------------


def test_it_is_stored_with_its_annotations(store: Store, kind: Kind) -> None:
    made = kind.create(store, labels={"team": "vision"}, description="the first")
    assert (made.labels, made.description, made.revision) == ({"team": "vision"}, "the first", 1)
    assert kind.get(store) == made


def test_the_same_again_is_the_one_that_is_there_whatever_is_noted_on_it(store: Store, kind: Kind) -> None:
    made = kind.create(store, labels={"team": "vision"})
    assert kind.create(store, labels={"team": "text"}) == made
    with pytest.raises(AlreadyExistsError, match=f'there is already a {kind.kind} "{kind.name}"'):
        kind.create(store, **kind.other)


def test_each_tenant_has_its_own(store: Store, kind: Kind) -> None:
    mine, theirs = kind.create(store, tenant="a"), kind.create(store, tenant="b", **kind.other)
    assert (kind.get(store, "a"), kind.get(store, "b")) == (mine, theirs)
    kind.update(store, AnnotationChange(description="mine"), tenant="a")
    assert kind.get(store, "b") == theirs
    kind.delete(store, tenant="a")
    assert (kind.list(store, "a"), kind.list(store, "b")) == ([], [kind.name])


def test_what_another_tenant_has_is_not_found_in_the_words_for_what_nobody_has(store: Store, kind: Kind) -> None:
    said = set()
    for _ in range(2):
        for call in (kind.get, kind.delete, lambda store, tenant: kind.update(store, AnnotationChange(), tenant)):
            with pytest.raises(NotFoundError) as caught:
                call(store, "b")
            said.add((str(caught.value), str(caught.value.metadata)))
        kind.create(store, tenant="a")
    assert len(said) == 1
    assert kind.list(store, "b") == []


def test_only_a_change_makes_another_revision(store: Store, kind: Kind) -> None:
    first = kind.create(store, labels={"a": "1"}, description="d")
    assert kind.update(store, AnnotationChange()) == first
    assert kind.update(store, AnnotationChange({"a": "1"}, "d")) == first
    second = kind.update(store, AnnotationChange(labels={"b": "2"}), etag=first.etag)
    assert (second.labels, second.description, second.revision) == ({"b": "2"}, "d", 2)
    third = kind.update(store, AnnotationChange(labels={}, description=""), etag=second.etag)
    assert (third.labels, third.description, third.revision) == ({}, "", 3)
    assert len({first.etag, second.etag, third.etag}) == 3
    assert kind.get(store) == third


def test_a_change_meant_for_another_revision_is_refused(store: Store, kind: Kind) -> None:
    first = kind.create(store)
    second = kind.update(store, AnnotationChange(description="new"))
    with pytest.raises(StaleEtagError, match=f"its etag is \"{second.etag}\", no longer '{first.etag}'; read it again"):
        kind.update(store, AnnotationChange(description="newer"), etag=first.etag)
    with pytest.raises(StaleEtagError):
        kind.delete(store, etag=first.etag)
    assert kind.get(store) == second
    kind.delete(store, etag=second.etag)
    assert kind.list(store) == []


def test_the_etag_of_one_that_was_removed_is_not_that_of_the_next_of_its_name(store: Store, kind: Kind) -> None:
    first = kind.create(store)
    kind.delete(store)
    assert kind.create(store).etag != first.etag
    with pytest.raises(StaleEtagError):
        kind.delete(store, etag=first.etag)


def test_checking_only_stores_nothing(store: Store, kind: Kind) -> None:
    request = Request("r", "p")
    would_be = kind.create(store, request=request, validate_only=True, labels={"a": "1"})
    assert (would_be.name, would_be.labels) == (kind.name, {"a": "1"})
    assert kind.list(store) == []
    assert kind.of_request(store, request) is None
    made = kind.create(store, request=request)
    assert kind.create(store, validate_only=True, labels={"a": "1"}) == made
    assert kind.create(store, validate_only=True, request=request, name=f"{kind.kind}s/other") == made
    with pytest.raises(AlreadyExistsError):
        kind.create(store, validate_only=True, **kind.other)


def test_lists_are_filtered_and_ordered(store: Store, kind: Kind) -> None:
    for name, team in (("b", "vision"), ("a", "text"), ("c", "vision")):
        kind.create(store, name=f"{kind.kind}s/{name}", labels={"team": team})
    shown = [name.partition("/")[2] for name in kind.list(store, filter="labels.team = vision", order_by="name")]
    assert shown == ["b", "c"]
    assert [name[-1] for name in kind.list(store)] == ["c", "a", "b"]
    assert kind.list(store, filter="create_time < 2000-01-01T00:00:00Z", order_by="create_time")[0][-1] == "b"


# --- requests --------------------------------------------------------------------------------------------------


def test_a_repeated_request_is_answered_with_what_it_has_made(store: Store, kind: Kind) -> None:
    request = Request("r", "p")
    made = kind.create(store, request=request)
    changed = kind.update(store, AnnotationChange(description="since then"))
    assert kind.create(store, request=request) == changed != made
    assert kind.of_request(store, request) == changed
    assert kind.of_request(store, Request("other", "p")) is None
    assert kind.of_request(store, request, tenant="b") is None


def test_a_request_id_with_another_payload_is_refused(store: Store, kind: Kind) -> None:
    kind.create(store, request=Request("r", "p"))
    for attempt in (kind.create, kind.of_request):
        with pytest.raises(AlreadyExistsError, match=f'request_id "r" has already made "{kind.name}" from another'):
            attempt(store, request=Request("r", "q"))


def test_a_request_id_is_of_one_collection(store: Store) -> None:
    KINDS[0].create(store, request=Request("r", "p"))
    with pytest.raises(AlreadyExistsError, match='request_id "r" has already made "models/x" from another payload'):
        KINDS[1].create(store, request=Request("r", "q"))


def test_what_a_request_has_made_and_was_removed_is_not_made_again(store: Store, kind: Kind) -> None:
    kind.create(store, request=Request("r", "p"))
    kind.delete(store)
    for _ in range(2):
        for attempt in (kind.create, kind.of_request):
            with pytest.raises(NotFoundError, match=f'has made "{kind.name}", which was removed since; use a new'):
                attempt(store, request=Request("r", "p"))
        kind.create(store, **kind.other)  # another one of that name is not what the request has made


def test_a_request_that_found_it_there_is_answered_with_it_again(store: Store, kind: Kind) -> None:
    made = kind.create(store)
    for _ in range(2):
        assert kind.create(store, request=Request("r", "p")) == made


def test_one_request_from_many_threads_has_one_effect(store: Store, kind: Kind) -> None:
    made = []

    def create() -> None:
        made.append(kind.create(store, request=Request("r", "p")))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [kind.get(store)] * 8


# --- what is in use --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", NOT_ENDED)
def test_what_a_job_uses_that_has_not_ended_is_not_removed(store: Store, state: JobState) -> None:
    store.create_model(model(), tenant="default")
    store.create_dataset(dataset(), tenant="default")
    store.create_dataset(dataset("datasets/v"), tenant="default")
    add_job(store, validation="datasets/v", state=state)
    refused = rf'is in use by "jobs/j" \({state.value}\); let them come to their end, or cancel them'
    with pytest.raises(IllegalStateError, match=f'"models/m" {refused}'):
        store.delete_model("models/m", tenant="default")
    for name in ("datasets/d", "datasets/v"):
        with pytest.raises(IllegalStateError, match=f'"{name}" {refused}'):
            store.delete_dataset(name, tenant="default")
    assert store.get_version("models/m", 1, tenant="default").weights_digest == "a" * 64


@pytest.mark.parametrize("state", ENDED)
def test_what_only_jobs_use_that_have_ended_can_be_removed(store: Store, state: JobState) -> None:
    store.create_model(model(), tenant="default")
    store.create_dataset(dataset(), tenant="default")
    store.create_dataset(dataset("datasets/v"), tenant="default")
    add_job(store, validation="datasets/v", state=state)
    store.delete_model("models/m", tenant="default")
    for name in ("datasets/d", "datasets/v"):
        store.delete_dataset(name, tenant="default")
    assert store.get_job("jobs/j").model == "models/m"


def test_jobs_of_others_and_of_other_things_keep_nothing(store: Store) -> None:
    store.create_model(model(), tenant="default")
    store.create_dataset(dataset(), tenant="default")
    add_job(store, tenant="b")
    add_job(store, "jobs/k", model="models/m2", dataset="datasets/d2", validation="datasets/d3")
    store.delete_model("models/m", tenant="default")
    store.delete_dataset("datasets/d", tenant="default")


def test_of_many_jobs_the_first_are_named(store: Store) -> None:
    store.create_model(model(), tenant="default")
    for number in range(5):
        add_job(store, f"jobs/j{number}")
    with pytest.raises(IllegalStateError, match=r'by "jobs/j0" \(QUEUED\), .*"jobs/j2" \(QUEUED\), and 2 more; let'):
        store.delete_model("models/m", tenant="default")


# --- versions --------------------------------------------------------------------------------------------------


def test_a_model_begins_with_its_first_version(store: Store) -> None:
    made = store.create_model(model(), tenant="default")
    first = ModelVersion("models/m", 1, "a" * 64, made.create_time)
    assert store.get_version("models/m", 1, tenant="default") == first
    assert store.get_version("models/m", None, tenant="default") == first
    assert made.latest_version == 1


def test_versions_are_listed_newest_first_with_what_they_come_from(store: Store) -> None:
    store.create_model(model(), tenant="default")
    for number in (2, 3):
        add_version(store, number)
    first, token = store.list_versions("models/m", PageRequest(2), tenant="default")
    rest, end = store.list_versions("models/m", PageRequest(2, token), tenant="default")
    assert ([version.number for version in (*first, *rest)], end) == ([3, 2, 1], "")
    newest = first[0]
    assert (newest.job, newest.parent, newest.dataset, newest.dataset_digest, newest.step) == (
        "jobs/j3", 2, "datasets/d", "b" * 64, 30
    )  # fmt: skip
    assert store.get_version("models/m", None, tenant="default") == newest
    assert store.get_model("models/m", tenant="default").latest_version == 3
    assert store.list_models(PageRequest(), tenant="default")[0][0].latest_version == 3


def test_a_version_that_is_removed_leaves_its_number_and_the_model_changed(store: Store) -> None:
    before = store.create_model(model(), tenant="default")
    add_version(store, 2)
    store.delete_version("models/m", 2, tenant="default")
    after = store.get_model("models/m", tenant="default")
    assert (after.latest_version, after.etag != before.etag) == (1, True)
    assert store.list_models(PageRequest(), tenant="default") == ([after], "")
    assert store.get_version("models/m", None, tenant="default").number == 1
    with pytest.raises(NotFoundError, match='there is no model version "models/m/versions/2"; list what there is'):
        store.get_version("models/m", 2, tenant="default")
    assert store.unreferenced([f"{2:064d}", "a" * 64]) == [f"{2:064d}"]


def test_the_first_version_stays(store: Store) -> None:
    store.create_model(model(), tenant="default")
    add_version(store, 2)
    with pytest.raises(IllegalStateError, match='"models/m/versions/1" is what the model was created with, and stays'):
        store.delete_version("models/m", 1, tenant="default")


def test_a_version_that_a_job_begins_with_stays_until_it_has_ended(store: Store) -> None:
    store.create_model(model(), tenant="default")
    for number in (2, 3):
        add_version(store, number)
    add_job(store, version=2)
    with pytest.raises(IllegalStateError, match=r'"models/m/versions/2" is in use by "jobs/j" \(QUEUED\)'):
        store.delete_version("models/m", 2, tenant="default")
    store.delete_version("models/m", 3, tenant="default")
    end_job(store)
    store.delete_version("models/m", 2, tenant="default")


def test_versions_of_another_tenant_are_not_found(store: Store) -> None:
    for tenant in ("a", "b"):
        store.create_model(model(), tenant=tenant)
    add_version(store, 2, tenant="a")
    assert store.get_version("models/m", None, tenant="b").number == 1
    for call in (store.get_version, store.delete_version):
        with pytest.raises(NotFoundError, match='"models/m/versions/2"'):
            call("models/m", 2, tenant="b")
    store.delete_model("models/m", tenant="b")
    with pytest.raises(NotFoundError, match='there is no model "models/m"'):
        store.list_versions("models/m", PageRequest(), tenant="b")
    assert store.get_version("models/m", 2, tenant="a").number == 2


def test_a_model_goes_with_all_its_versions(store: Store) -> None:
    store.create_model(model(), tenant="default")
    add_version(store, 2)
    store.delete_model("models/m", tenant="default")
    assert store.unreferenced([f"{2:064d}", "a" * 64]) == [f"{2:064d}", "a" * 64]
    again = store.create_model(model(weights_digest="c" * 64), tenant="default")
    assert store.list_versions("models/m", PageRequest(), tenant="default")[0] == [
        ModelVersion("models/m", 1, "c" * 64, again.create_time)
    ]


def test_a_retry_is_answered_also_if_the_clock_went_back_since_the_resource_was_made(store: Store) -> None:
    for kind in KINDS:
        made = kind.create(store)
        clock = store._clock
        assert isinstance(clock, Clock)
        clock.now_s -= 3600
        request = Request("r" + kind.kind, "digest")
        assert kind.create(store, request=request) == made
        assert kind.create(store, request=request) == made == kind.of_request(store, request)


def test_a_page_token_is_good_for_its_tenant_only(store: Store) -> None:
    for kind in KINDS:
        for name in ("a", "b"):
            kind.create(store, name=f"{kind.kind}s/{name}")
        listed = getattr(store, f"list_{kind.kind}s")
        _, token = listed(PageRequest(1), tenant="default")
        assert len(listed(PageRequest(1, token), tenant="default")[0]) == 1
        with pytest.raises(InvalidRequestError, match="page_token"):
            listed(PageRequest(1, token), tenant="other")


def test_the_revision_changes_with_what_is_written_and_only_then(store: Store) -> None:
    before = store.revision
    store.list_models(PageRequest(), tenant="default")
    assert store.revision == before
    with pytest.raises(NotFoundError):
        store.delete_model("models/none", tenant="default")
    assert store.revision != before  # it might have been
