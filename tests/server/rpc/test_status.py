"""Errors on the wire."""

from __future__ import annotations

import logging
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from chainrule.engine import ChainruleError
from chainrule.server import errors
from chainrule.server.rpc.status import CODES, code_of, status_of

KINDS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.RetryInfo,
    error_details_pb2.ResourceInfo,
)


def details(error: Exception) -> dict[str, object]:
    found = {}
    for detail in status_of(error, "/m").details:
        for kind in KINDS:
            if detail.Is(kind.DESCRIPTOR):
                message = kind()
                detail.Unpack(message)
                found[kind.DESCRIPTOR.name] = message
    return found


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequestError.of("f", "d"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.NotFoundError("m"), grpc.StatusCode.NOT_FOUND),
        (errors.AlreadyExistsError("m"), grpc.StatusCode.ALREADY_EXISTS),
        (errors.IllegalStateError("m"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.StaleEtagError("m"), grpc.StatusCode.ABORTED),
        (errors.QueueFullError("m"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.DamagedBlobError("m"), grpc.StatusCode.DATA_LOSS),
        (errors.IncompleteUploadError("m"), grpc.StatusCode.ABORTED),
        (errors.ClusterUnreachableError("m"), grpc.StatusCode.UNAVAILABLE),
        (errors.StoreUnavailableError("m"), grpc.StatusCode.UNAVAILABLE),
        (errors.OutOfMemoryError("m"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (ChainruleError("m"), grpc.StatusCode.INTERNAL),
        (ZeroDivisionError("m"), grpc.StatusCode.INTERNAL),
    ],
)
def test_each_error_has_its_code(error: Exception, code: grpc.StatusCode) -> None:
    assert code_of(error) is code


def test_a_subclass_has_the_code_of_its_base() -> None:
    class Special(errors.NotFoundError):
        pass

    assert code_of(Special("m")) is grpc.StatusCode.NOT_FOUND


def test_every_service_error_but_those_that_no_call_meets_is_in_the_table() -> None:
    assert set(errors.ServiceError.__subclasses__()) - set(CODES) <= {errors.StartupError, errors.BackupError}


def test_details_carry_reason_metadata_and_violations() -> None:
    info = details(errors.NotFoundError("m", name="jobs/x"))["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain, dict(info.metadata)) == ("NOT_FOUND", "chainrule", {"name": "jobs/x"})
    two = errors.InvalidRequestError([errors.Violation("a", "is 1"), errors.Violation("b", "is 2")])
    bad = details(two)["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == [("a", "is 1"), ("b", "is 2")]
    assert status_of(two, "/m").message == "a: is 1; b: is 2"


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ({"name": "models/m"}, "Model"),
        ({"name": "models/m/versions/3"}, "ModelVersion"),
        ({"name": "datasets/d"}, "Dataset"),
        ({"name": "jobs/j", "state": "QUEUED"}, "Job"),
        ({"name": "tokens/t"}, "Token"),
        ({"digest": "a" * 64, "actual": "b"}, "Blob"),
    ],
)
@pytest.mark.parametrize(
    "kind_of_error",
    [errors.NotFoundError, errors.AlreadyExistsError, errors.IllegalStateError, errors.StaleEtagError],
)
def test_errors_about_a_resource_name_it(
    kind_of_error: type[errors.ServiceError], metadata: dict[str, str], kind: str
) -> None:
    info = details(kind_of_error("m", **metadata))["ResourceInfo"]
    assert isinstance(info, error_details_pb2.ResourceInfo)
    assert info.resource_type == f"chainrule.v1.{kind}"
    assert info.resource_name == metadata.get("name", metadata.get("digest"))


@pytest.mark.parametrize("metadata", [{}, {"name": ""}, {"name": "things/x"}, {"name": "models/m/versions"}])
def test_errors_about_no_resource_name_none(metadata: dict[str, str]) -> None:
    assert "ResourceInfo" not in details(errors.IllegalStateError("m", **metadata))


@pytest.mark.parametrize("error", [errors.ClusterUnreachableError("m"), errors.QueueFullError("m")])
def test_what_passes_by_itself_says_when_to_try_again(error: Exception) -> None:
    retry = details(error)["RetryInfo"]
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.seconds > 0


def test_a_defect_tells_the_client_an_id_and_the_log_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        status = status_of(ValueError("secret"), "/chainrule.v1.JobService/GetJob")
    assert "secret" not in status.message
    incident = status.message.partition("incident ")[2][:8]
    assert f"GetJob: incident {incident}" in caplog.text
    assert "secret" in caplog.text


def test_too_little_memory_is_said_to_be_that() -> None:
    status = status_of(MemoryError("Unable to allocate 1 TiB"), "/m")
    assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert "too little memory" in status.message


# --- long texts ------------------------------------------------------------------------------------------------


def test_a_long_text_is_told_without_its_middle() -> None:
    error = errors.InvalidRequestError.of("f", "begins" + "x" * 20_000 + "the remedy")
    bad = details(error)["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    for text in (bad.field_violations[0].description, status_of(error, "/m").message):
        assert "begins" in text
        assert "bytes, cut]" in text
        assert text.endswith("the remedy")
        assert 900 < len(text.encode()) <= 1000


def test_of_many_violations_the_last_says_how_many_more() -> None:
    bad = details(errors.InvalidRequestError([errors.Violation(f"f{i}", "d") for i in range(40)]))["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [v.field for v in bad.field_violations] == [*(f"f{i}" for i in range(15)), "…"]
    assert bad.field_violations[15].description == "and 25 more are wrong"


@pytest.mark.parametrize("count", [1, 2, 16, 1000])
@pytest.mark.parametrize("letter", ["x", "\N{BOMB}"])
def test_any_status_fits_into_the_trailers(count: int, letter: str) -> None:
    error = errors.InvalidRequestError([errors.Violation(letter * 5000, letter * 5000)] * count)
    error.metadata = {"name": "models/" + letter * 5000, "etag": letter * 5000}
    status = rpc_status.to_status(status_of(error, "/m"))
    trailers = sum(len(value) * 4 // 3 for _, value in status.trailing_metadata)
    assert trailers + len(quote(status.details)) < 8000
