"""Bad input over the wire: the right code, a message that names thing, value and remedy, and a server that goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from chainrule.client import (
    AlreadyExists,
    Client,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    JobFailedError,
    NotFound,
)
from chainrule.engine import io
from chainrule.v1 import (
    blob_pb2,
    blob_pb2_grpc,
    dataset_pb2,
    dataset_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from tests.integration.conftest import Images, ServerProcess, network, submit


@pytest.fixture(autouse=True)
def _server_stays_healthy(client: Client) -> Iterator[None]:
    yield
    assert client.server_info().version


@pytest.fixture
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def violated(error: pytest.ExceptionInfo[InvalidArgument]) -> dict[str, str]:
    return {violation.path: violation.description for violation in error.value.violations}


@pytest.mark.parametrize("method", ["/chainrule.v1.JobService/GetJob", "/chainrule.v1.ModelService/CreateModel"])
def test_bytes_that_are_no_message(channel: grpc.Channel, method: str) -> None:
    call: Any = channel.unary_unary(method)
    with pytest.raises(grpc.RpcError) as error:
        call(b"\xff\xff", timeout=30)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_unknown_model_family(client: Client) -> None:
    with pytest.raises(InvalidArgument) as error:
        client.models.create_from_family("unknown-family", "resnet9000")
    description = violated(error)["model.builtin.family"]
    assert "resnet9000" in description
    assert "small_cnn" in description  # the remedy: what there is


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"num_classes": -1}, "num_classes"),
        ({"num_classes": "ten"}, "num_classes"),
        ({"num_classes": 2.5}, "num_classes"),
        ({"clases": 10}, "clases"),
        ({"num_classes": 75_000_000}, "num_classes"),
        ({"image_size": 1_000_000_000}, "image_size"),
    ],
)
def test_bad_configuration_value(client: Client, config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        client.models.create_from_family("bad-config", "small_cnn", config)
    description = violated(error)[f"model.builtin.config.{field}"]
    assert str(config[field]).removesuffix("000000") in description


def test_a_model_that_is_too_large(client: Client) -> None:
    with pytest.raises(InvalidArgument) as error:
        client.models.create_from_family("too-large", "mlp", {"hidden": [1_000_000] * 100})
    assert "makes a model of 99,000" in violated(error)["model.builtin.config"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_setting_that_is_no_finite_number(channel: grpc.Channel, number: float) -> None:
    model = model_pb2.Model(builtin=model_pb2.Builtin(family="mlp"))
    model.builtin.config.fields["num_classes"].number_value = number
    with pytest.raises(grpc.RpcError) as error:
        model_pb2_grpc.ModelServiceStub(channel).CreateModel(model_pb2.CreateModelRequest(model_id="m", model=model))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details() == f"model.builtin.config.num_classes: is {number}; use a finite number"


@pytest.mark.parametrize("token", ["9" * 20, "9" * 5000, "x"])
def test_a_page_token_that_is_none(channel: grpc.Channel, token: str) -> None:
    for call in (
        lambda: model_pb2_grpc.ModelServiceStub(channel).ListModels(model_pb2.ListModelsRequest(page_token=token)),
        lambda: dataset_pb2_grpc.DatasetServiceStub(channel).ListDatasets(
            dataset_pb2.ListDatasetsRequest(page_token=token)
        ),
        lambda: job_pb2_grpc.JobServiceStub(channel).ListJobs(job_pb2.ListJobsRequest(page_token=token)),
    ):
        with pytest.raises(grpc.RpcError) as error:
            call()
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (error.value.details() or "").startswith("page_token: ")


@pytest.mark.parametrize("letter", ["x", "\N{BOMB}"])
def test_a_name_of_any_length_is_answered(client: Client, letter: str) -> None:
    with pytest.raises(InvalidArgument, match="is not an id"):
        client.models.create_from_family(letter * 20_000, "mlp")
    with pytest.raises(InvalidArgument, match="known families"):
        client.models.create_from_family("m", letter * 20_000)
    with pytest.raises(InvalidArgument, match="there is no such setting"):
        client.models.create_from_family("m", "mlp", {letter * 20_000: 1})
    with pytest.raises(NotFound, match="list what there is"):
        client.jobs.get(f"jobs/{letter * 20_000}")


def test_weights_with_many_names(client: Client) -> None:
    weights = {f"layers.{i}.attention.projection.weight": np.zeros(1, np.float32) for i in range(500)}
    with pytest.raises(InvalidArgument, match="does not hold weights of this architecture"):
        client.models.create_from_family("many-names", "small_cnn", weights=weights)


def test_weights_of_another_architecture(client: Client) -> None:
    weights = {name: value.data for name, value in network().state_dict().items()}
    with pytest.raises(InvalidArgument, match=r"fc\.weight"):
        client.models.create_from_family("bad-weights", "small_cnn", {"width": 4, "num_classes": 3}, weights=weights)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x, np.where(y == y[0], -3, y)), "is -3; class labels count from 0"),
        (lambda x, y: (np.where(x == x[7, 0, 0, 0], np.nan, x), y), "the first is inputs[7]"),
        (lambda x, y: (np.where(x == x[7, 0, 0, 0], np.inf, x), y), "NaN or infinite values in 1 of 200 examples"),
        (lambda x, y: (x, y[:-1]), "200 inputs and 199 targets"),
        (lambda x, y: (x[:0], y[:0]), "no examples"),
        (lambda x, y: (x[..., :0], y), "without a single number"),
        (lambda x, y: (x, y + (2**63 - 10)), "class labels are 0 to 2147483646"),
    ],
)
def test_bad_data(client: Client, images: Images, spoil: Callable[[Any, Any], tuple[Any, Any]], message: str) -> None:
    inputs, targets = spoil(*images)
    with pytest.raises(InvalidArgument) as error:
        client.datasets.create("bad-data", inputs=inputs, targets=targets)
    assert message in violated(error)["dataset.digest"]


def test_weights_given_as_a_dataset(channel: grpc.Channel, client: Client) -> None:
    weights = io.save({f"layers.{i}.attention.projection.weight": np.zeros(1, np.float32) for i in range(500)})
    dataset = dataset_pb2.Dataset(digest=client.blobs.upload(weights))
    request = dataset_pb2.CreateDatasetRequest(dataset_id="weights", dataset=dataset)
    with pytest.raises(grpc.RpcError) as error:
        dataset_pb2_grpc.DatasetServiceStub(channel).CreateDataset(request)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert 'a dataset has "inputs" and "targets"' in (error.value.details() or "")


def test_label_that_the_model_does_not_know(client: Client, images: Images) -> None:
    inputs, targets = images
    dataset = client.datasets.create("twelve", inputs=inputs, targets=np.where(targets == 9, 12, targets))
    model = client.models.create("ten", network())
    with pytest.raises(InvalidArgument) as error:
        client.jobs.create(model=model, dataset=dataset)
    description = violated(error)["job.dataset"]
    assert "label 12" in description
    assert "10 classes" in description
    assert "num_classes 13" in description


def test_inputs_of_a_shape_that_the_model_does_not_take(client: Client, images: Images) -> None:
    inputs, targets = images
    dataset = client.datasets.create("flat", inputs=inputs.reshape(200, 64), targets=targets)
    with pytest.raises(InvalidArgument) as error:
        client.jobs.create(model=client.models.create("test", network()), dataset=dataset)
    assert '[64] of "datasets/flat" do not fit "models/test"' in violated(error)["job.dataset"]


def test_unknown_model_dataset_or_job(client: Client, images: Images) -> None:
    with pytest.raises(NotFound, match='there is no job "jobs/nope"; list what there is with: chainrule jobs ls'):
        client.jobs.get("jobs/nope")
    with pytest.raises(NotFound, match='there is no model "models/nope"'):
        client.jobs.create(model="models/nope", dataset="datasets/nope")
    client.models.create("test", network())
    with pytest.raises(NotFound, match='there is no dataset "datasets/nope"'):
        client.jobs.create(model="models/test", dataset="datasets/nope")


def test_all_wrong_fields_of_a_configuration_are_named(client: Client, images: Images) -> None:
    with pytest.raises(InvalidArgument) as error:
        submit(client, images, epochs=-1, batch_size=4, shards=8, workers=9, optimizer={"lr": -0.5})
    found = violated(error)
    assert set(found) == {f"job.config.{field}" for field in ("epochs", "shards", "max_workers", "sgd.lr")}
    assert "8, more than batch_size 4" in found["job.config.shards"]
    assert "is -0.5; use a number above 0" in found["job.config.sgd.lr"]


@pytest.mark.parametrize("field", ["epochs", "batch_size", "shards", "min_workers"])
def test_zero_is_refused_and_does_not_mean_the_default(client: Client, images: Images, field: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        submit(client, images, **{field: 0})
    assert "is 0; use" in violated(error)[f"job.config.{field}"]


def test_more_workers_than_the_cluster_has(client: Client, images: Images) -> None:
    with pytest.raises(FailedPrecondition, match=r"min_workers is 40, but the cluster has 4 CPUs"):
        submit(client, images, shards=40, min_workers=40, max_workers=40)


def test_corrupted_upload(channel: grpc.Channel) -> None:
    content = b"x" * 5000
    digest = hashlib.sha256(content).hexdigest()
    stub = blob_pb2_grpc.BlobServiceStub(channel)
    messages = [
        blob_pb2.WriteBlobRequest(blob=blob_pb2.Blob(digest=digest, size_bytes=5000)),
        blob_pb2.WriteBlobRequest(chunk=b"x" * 4999 + b"y"),
    ]
    with pytest.raises(grpc.RpcError) as error:
        stub.WriteBlob(iter(messages))
    assert error.value.code() is grpc.StatusCode.DATA_LOSS
    assert f'upload of blob "{digest}" arrived with SHA-256' in (error.value.details() or "")
    missing = stub.FindMissingBlobs(blob_pb2.FindMissingBlobsRequest(digests=[digest])).missing_digests
    assert list(missing) == [digest]


def test_upload_cut_in_the_middle(channel: grpc.Channel) -> None:
    digest = hashlib.sha256(b"x" * 5000).hexdigest()
    stub = blob_pb2_grpc.BlobServiceStub(channel)
    messages = [
        blob_pb2.WriteBlobRequest(blob=blob_pb2.Blob(digest=digest, size_bytes=5000)),
        blob_pb2.WriteBlobRequest(chunk=b"x" * 1000),
    ]
    with pytest.raises(grpc.RpcError) as error:
        stub.WriteBlob(iter(messages))
    assert error.value.code() is grpc.StatusCode.ABORTED
    assert "ended after 1000 of 5000 bytes; go on from there" in (error.value.details() or "")


def test_upload_whose_client_goes_away(client: Client, channel: grpc.Channel) -> None:
    digest = hashlib.sha256(b"z" * 5000).hexdigest()

    def broken() -> Iterator[blob_pb2.WriteBlobRequest]:
        yield blob_pb2.WriteBlobRequest(blob=blob_pb2.Blob(digest=digest, size_bytes=5000))
        yield blob_pb2.WriteBlobRequest(chunk=b"z" * 1000)
        raise ConnectionResetError

    with pytest.raises(grpc.RpcError):
        blob_pb2_grpc.BlobServiceStub(channel).WriteBlob(broken())
    stub = blob_pb2_grpc.BlobServiceStub(channel)
    assert stub.FindMissingBlobs(blob_pb2.FindMissingBlobsRequest(digests=[digest])).missing_digests == [digest]
    client.blobs.upload(b"z" * 5000)
    assert client.blobs.download(digest) == b"z" * 5000


def test_a_stored_blob_that_was_cut_off_can_be_uploaded_again(client: Client, server: ServerProcess) -> None:
    content = b"v" * 5000
    digest = client.blobs.upload(content)
    path = server.data_dir / "blobs" / digest[:2] / digest
    for kept_bytes in (0, 100):
        path.write_bytes(content[:kept_bytes])
        if kept_bytes:
            with pytest.raises(DataLoss, match="counts as missing: upload it again"):
                client.blobs.download(digest)
        client.blobs.upload(content)
        assert client.blobs.download(digest) == content


def test_unknown_blob_and_what_is_no_digest(channel: grpc.Channel) -> None:
    stub = blob_pb2_grpc.BlobServiceStub(channel)
    for digest, code in (
        ("0" * 64, grpc.StatusCode.NOT_FOUND),
        ("../../../etc/passwd", grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as error:
            list(stub.ReadBlob(blob_pb2.ReadBlobRequest(digest=digest)))
        assert error.value.code() is code
        assert digest in (error.value.details() or "")


def test_second_submit_with_the_same_request_id(client: Client, images: Images) -> None:
    first = submit(client, images, request_id="twice", epochs=1)
    assert submit(client, images, request_id="twice", epochs=1).name == first.name
    with pytest.raises(AlreadyExists, match=f'request_id "twice" has already made "{first.name}"'):
        submit(client, images, request_id="twice", epochs=2)
    first.wait(timeout_s=60)


def test_cancel_of_a_finished_job(client: Client, images: Images) -> None:
    job = submit(client, images)
    job.wait(timeout_s=60)
    with pytest.raises(FailedPrecondition, match=f'job "{job.name}" is SUCCEEDED; only a job that has not ended'):
        job.cancel()


def test_a_job_that_diverges_fails_and_says_where(client: Client, images: Images) -> None:
    job = submit(client, images, epochs=20, optimizer={"lr": 1e30})
    with pytest.raises(JobFailedError, match=r"NON_FINITE.*at step \d+ \(epoch \d+\).*; lower the learning rate"):
        job.wait(timeout_s=60)


def test_a_model_without_architecture(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as error:
        model_pb2_grpc.ModelServiceStub(channel).CreateModel(model_pb2.CreateModelRequest(model_id="m"))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details() == "model.architecture: is not set; set model.builtin, model.graph or model.code"


def test_streams_refuse_an_unknown_job_too(channel: grpc.Channel) -> None:
    stub = job_pb2_grpc.JobServiceStub(channel)
    for call in (
        stub.WatchJob(job_pb2.WatchJobRequest(name="jobs/nope")),
        stub.StreamMetrics(job_pb2.StreamMetricsRequest(name="jobs/nope")),
    ):
        with pytest.raises(grpc.RpcError) as error:
            next(call)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
