"""PredictService: what is translated, and what is refused before it is computed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from chainrule.server.architecture import Builtin
from chainrule.server.errors import InvalidRequestError
from chainrule.server.rpc.tensors import DTYPES, named_arrays, tensor
from chainrule.v1 import predict_pb2, predict_pb2_grpc
from tests.server.jobs.service_parts import FakeLauncher, Parts
from tests.server.rpc.whole_api import serving

Stub = Any
LABELS = ("cat", "dog", "owl", "elk")


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[Stub]:
    """Of a service with the model "models/m", which tells four classes apart."""
    parts = Parts(tmp_path, FakeLauncher())
    config = {"in_features": 2, "hidden": [], "num_classes": 4}
    parts.models.create("m", architecture=Builtin("mlp", config), weights_digest="", init_seed=1, tenant="default")
    parts.models.create(
        "named",
        architecture=Builtin("mlp", config),
        weights_digest="",
        init_seed=1,
        tenant="default",
        class_labels=LABELS,
    )
    async with serving(parts) as address, grpc.aio.insecure_channel(address) as channel:
        yield predict_pb2_grpc.PredictServiceStub(channel)
    parts.store.close()


X = np.asarray([[1, 2], [3, 4], [5, -6]], np.float32)


def request(**more: Any) -> predict_pb2.PredictRequest:
    return predict_pb2.PredictRequest(**{"model": "models/m", "inputs": [tensor("", X)], **more})


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_outputs_come_with_the_version_that_has_made_them(stub: Stub) -> None:
    response = await stub.Predict(request())
    assert response.version == "models/m/versions/1"
    [output] = response.outputs
    assert (output.name, output.dtype, list(output.shape)) == ("output", "float32", [3, 4])
    assert not response.rankings
    assert not response.class_labels


async def test_classes_are_ranked_by_their_probability(stub: Stub) -> None:
    response = await stub.Predict(request(top_k=4, omit_outputs=True))
    assert not response.outputs
    assert len(response.rankings) == len(X)
    for ranking in response.rankings:
        probabilities = [ranked.probability for ranked in ranking.classes]
        assert sorted(probabilities, reverse=True) == probabilities
        assert sum(probabilities) == pytest.approx(1)
        assert {ranked.index for ranked in ranking.classes} == {0, 1, 2, 3}


async def test_classes_have_their_labels(stub: Stub) -> None:
    response = await stub.Predict(request(model="models/named", top_k=4, with_class_labels=True))
    assert list(response.class_labels) == list(LABELS)
    labels = {ranked.index: ranked.label for ranked in response.rankings[0].classes}
    assert labels == dict(enumerate(LABELS))


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"model": "models/x"}, "NOT_FOUND", 'there is no model "models/x"'),
        ({"model": "models/m/versions/2"}, "NOT_FOUND", 'there is no model version "models/m/versions/2"'),
        ({"model": "m"}, "INVALID_ARGUMENT", "model: 'm' is no name in models"),
        ({"inputs": []}, "INVALID_ARGUMENT", "inputs: are 0"),
        ({"top_k": -1}, "INVALID_ARGUMENT", "top_k: is -1"),
        ({"top_k": 101}, "INVALID_ARGUMENT", "top_k: is 101, of 3 examples; use 0 to 100"),
        (
            {"inputs": [tensor("", X.astype(np.int64))]},
            "INVALID_ARGUMENT",
            'inputs[0].dtype: is int64, of shape (3, 2); the input "input" of "models/m" is float32',
        ),
        (
            {"inputs": [tensor("", X[:, :1])]},
            "INVALID_ARGUMENT",
            'inputs[0]: "input" of shape (3, 1) does not fit "models/m"',
        ),
    ],
)
async def test_what_is_wrong_is_told(stub: Stub, changes: dict[str, Any], code: str, said: str) -> None:
    found, details = await refusal(stub.Predict(request(**changes)))
    assert found.name == code
    assert details.startswith(said)


async def test_a_stream_names_the_field_within_its_request(stub: Stub) -> None:
    wrong = predict_pb2.StreamPredictRequest(request=request(top_k=-1))
    code, details = await refusal(stub.StreamPredict(iter([wrong])).read())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("request.top_k: is -1")


async def test_an_empty_stream_has_no_answers(stub: Stub) -> None:
    assert await stub.StreamPredict(iter(())).read() is grpc.aio.EOF


# --- tensors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_every_dtype_crosses_as_it_is(dtype: str) -> None:
    array = np.asarray([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    message = tensor("x", array)
    [(name, again)] = named_arrays([message], field="inputs")
    assert name == "x"
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


def test_big_endian_and_strided_arrays_are_sent_as_the_api_has_it() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    assert tensor("x", array).data == np.asarray([0, 3, 1, 4, 2, 5], "<i4").tobytes()


def message(dtype: str, shape: tuple[int, ...], data: bytes) -> predict_pb2.Tensor:
    return predict_pb2.Tensor(dtype=dtype, shape=shape, data=data)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (message("float128", (1,), bytes(16)), "inputs[0].dtype: is 'float128'; use one of bool"),
        (message("", (1,), b"x"), "inputs[0].dtype: is ''"),
        (message("uint8", (), b"x"), "inputs[0].shape: is ()"),
        (message("uint8", (0, 2), b""), "inputs[0].shape: is (0, 2)"),
        (message("uint8", (1, -1), b""), "inputs[0].shape: is (1, -1)"),
        (message("uint8", (1,) * 17, b"x"), "inputs[0].shape: is (1, 1"),
        (message("float32", (1, 2**62, 0), b""), "inputs[0].shape: is (1, 4611686018427387904, 0), larger than"),
        (message("uint8", (2**40, 2**40), b"x"), "inputs[0].data: has 1 bytes; uint8 of shape"),
        (message("float32", (2,), bytes(7)), "inputs[0].data: has 7 bytes; float32 of shape (2,) takes 8"),
        (message("bool", (2,), b"\1\2"), "inputs[0].data: has bytes other than 0 and 1"),
    ],
)
def test_tensors_that_are_none_are_refused(sent: predict_pb2.Tensor, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        named_arrays([sent], field="inputs")
    assert str(caught.value).startswith(said)


def test_inputs_of_different_numbers_of_examples_are_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        named_arrays([tensor("x", X), tensor("y", X[:2])], field="inputs")
    assert str(caught.value).startswith("inputs[1].shape: is (2, 2), of 2 examples, but that of inputs[0] has 3")
