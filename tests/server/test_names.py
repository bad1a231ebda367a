"""Resource names."""

from __future__ import annotations

import pytest

from chainrule.server import names
from chainrule.server.errors import InvalidRequestError, NotFoundError


@pytest.mark.parametrize("resource_id", ["a", "digits", "small-cnn-2", "a" * 63])
def test_an_id_becomes_a_name(resource_id: str) -> None:
    name = names.new_name("models", resource_id, field="model_id")
    assert name == f"models/{resource_id}"
    assert names.existing("models", name) == name


@pytest.mark.parametrize("resource_id", ["", "A", "1a", "-a", "a-", "a_b", "a/b", "a" * 64, "a\n", "ä"])
def test_what_is_no_id_is_refused_in_its_field(resource_id: str) -> None:
    with pytest.raises(InvalidRequestError, match="is not an id; use lower-case letters") as caught:
        names.new_name("models", resource_id, field="model_id")
    assert caught.value.violations[0].field == "model_id"


def test_a_long_id_is_not_repeated_whole() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        names.new_name("models", "x" * 20_000, field="model_id")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["", "digits", "models/digits", "datasets/", "/digits", "x" * 20_000])
def test_a_name_of_another_collection_is_refused_in_its_field(name: str) -> None:
    with pytest.raises(InvalidRequestError, match='one looks like "datasets/ID"') as caught:
        names.existing("datasets", name, field="job.dataset")
    assert caught.value.violations[0].field == "job.dataset"


def test_a_name_that_nothing_can_have_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="there is no 'jobs/No Such'; list what there is with: chainrule jobs ls"):
        names.existing("jobs", "jobs/No Such")


def test_a_version_is_named_by_its_model_and_its_number_or_as_the_latest() -> None:
    assert names.existing_version(names.version("models/m", 3)) == ("models/m", 3)
    assert names.existing_version("models/m/versions/999999999") == ("models/m", 999_999_999)
    assert names.existing_version("models/m/versions/latest") == ("models/m", None)


@pytest.mark.parametrize(
    "number", ["", "0", "01", "-1", "1.0", "x", "Latest", "1/versions/2", "٣", "1000000000", "9" * 5000]
)
def test_a_version_that_there_can_not_be_is_not_found(number: str) -> None:
    with pytest.raises(NotFoundError, match=r"there is no 'models/m/versions/.*'; versions have numbers, from 1"):
        names.existing_version(f"models/m/versions/{number}")


@pytest.mark.parametrize("name", ["", "models/m", "versions/3", "models/m/version/3", "datasets/m/versions/3"])
def test_what_is_no_name_of_a_version_is_refused_in_its_field(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="is no name") as caught:
        names.existing_version(name, field="parent")
    assert caught.value.violations[0].field == "parent"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("models/m", ("models/m", 1)),
        ("models/m/versions/3", ("models/m", 3)),
        ("models/m/versions/latest", ("models/m", None)),
    ],
)
def test_a_job_begins_with_the_first_version_unless_it_names_one(name: str, source: tuple[str, int | None]) -> None:
    assert names.model_source(name, field="job.model") == source


def test_random_ids_are_ids_and_differ() -> None:
    ids = {names.random_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(names.new_name("jobs", each, field="") for each in ids)
