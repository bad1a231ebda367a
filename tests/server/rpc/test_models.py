"""ModelService over a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeAlias

import grpc
import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2

from chainrule.engine import graph, io
from chainrule.server.architecture import CodeArchitecture
from chainrule.server.blobs import BlobStore
from chainrule.server.models import ModelCatalog
from chainrule.server.rpc import convert
from chainrule.server.rpc.models import ModelServicer
from chainrule.server.store import PageRequest, Store
from chainrule.server.tenant_blobs import TenantBlobs
from chainrule.v1 import model_pb2, model_pb2_grpc
from tests import graphs
from tests.server.rpc.tenants import AsTenant, channel_to, detail
from tests.server.store.catalogued import add_job, add_version

Stub: TypeAlias = "model_pb2_grpc.ModelServiceAsyncStub"


@pytest.fixture
def as_tenant() -> AsTenant:
    return AsTenant()


@pytest.fixture
async def stub(store: Store, blobs: BlobStore, as_tenant: AsTenant) -> AsyncIterator[Stub]:
    servicer = ModelServicer(ModelCatalog(store, blobs, TenantBlobs(blobs, store, are_apart=False)))
    async with channel_to(
        lambda server: model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server), as_tenant=as_tenant
    ) as channel:
        yield model_pb2_grpc.ModelServiceStub(channel)


def creation(model_id: str = "m", *, width: float = 4.0, request_id: str = "", **fields: Any) -> Any:
    builtin = model_pb2.Builtin(family="small_cnn", config=convert.dict_to_struct({"width": width}))
    validate_only = fields.pop("validate_only", False)
    model = model_pb2.Model(builtin=builtin, **fields)
    return model_pb2.CreateModelRequest(
        model_id=model_id, model=model, request_id=request_id, validate_only=validate_only
    )


async def test_a_model_is_created_found_listed_changed_and_removed(stub: Stub) -> None:
    made = await stub.CreateModel(creation(labels={"team": "vision"}, description="d"))
    assert (made.name, made.latest_version) == ("models/m", "models/m/versions/1")
    assert (dict(made.labels), made.description) == ({"team": "vision"}, "d")
    assert await stub.GetModel(model_pb2.GetModelRequest(name="models/m")) == made
    listed = await stub.ListModels(model_pb2.ListModelsRequest(filter="labels.team = vision", order_by="name desc"))
    assert list(listed.models) == [made]
    wanted = model_pb2.Model(name="models/m", description="new", etag=made.etag, labels={"a": "1"})
    update = model_pb2.UpdateModelRequest(model=wanted, update_mask=FieldMask(paths=["description"]))
    changed = await stub.UpdateModel(update)
    assert (dict(changed.labels), changed.description, changed.etag != made.etag) == ({"team": "vision"}, "new", True)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.UpdateModel(update)
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert detail(caught, error_details_pb2.ErrorInfo).reason == "ETAG_MISMATCH"
    await stub.DeleteModel(model_pb2.DeleteModelRequest(name="models/m", etag=changed.etag))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.DeleteModel(model_pb2.DeleteModelRequest(name="models/m"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert detail(caught, error_details_pb2.ResourceInfo) == error_details_pb2.ResourceInfo(
        resource_type="chainrule.v1.Model", resource_name="models/m"
    )
    await stub.DeleteModel(model_pb2.DeleteModelRequest(name="models/m", allow_missing=True))


async def test_versions_are_found_by_number_and_as_the_latest(stub: Stub, store: Store) -> None:
    made = await stub.CreateModel(creation())
    add_version(store, 2)
    second = await stub.GetModelVersion(model_pb2.GetModelVersionRequest(name="models/m/versions/latest"))
    assert (second.name, second.parent_version) == ("models/m/versions/2", "models/m/versions/1")
    assert (second.job, second.dataset, second.dataset_digest, second.step) == ("jobs/j2", "datasets/d", "b" * 64, 20)
    first = await stub.GetModelVersion(model_pb2.GetModelVersionRequest(name="models/m/versions/1"))
    assert (first.weights_digest, first.job, first.parent_version) == (made.weights_digest, "", "")
    assert first.create_time == made.create_time
    request = model_pb2.ListModelVersionsRequest(parent="models/m", page_size=1)
    page = await stub.ListModelVersions(request)
    request.page_token = page.next_page_token
    rest = await stub.ListModelVersions(request)
    assert ([*page.model_versions, *rest.model_versions], rest.next_page_token) == ([second, first], "")
    with pytest.raises(grpc.aio.AioRpcError, match="page_token") as caught:
        await stub.ListModelVersions(model_pb2.ListModelVersionsRequest(parent="models/m", page_token="nonsense"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_versions_are_removed_unless_they_are_the_first_or_in_use(stub: Stub, store: Store) -> None:
    await stub.CreateModel(creation())
    for number in (2, 3):
        add_version(store, number)
    add_job(store, version=2)
    for number, name in ((1, "models/m/versions/1"), (2, "models/m/versions/2")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.DeleteModelVersion(model_pb2.DeleteModelVersionRequest(name=f"models/m/versions/{number}"))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert detail(caught, error_details_pb2.ResourceInfo) == error_details_pb2.ResourceInfo(
            resource_type="chainrule.v1.ModelVersion", resource_name=name
        )
    third = model_pb2.DeleteModelVersionRequest(name="models/m/versions/3")
    await stub.DeleteModelVersion(third)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.DeleteModelVersion(third)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    third.allow_missing = True
    await stub.DeleteModelVersion(third)
    with pytest.raises(grpc.aio.AioRpcError, match="is another version once this one is removed") as caught:
        await stub.DeleteModelVersion(model_pb2.DeleteModelVersionRequest(name="models/m/versions/latest"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_repeated_request_id_makes_one_model_and_another_payload_none(stub: Stub) -> None:
    made = await stub.CreateModel(creation(request_id="r"))
    assert await stub.CreateModel(creation(request_id="r")) == made
    for other in (creation("n", request_id="r"), creation(request_id="r", description="x")):
        with pytest.raises(grpc.aio.AioRpcError, match='"r" has already made "models/m" from another') as caught:
            await stub.CreateModel(other)
        assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
        assert detail(caught, error_details_pb2.ResourceInfo).resource_name == "models/m"
    await stub.DeleteModel(model_pb2.DeleteModelRequest(name="models/m"))
    with pytest.raises(grpc.aio.AioRpcError, match="which was removed since") as caught:
        await stub.CreateModel(creation(request_id="r"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError, match="request_id: it has 129 characters"):
        await stub.CreateModel(creation(request_id="r" * 129))


async def test_checking_only_answers_and_leaves_nothing(stub: Stub, blobs: BlobStore) -> None:
    would_be = await stub.CreateModel(creation(validate_only=True, request_id="r"))
    assert (would_be.name, would_be.latest_version) == ("models/m", "models/m/versions/1")
    assert not blobs.contains(would_be.weights_digest)
    assert list((await stub.ListModels(model_pb2.ListModelsRequest())).models) == []
    made = await stub.CreateModel(creation(request_id="r"))
    assert made.weights_digest == would_be.weights_digest
    assert blobs.contains(made.weights_digest)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateModel(creation("x", width=-1.0, validate_only=True))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def graph_creation(blobs: BlobStore, content: bytes, *, request_id: str = "", **fields: Any) -> Any:
    architecture, weights = graph.split(graphs.small_onnx())
    model = model_pb2.Model(
        graph=model_pb2.Graph(digest=blobs.put(content or architecture)),
        weights_digest=blobs.put(io.save(weights)),
        **fields,
    )
    return model_pb2.CreateModelRequest(model_id="g", model=model, request_id=request_id)


async def test_a_graph_is_created_and_shows_what_it_takes_and_gives(stub: Stub, blobs: BlobStore) -> None:
    labels = [f"class {i}" for i in range(graphs.CLASSES)]
    request = graph_creation(blobs, b"", class_labels=labels, request_id="r")
    made = await stub.CreateModel(request)
    assert (made.WhichOneof("architecture"), made.graph) == ("graph", request.model.graph)
    assert list(made.class_labels) == labels
    batch = model_pb2.Dimension(name="batch")
    for specs, name, size in ((made.inputs, "x", graphs.FEATURES), (made.outputs, "y", graphs.CLASSES)):
        shape = [batch, model_pb2.Dimension(value=size)]
        assert list(specs) == [model_pb2.TensorSpec(name=name, dtype="float32", shape=shape)]
    assert await stub.GetModel(model_pb2.GetModelRequest(name="models/g")) == made
    assert await stub.CreateModel(request) == made
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateModel(creation("g", request_id="r"))
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_what_a_graph_cannot_be_trained_with_is_named(stub: Stub, blobs: BlobStore) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateModel(graph_creation(blobs, graphs.unsupported()))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    violations = detail(caught, error_details_pb2.BadRequest).field_violations
    assert {violation.field for violation in violations} == {"model.graph.digest"}
    said = " ".join(violation.description for violation in violations)
    assert '"clean up"' in said
    assert '"count words"' in said


async def test_a_model_without_an_architecture_is_refused(stub: Stub) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="architecture: is not set; set"):
        await stub.CreateModel(model_pb2.CreateModelRequest(model_id="m"))


async def test_another_tenants_models_are_not_found(stub: Stub, as_tenant: AsTenant) -> None:
    await stub.CreateModel(creation())
    as_tenant.tenant = "other"
    calls: list[Awaitable[object]] = [
        stub.GetModel(model_pb2.GetModelRequest(name="models/m")),
        stub.UpdateModel(model_pb2.UpdateModelRequest(model=model_pb2.Model(name="models/m"))),
        stub.DeleteModel(model_pb2.DeleteModelRequest(name="models/m")),
        stub.GetModelVersion(model_pb2.GetModelVersionRequest(name="models/m/versions/1")),
        stub.ListModelVersions(model_pb2.ListModelVersionsRequest(parent="models/m")),
        stub.DeleteModelVersion(model_pb2.DeleteModelVersionRequest(name="models/m/versions/1")),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert list((await stub.ListModels(model_pb2.ListModelsRequest())).models) == []
    await stub.CreateModel(creation(width=5.0, request_id="r"))
    as_tenant.tenant = "default"
    assert (await stub.CreateModel(creation("n", request_id="r"))).name == "models/n"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"filter": "colour = red"}, "filter: at character 1: there is no field 'colour'"),
        ({"order_by": "colour"}, "order_by: is 'colour'; use one of create_time, name"),
        ({"page_token": "x"}, "page_token: 'x' is no token"),
        ({"page_size": -1}, "page_size: is -1"),
    ],
)
async def test_what_is_wrong_with_a_list_call_is_said(stub: Stub, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=said) as caught:
        await stub.ListModels(model_pb2.ListModelsRequest(**fields))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_cannot_be_noted_or_changed_is_refused(stub: Stub) -> None:
    await stub.CreateModel(creation())
    for model, mask, said in (
        (model_pb2.Model(name="models/m", labels={"B": "x"}), [], r"model\.labels\['B'\]: is no key of a label"),
        (model_pb2.Model(name="models/m"), ["builtin"], "update_mask: 'builtin' of a model cannot be changed"),
        (model_pb2.Model(name="m"), [], r"model\.name: 'm' is no name in models"),
    ):
        update = model_pb2.UpdateModelRequest(model=model, update_mask=FieldMask(paths=mask))
        with pytest.raises(grpc.aio.AioRpcError, match=said) as caught:
            await stub.UpdateModel(update)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError, match=r"model\.description: has 1,001"):
        await stub.CreateModel(creation("n", description="d" * 1001))


# --- code ------------------------------------------------------------------------------------------------------

LINEAR = {"weight": np.ones((3, 2), np.float32), "bias": np.zeros(3, np.float32)}


def code_creation(blobs: BlobStore, **more: Any) -> Any:
    message = model_pb2.Code(
        **{
            "digest": blobs.put(b"def build(size): pass"),
            "config": convert.dict_to_struct({"size": 2.0, "deep": [1, {"a": 1.5}]}),
            "parameters": ["weight", "bias"],
            **more,
        }
    )
    model = model_pb2.Model(code=message, weights_digest=blobs.put(io.save(LINEAR)), init_seed=7)
    return model_pb2.CreateModelRequest(model_id="code", model=model, request_id="code-1")


@pytest.fixture
async def allowing(store: Store, blobs: BlobStore) -> AsyncIterator[Stub]:
    """A service that takes code."""
    catalog = ModelCatalog(store, blobs, TenantBlobs(blobs, store, are_apart=False), allow_code=True)
    servicer = ModelServicer(catalog)
    async with channel_to(
        lambda server: model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server), as_tenant=AsTenant()
    ) as channel:
        yield model_pb2_grpc.ModelServiceStub(channel)


async def test_code_is_answered_as_it_was_asked_for(allowing: Stub, blobs: BlobStore, store: Store) -> None:
    asked = code_creation(blobs)
    made = await allowing.CreateModel(asked)
    code = asked.model.code
    code.factory, code.file_name = "build", "model.py"  # what is left out has its default
    assert made.code == code
    assert (made.init_seed, made.num_parameters, made.WhichOneof("architecture")) == (7, 9, "code")
    assert await allowing.GetModel(model_pb2.GetModelRequest(name="models/code")) == made
    assert await allowing.CreateModel(code_creation(blobs)) == made
    [record], _ = store.list_models(PageRequest(), tenant="default")
    assert isinstance(record.architecture, CodeArchitecture)
    assert repr(record.architecture.config["size"]) == "2"  # an argument that is no fraction is an int
    assert record.architecture.config["deep"] == [1, {"a": 1.5}]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await allowing.CreateModel(code_creation(blobs, factory="build", config=convert.dict_to_struct({})))
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_statistics_of_code_are_named_with_their_momentum(allowing: Stub, blobs: BlobStore) -> None:
    weights = {f"{layer}.running_{what}": np.ones(2, np.float32) for layer in ("a", "b") for what in ("mean", "var")}
    weights |= {f"{layer}.num_batches_tracked": np.zeros((), np.int64) for layer in ("a", "b")}
    asked = code_creation(
        blobs, batch_norms=[model_pb2.BatchNorm(path="a"), model_pb2.BatchNorm(path="b", momentum=0.0)]
    )
    asked.model.weights_digest = blobs.put(io.save({**LINEAR, **weights}))
    made = await allowing.CreateModel(asked)
    assert [(of.path, of.HasField("momentum"), of.momentum) for of in made.code.batch_norms] == [
        ("a", False, 0.0),
        ("b", True, 0.0),
    ]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"parameters": ["weight", "bias", "weight"]}, "model.code.parameters"),
        ({"batch_norms": [model_pb2.BatchNorm(path="a"), model_pb2.BatchNorm(path="a")]}, "model.code.batch_norms"),
    ],
)
async def test_what_is_named_twice_is_refused(
    allowing: Stub, blobs: BlobStore, more: dict[str, Any], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await allowing.CreateModel(code_creation(blobs, **more))
    [violation] = detail(caught, error_details_pb2.BadRequest).field_violations
    assert (violation.field, "more than once; name each once" in violation.description) == (field, True)


async def test_code_that_is_not_allowed_fails_a_precondition(stub: Stub, blobs: BlobStore) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="without --allow-code") as caught:
        await stub.CreateModel(code_creation(blobs))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert detail(caught, error_details_pb2.ErrorInfo).reason == "CODE_NOT_ALLOWED"
